"""A sweep on two nodes of a real cluster of Ray comes to what it comes to on this machine."""

import json
import os
from functools import partial
from pathlib import Path

import pytest
from ray_nodes import QUIET, ended, started
from work_runs import trials_named

from mixopt.config import SweepConfig
from mixopt.corpus import corpus_hash
from mixopt.errors import RunError
from mixopt.sweeps import Job, log_of_trial, read_attempts, run_trials
from mixopt.trials import Training

pytestmark = QUIET


@pytest.fixture(scope="module")
def nodes():
    cluster = started()
    yield cluster
    ended(cluster)


@pytest.fixture
def make_job(small_corpus, tmp_path):
    return partial(job_of, small_corpus, tmp_path)


def job_of(corpus, folder, proxy="seeing_proxy:Seeing", device="cpu", **options):
    """Return a job; the seeing proxy puts its notes into `folder`."""
    if proxy.startswith("seeing"):
        options = {"notes": str(folder / "notes"), **options}
        (folder / "notes").mkdir(exist_ok=True)
    training = Training(1000, device=device, eval_tokens=512)
    return Job(proxy, options, corpus, training, corpus_hash(corpus))


def trials_of(count):
    return trials_named(*(f"t{n}" for n in range(count)))


def on(nodes, address=None, **means):
    options = {"address": address or nodes.address, **means.pop("options", {})}
    return SweepConfig(executor="ray", options=options, **means)


def noted(tmp_path):
    return {p.stem: json.loads(p.read_text()) for p in (tmp_path / "notes").glob("*.json")}


def without_seconds(results):
    return [(r.trial, r.status, r.tokens, r.parameters, r.losses, r.curve) for r in results]


def test_an_owner_outside_the_cluster_gets_the_same_table(nodes, make_job, tmp_path):
    trials, job = trials_of(4), make_job("ngram")
    here = run_trials(trials, job, tmp_path / "here", sweep=SweepConfig(workers=2))
    there = run_trials(trials, job, tmp_path / "there", sweep=on(nodes, nodes.client))
    assert without_seconds(there) == without_seconds(here)


def test_a_relative_folder_is_that_of_the_owner_wherever_ray_runs(
    nodes, make_job, tmp_path, monkeypatch
):
    """Ray's processes have another working directory than this one."""
    monkeypatch.chdir(tmp_path)
    done = run_trials(trials_of(2), make_job(), Path("trials"), sweep=on(nodes))
    assert [result.status for result in done] == ["finished"] * 2
    files = tmp_path / "trials" / "files"
    assert {seen["files"] for seen in noted(tmp_path).values()} == {str(files)}
    assert (files / "t1" / "seen.json").is_file()
    groups = [[result.trial] for result in done]
    assert all(log_of_trial(tmp_path / "trials", name, groups) for (name,) in groups)


def test_a_node_that_does_not_see_the_folder_ends_the_sweep_and_is_named(nodes, make_job, tmp_path):
    # What this process has open is seen by no other one.
    (tmp_path / "owner").mkdir()
    opened = os.open(tmp_path / "owner", os.O_RDONLY)
    folder = Path(f"/proc/self/fd/{opened}/trials")
    try:
        with pytest.raises(RunError, match=r"not found on \S+; use an --out folder that all nodes"):
            run_trials(trials_of(2), make_job(), folder, sweep=on(nodes))
    finally:
        os.close(opened)


def test_two_workers_share_a_gpu_that_ray_shows_them(nodes, make_job, tmp_path):
    """The node says that it has one; what Ray shows them is what counts here."""
    node = nodes.add(num_cpus=2, num_gpus=1)
    try:
        job = make_job(device="auto", meet=2)
        run_trials(trials_of(4), job, tmp_path / "trials", sweep=on(nodes, gpus=0.5))
    finally:
        nodes.kill(node)
    seen = noted(tmp_path).values()
    assert {(one["gpus"], one["device"]) for one in seen} == {("0", "cuda")}
    assert len({one["pid"] for one in seen}) == 2
    assert {(a.gpus, a.kind) for a in read_attempts(tmp_path / "trials")} == {(0.5, "gpu")}
