"""A sweep on two nodes of a real cluster of Ray comes to what it comes to on this machine."""

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from ray_nodes import QUIET, ended, started

from mixopt.config import CorpusConfig
from mixopt.corpus import corpus_hash, prepare_corpus
from mixopt.errors import CorpusError, MixoptError, RunError
from mixopt.mixture import Mixture
from mixopt.sweeps import Job, Means, Site, make_executor, read_attempts, run_trials
from mixopt.trials import Training, Trial

pytestmark = QUIET


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    cluster = started(tmp_path_factory.mktemp("nodes"))
    yield cluster
    ended(cluster)


@pytest.fixture(scope="module")
def corpus_path(text_files, tmp_path_factory):
    path = tmp_path_factory.mktemp("ray") / "corpus"
    domains = {name: {"path": str(text_files[name])} for name in ("code", "prose")}
    config = CorpusConfig.model_validate({"domains": domains})
    prepare_corpus(config, {}, path, fingerprint="test", seed=0, min_tokens=2)
    return path


@pytest.fixture
def make_job(corpus_path, tmp_path):
    def make(proxy="seeing_proxy:Seeing", device="cpu", corpus=corpus_path, **options):
        if proxy.startswith("seeing"):
            options = {"notes": str(tmp_path / "notes"), **options}
        (tmp_path / "notes").mkdir(exist_ok=True)
        training = Training(1000, device=device, eval_tokens=512)
        return Job(proxy, options, corpus, training, corpus_hash(corpus))

    return make


@pytest.fixture
def hidden():
    """Give a path to a folder that this process sees, and no other one."""
    opened = []

    def hide(path: Path) -> Path:
        path.mkdir(exist_ok=True)
        opened.append(os.open(path, os.O_RDONLY))
        return Path(f"/proc/self/fd/{opened[-1]}")

    yield hide
    for descriptor in opened:
        os.close(descriptor)


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


def test_both_nodes_train_and_each_keeps_one_worker(nodes, make_job, tmp_path):
    run_trials(trials_of(6), make_job(meet=2), tmp_path / "trials", means=on(nodes))
    attempts = read_attempts(tmp_path / "trials")
    assert {attempt.node for attempt in attempts} == {"n1", "n2"}
    assert len({seen["pid"] for seen in noted(tmp_path).values()}) == 2


def test_no_more_groups_train_at_once_than_workers(nodes, make_job, tmp_path):
    run_trials(trials_of(4), make_job(seconds=0.3), tmp_path / "trials", means=on(nodes, workers=1))
    seen = sorted(noted(tmp_path).values(), key=lambda one: one["begun"])
    assert all(one["ended"] <= two["begun"] for one, two in pairwise(seen))


def test_a_worker_that_is_killed_is_replaced_and_its_group_trained_again(nodes, make_job, tmp_path):
    log, said = tmp_path / "trained.log", []
    job = make_job("faulty_proxy:Faulty", log=str(log), fault="kill", at="t2")
    results = run_trials(trials_of(6), job, tmp_path / "t", means=on(nodes), say=said.append)
    assert [result.status for result in results] == ["finished"] * 6
    assert "ended with signal SIGKILL" in said[0]
    assert sorted(line.split()[2] for line in log.read_text().splitlines() if "ended" in line) == [
        "t0,t1",
        "t2",
        "t3",
        "t4,t5",
    ]


def test_where_nothing_is_shared_each_node_is_sent_the_corpus_once(
    nodes, make_job, hidden, corpus_path, tmp_path
):
    """By a client, whose process is on no node."""
    job = make_job(corpus=hidden(corpus_path), meet=2)
    options, said = {"cache": "$MIXOPT_TEST_CACHE"}, []
    folder = hidden(tmp_path / "owner") / "trials"
    means = on(nodes, nodes.client, options=options)
    results = run_trials(trials_of(6), job, folder, means=means, say=said.append)

    assert [result.status for result in results] == ["finished"] * 6
    sent = [line for line in said if "is sent the corpus, once" in line]
    assert sorted(line.split()[3] for line in sent) == ["n1", "n2"]
    caches = {seen["corpus"] for seen in noted(tmp_path).values()}
    assert caches == {str(nodes.cache(name) / job.corpus_hash) for name in ("n1", "n2")}


def test_small_files_of_trials_and_logs_come_back_from_a_cache(nodes, make_job, hidden, tmp_path):
    folder = hidden(tmp_path / "owner") / "trials"
    means = on(nodes, options={"cache": "$MIXOPT_TEST_CACHE"})
    run_trials(trials_of(2), make_job(), folder, means=means)
    assert sorted(path.name for path in (folder / "files" / "t1").rglob("*.*")) == ["seen.json"]
    logs = "".join(path.read_text() for path in (folder / "logs").iterdir())
    assert all(f'begins ["{trial}"]' in logs for trial in ("t0", "t1"))


def test_files_stay_where_they_are_if_the_folder_is_shared(nodes, make_job, tmp_path):
    run_trials(trials_of(2), make_job(), tmp_path / "trials", means=on(nodes))
    files = tmp_path / "trials" / "files"
    assert {seen["files"] for seen in noted(tmp_path).values()} == {str(files)}
    assert (files / "t1" / "logs" / "checkpoint.bin").stat().st_size == 2_000_000


def test_a_corpus_that_is_changed_under_a_sweep_ends_it_with_the_reason(
    nodes, make_job, corpus_path, tmp_path
):
    corpus = shutil.copytree(corpus_path, tmp_path / "corpus")
    job = make_job(corpus=corpus, seconds=0.3)
    site = Site(tmp_path / "trials", workers=1)
    groups = {number: [trial] for number, trial in enumerate(trials_of(4))}
    (tmp_path / "trials").mkdir()
    with make_executor("ray", {"address": nodes.address}, job, site) as executor:
        executor.group_size()
        outcomes = executor.run(groups, lambda *_: None)
        assert next(outcomes).reason is None
        with (corpus / "index.json").open("a") as index:
            index.write("\n")
        with pytest.raises(CorpusError, match="is not the corpus that the sweep began with"):
            list(outcomes)


def test_a_proxy_that_cannot_be_built_ends_the_sweep_with_its_reason(nodes, make_job, tmp_path):
    with pytest.raises(MixoptError, match="unknown option 'sise'; did you mean 'size'"):
        run_trials(trials_of(2), make_job(sise=1), tmp_path / "trials", means=on(nodes))


def test_a_worker_that_no_node_has_room_for_is_refused(nodes, make_job, tmp_path):
    means = on(nodes, options={"cpus": 64})
    with pytest.raises(RunError, match=r"none of \d nodes has room for a worker of 64 CPU"):
        run_trials(trials_of(2), make_job(), tmp_path / "trials", means=means)


def test_nothing_is_left_on_the_cluster_when_a_sweep_has_ended(nodes, make_job, tmp_path):
    import ray
    from ray.util import list_named_actors

    run_trials(trials_of(2), make_job(), tmp_path / "trials", means=on(nodes))
    ray.init(nodes.address, log_to_driver=False)
    try:
        assert [
            one for one in list_named_actors(all_namespaces=True) if "mixopt" in one["name"]
        ] == []
    finally:
        ray.shutdown()


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
