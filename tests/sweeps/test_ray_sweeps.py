"""A sweep on two nodes of a real Ray cluster gives the results of this machine."""

from dataclasses import replace
from functools import partial

import pytest
from ray_nodes import QUIET
from work_runs import faulty_job, trials_named

from mixopt.config import SweepConfig
from mixopt.corpus import corpus_hash
from mixopt.sweeps import Job, Training, read_attempts, run_trials

pytestmark = QUIET


@pytest.fixture
def make_job(corpus, tmp_path):
    return partial(faulty_job, tmp_path, corpus.path)


def trials_of(count):
    return trials_named(*(f"t{n}" for n in range(count)))


def on(ray_nodes, address=None, **means):
    options = {"address": address or ray_nodes.address, **means.pop("options", {})}
    return SweepConfig(executor="ray", options=options, **means)


def without_seconds(results):
    return [(r.trial, r.status, r.tokens, r.parameters, r.losses, r.curve) for r in results]


def test_an_owner_outside_the_cluster_gets_the_same_table(ray_nodes, corpus, tmp_path):
    trials, training = trials_of(4), Training(1000, device="cpu", eval_tokens=512)
    job = Job("ngram", {}, corpus.path, training, corpus_hash(corpus.path))
    here = run_trials(trials, job, tmp_path / "here", sweep=SweepConfig(workers=2))
    there = run_trials(trials, job, tmp_path / "there", sweep=on(ray_nodes, ray_nodes.client))
    assert without_seconds(there) == without_seconds(here)


def test_two_workers_share_a_gpu_that_ray_shows_them(ray_nodes, make_job, tmp_path):
    """The node says that it has one; what Ray shows them is what counts here."""
    node = ray_nodes.add(num_cpus=2, num_gpus=1)
    try:
        job = make_job(size=1, meet=2)
        job = replace(job, training=replace(job.training, device="auto"))
        run_trials(trials_of(4), job, tmp_path / "trials", sweep=on(ray_nodes, gpus=0.5))
    finally:
        ray_nodes.kill(node)
    lines = (tmp_path / "trained.log").read_text().splitlines()
    pids, *seen = zip(*(line.split()[3:] for line in lines if "began" in line), strict=True)
    assert [set(item) for item in seen] == [{"cuda"}, {"0"}]
    assert len(set(pids)) == 2
    assert {(a.gpus, a.kind) for a in read_attempts(tmp_path / "trials")} == {(0.5, "gpu")}
