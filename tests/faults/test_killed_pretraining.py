"""Pretraining that is ended at any moment, on one rank or two, comes to the same in the end."""

import time

import pytest
from fault_runs import KINDS, OURS, SIGNALS, command, disturb, moment
from pretrain_runs import assert_equal_runs, checkpoints, write_config
from ranks import free_port

from mixopt.testing import tiny_corpus

SCHEDULE = (
    "schedule={batch: 8, sequence_length: 32, stages: [{steps: 7, mixture: {code: 0.7, manual:"
    " 0.3}}, {steps: 17, mixture: {code: 0.1, manual: 0.9}}]}"
)
CASES = [
    (ranks, kind, count)
    for ranks in (1, 2)
    for kind in SIGNALS
    for count in range(max(KINDS, 1))
    if KINDS or (ranks, kind) in {(1, "kill"), (2, "stop")}
]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretraining")
    corpus = tiny_corpus(folder / "corpus")
    return write_config(folder, corpus=str(corpus.path))


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """A directory for one rank and one for two, each with the seconds that it took."""
    found = {}
    for ranks in (1, 2):
        out, begun = tmp_path_factory.mktemp("undisturbed") / "run", time.monotonic()
        assert disturb(job(config, out, ranks), "none", 0) == [0] * ranks
        found[ranks] = (out, time.monotonic() - begun)
    return found


def job(config, out, ranks):
    """The command of each rank, as torchrun starts them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    sets = ("--set", SCHEDULE, "--set", "mixture={anchor: natural}")
    asked = command("pretrain", config, "--out", out, *sets)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
    if ranks == 1:
        return [(asked, {})]
    return [(asked, {**place, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(ranks)]


@pytest.mark.parametrize(("ranks", "kind", "count"), CASES)
def test_a_pretraining_that_is_ended_comes_to_the_same_when_it_goes_on(
    config, undisturbed, tmp_path, ranks, kind, count
):
    whole, seconds = undisturbed[ranks]
    out = tmp_path / "run"
    codes = disturb(job(config, out, ranks), kind, moment(seconds, ranks, kind, count))
    assert OURS not in codes

    assert disturb(job(config, out, ranks), "none", 0) == [0] * ranks

    assert_equal_runs(out, whole)
    assert [path.name for path in checkpoints(out)] == [path.name for path in checkpoints(whole)]
    assert not list(out.rglob("*.tmp"))
