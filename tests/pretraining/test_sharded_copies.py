"""Pretraining that is sharded over some ranks with copies over others, and moves."""

from __future__ import annotations

import shutil

import pytest
from pretrain_runs import (
    CONFIG,
    Job,
    assert_close_weights,
    checkpoints,
    finished,
    log_of,
    whole_weights_of,
    write_config,
)

from mixopt.errors import ConfigError
from mixopt.pretraining import load_pretraining, verify_pretraining
from mixopt.testing import tiny_corpus

pytestmark = [pytest.mark.nightly, pytest.mark.usefixtures("one_thread")]
HSDP = ["parallel=hsdp", "shard_degree=2"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A run whose weights are those of other sums to 1e-6.

    With a small epsilon Adam takes a full step by the sign of a gradient that is rounding alone.
    """
    corpus = tiny_corpus(tmp_path_factory.mktemp("corpus"))
    training = {**CONFIG["training"], "steps": 6, "micro_batch": 2, "eps": 1e-3}
    return write_config(
        tmp_path_factory.mktemp("config"),
        corpus=str(corpus.path),
        training=training,
        checkpoint={"every": 2, "keep": 9},
        held_out={"every": 0, "tokens": 512},
    )


@pytest.fixture(scope="module")
def alone(context, config, tmp_path_factory) -> Job:
    out = tmp_path_factory.mktemp("alone") / "run"
    return finished(context, config, out, overrides=["parallel=none"])


@pytest.fixture(scope="module")
def four(context, config, tmp_path_factory) -> Job:
    """Two copies, each over two ranks."""
    return finished(context, config, tmp_path_factory.mktemp("four") / "run", 4, HSDP)


def test_four_ranks_are_one(alone, four):
    assert four.batches() == alone.batches()
    assert log_of(four.out) == log_of(alone.out)
    assert_close_weights(whole_weights_of(alone.out), whole_weights_of(four.out))


def test_a_part_is_written_once_whatever_the_copies(four):
    """Its shards are together as large as those of one rank, and each rank has some."""
    path = checkpoints(four.out)[-1]
    shards = list(path.glob("*.safetensors"))
    assert 2 <= len(shards) <= 4
    assert {part.state for part in verify_pretraining(four.out)} == {"whole"}


@pytest.mark.parametrize(
    ("ranks", "way"),
    [(1, ["parallel=none"]), (2, ["parallel=ddp"]), (2, ["parallel=fsdp"]), (4, ["parallel=ddp"])],
    ids=["one", "ddp of two", "fsdp of two", "ddp of four"],
)
def test_a_run_moves_away_from_copies(ranks, way, context, config, alone, four, tmp_path):
    moved(context, config, four.out, tmp_path / "run", ranks, way)
    assert_close_weights(whole_weights_of(alone.out), whole_weights_of(tmp_path / "run"))


@pytest.mark.parametrize(
    ("ranks", "degree"), [(4, 2), (4, 1), (2, 2)], ids=["two by two", "four copies", "one copy"]
)
def test_a_run_moves_to_copies(ranks, degree, context, config, alone, tmp_path):
    way = ["parallel=hsdp", f"shard_degree={degree}"]
    moved(context, config, alone.out, tmp_path / "run", ranks, way)
    assert_close_weights(whole_weights_of(alone.out), whole_weights_of(tmp_path / "run"))


def moved(context, config, before, out, ranks, way) -> None:
    """Resume after four of the six steps on other ranks."""
    shutil.copytree(before, out)
    shutil.rmtree(out / "checkpoints" / "step-00000006")
    finished(context, config, out, ranks, way)


# --- Bad input ----------------------------------------------------------------------------------


def test_a_degree_that_does_not_divide_the_ranks_is_one_line(context, config, tmp_path):
    job = Job(context, config, tmp_path / "run", 2, ["parallel=hsdp", "shard_degree=3"])
    assert job.wait() == [2, 2]
    assert job.error == "shard_degree: 3 does not divide the 2 ranks; give a divisor"


def test_a_degree_without_copies_is_refused(config):
    message = r"shard_degree: belongs to parallel: hsdp, and it is fsdp"
    with pytest.raises(ConfigError, match=message):
        load_pretraining(config, ["parallel=fsdp", "shard_degree=2"])
