"""A sweep on two nodes of a real cluster of Ray comes to what it comes to on this machine."""

import json
import os
import shutil
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from ray_nodes import QUIET, ended, started

from mixopt.corpus import corpus_hash
from mixopt.errors import CorpusError, MixoptError, RunError
from mixopt.mixture import Mixture
from mixopt.sweeps import GroupRunner, Job, Means, Site, make_executor, read_attempts, run_trials
from mixopt.trials import Training, Trial

pytestmark = QUIET


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    cluster = started(tmp_path_factory.mktemp("nodes"))
    yield cluster
    ended(cluster)


@pytest.fixture
def make_job(corpus_path, tmp_path):
    return partial(job_of, corpus_path, tmp_path)


def job_of(corpus, folder, proxy="seeing_proxy:Seeing", device="cpu", **options):
    """Return a job; the seeing proxy puts its notes into `folder`."""
    if proxy.startswith("seeing"):
        options = {"notes": str(folder / "notes"), **options}
        (folder / "notes").mkdir(exist_ok=True)
    training = Training(1000, device=device, eval_tokens=512)
    return Job(proxy, options, corpus, training, corpus_hash(corpus))


class Swept(NamedTuple):
    """A sweep that is done: where, what it said, and what its proxy saw."""

    folder: Path
    results: list
    said: list[str]
    seen: dict


def sweep(folder, trials, job, means):
    said: list[str] = []
    results = run_trials(trials, job, folder / "trials", means=means, say=said.append)
    return Swept(folder / "trials", results, said, noted(Path(job.options["notes"]).parent))


@pytest.fixture(scope="module")
def alone(nodes, corpus_path, tmp_path_factory):
    """A sweep with one worker, all paths shared."""
    folder = tmp_path_factory.mktemp("alone")
    job = job_of(corpus_path, folder, seconds=0.2)
    return sweep(folder, trials_of(4), job, on(nodes, workers=1))


def trials_of(count):
    shares = [place / count for place in range(count)]
    return [
        Trial(f"t{n}", Mixture({"code": w, "prose": 1 - w}), seed=n) for n, w in enumerate(shares)
    ]


def on(nodes, address=None, **means):
    options = {"address": address or nodes.address, **means.pop("options", {})}
    return Means("ray", options, **means)


def noted(tmp_path):
    return {p.stem: json.loads(p.read_text()) for p in (tmp_path / "notes").glob("*.json")}


def without_seconds(results):
    return [(r.trial, r.status, r.tokens, r.parameters, r.losses, r.curve) for r in results]


def test_two_nodes_and_this_machine_give_equal_tables(nodes, make_job, tmp_path):
    trials, job = trials_of(8), make_job("ngram")
    here = run_trials(trials, job, tmp_path / "here", means=Means(workers=2))
    there = run_trials(trials, job, tmp_path / "there", means=on(nodes))
    assert without_seconds(there) == without_seconds(here)


def test_an_owner_outside_the_cluster_gets_the_same_table(nodes, make_job, tmp_path):
    trials, job = trials_of(4), make_job("ngram")
    here = run_trials(trials, job, tmp_path / "here", means=Means(workers=2))
    there = run_trials(trials, job, tmp_path / "there", means=on(nodes, nodes.client))
    assert without_seconds(there) == without_seconds(here)


def test_both_nodes_train_and_each_keeps_one_worker(nodes, make_job, tmp_path):
    run_trials(trials_of(6), make_job(meet=2), tmp_path / "trials", means=on(nodes))
    attempts = read_attempts(tmp_path / "trials")
    assert {attempt.node for attempt in attempts} == {"n1", "n2"}
    assert len({seen["pid"] for seen in noted(tmp_path).values()}) == 2


def test_no_more_groups_train_at_once_than_workers(alone):
    seen = sorted(alone.seen.values(), key=lambda one: one["begun"])
    assert all(one["ended"] <= two["begun"] for one, two in pairwise(seen))


def test_files_stay_where_they_are_if_the_folder_is_shared(alone):
    files = alone.folder / "files"
    assert {seen["files"] for seen in alone.seen.values()} == {str(files)}
    assert (files / "t1" / "logs" / "checkpoint.bin").stat().st_size == 2_000_000


def test_a_shared_corpus_is_used_where_it_is(alone, corpus_path):
    assert {seen["corpus"] for seen in alone.seen.values()} == {str(corpus_path)}


def test_a_relative_folder_is_that_of_the_owner_wherever_ray_runs(
    nodes, make_job, tmp_path, monkeypatch
):
    """Ray's processes have another working directory than this one."""
    monkeypatch.chdir(tmp_path)
    done = run_trials(trials_of(2), make_job(), Path("trials"), means=on(nodes))
    assert [result.status for result in done] == ["finished"] * 2
    files = tmp_path / "trials" / "files"
    assert {seen["files"] for seen in noted(tmp_path).values()} == {str(files)}
    assert (files / "t1" / "logs" / "seen.json").is_file()
    logs = "".join(path.read_text() for path in (tmp_path / "trials" / "logs").iterdir())
    assert all(f'begins ["{result.trial}"]' in logs for result in done)


def test_a_node_that_does_not_see_the_folder_ends_the_sweep_and_is_named(nodes, make_job, tmp_path):
    # What this process has open is seen by no other one.
    (tmp_path / "owner").mkdir()
    opened = os.open(tmp_path / "owner", os.O_RDONLY)
    folder = Path(f"/proc/self/fd/{opened}/trials")
    try:
        with pytest.raises(RunError, match=r"not found on n\d; use an --out folder that all nodes"):
            run_trials(trials_of(2), make_job(), folder, means=on(nodes))
    finally:
        os.close(opened)


def test_a_corpus_that_is_changed_under_a_sweep_ends_it_with_the_reason(
    nodes, make_job, corpus_path, tmp_path
):
    corpus = shutil.copytree(corpus_path, tmp_path / "corpus")
    job = job_of(corpus, tmp_path, seconds=0.3)
    site = Site(tmp_path / "trials", device="cpu", workers=1)
    groups = [[trial] for trial in trials_of(4)]
    executor = make_executor("ray", {"address": nodes.address}, site)
    with GroupRunner(job, site.folder, executor) as runner:
        outcomes = runner.run(groups)
        assert next(outcomes).reason is None
        with (corpus / "index.json").open("a") as index:
            index.write("\n")
        with pytest.raises(CorpusError, match=r"changed while|the corpus that the sweep started"):
            list(outcomes)


def test_a_proxy_that_cannot_be_built_ends_the_sweep_with_its_reason(nodes, make_job, tmp_path):
    with pytest.raises(MixoptError, match="unknown option 'sise'; did you mean 'size'"):
        run_trials(trials_of(2), make_job(sise=1), tmp_path / "trials", means=on(nodes))


def test_a_worker_that_no_node_has_room_for_is_refused(nodes, make_job, tmp_path):
    means = on(nodes, options={"cpus": 64})
    with pytest.raises(RunError, match=r"none of \d nodes has room for a worker of 64 CPU"):
        run_trials(trials_of(2), make_job(), tmp_path / "trials", means=means)


def test_two_workers_share_a_gpu_that_ray_shows_them(nodes, make_job, tmp_path):
    """The node says that it has one; what Ray shows them is what counts here."""
    node = nodes.add(num_cpus=2, num_gpus=1)
    try:
        job = make_job(device="auto", meet=2)
        run_trials(trials_of(4), job, tmp_path / "trials", means=on(nodes, gpus=0.5))
    finally:
        nodes.kill(node)
    seen = noted(tmp_path).values()
    assert {(one["gpus"], one["device"]) for one in seen} == {("0", "cuda")}
    assert len({one["pid"] for one in seen}) == 2
    assert {(a.gpus, a.kind) for a in read_attempts(tmp_path / "trials")} == {(0.5, "0.5 gpu")}
