"""Checkpoints that a thread writes while training goes on, on one rank."""

from __future__ import annotations

import resource
from contextlib import contextmanager

import pytest
import torch
from ranks import on_ranks
from safetensors.torch import load_file
from torch import nn, optim

from mixopt.errors import MixoptError, RunError
from mixopt.pretraining import Checkpoints, joined
from mixopt.pretraining.checkpoints import _Writer

pytestmark = pytest.mark.usefixtures("one_thread")
METER = {"skipped": 0, "sums": [], "added": [0, 0]}
STATE = {
    "meter": METER, "losses": {}, "weights": {}, "sampler": {}, "mixture": {}, "metrics_size": 0,
}  # fmt: skip


@pytest.fixture
def ranks():
    with joined("cpu") as ranks:
        yield ranks


def filled(value: float, width: int = 8):
    """Return a model of one matrix, with the state of its optimiser."""
    model = nn.Linear(width, width, bias=False)
    nn.init.constant_(model.weight, value)
    optimizer = optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    return model, optimizer


def made(folder, ranks, *, last=9, every=0) -> Checkpoints:
    return Checkpoints(folder, ranks, keep=last, keep_every=every)


def weight_in(path) -> torch.Tensor:
    (shard,) = path.glob("*.safetensors")
    return load_file(shard)["model.weight"]


@contextmanager
def no_file_above(size: int):
    """Let no file grow beyond some bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- What is written ----------------------------------------------------------------------------


def test_one_that_is_due_while_another_is_written_waits_for_it(ranks, tmp_path):
    model, optimizer = filled(1.0, width=2048)
    with made(tmp_path, ranks) as checkpoints:
        for step in (1, 2, 3):
            nn.init.constant_(model.weight, step)
            checkpoints.save(model, optimizer, step, STATE)
        checkpoints.wait()
        found = [weight_in(path).unique().tolist() for path in sorted(tmp_path.iterdir())]
        assert found == [[1.0], [2.0], [3.0]]
        assert checkpoints.newest_whole()[1].step == 3


# --- What stays ---------------------------------------------------------------------------------


def test_checkpoints_of_every_n_steps_stay_besides_the_last(ranks, tmp_path):
    parts = filled(1.0)
    with made(tmp_path, ranks, last=2, every=4) as checkpoints:
        for step in range(1, 12):
            checkpoints.save(*parts, step, STATE)
    steps = [int(path.name.removeprefix("step-")) for path in sorted(tmp_path.iterdir())]
    assert steps == [4, 8, 10, 11]


# --- What goes wrong ----------------------------------------------------------------------------


def test_a_full_disk_is_known_after_the_thread_ended_and_raised_once(ranks, tmp_path):
    parts = filled(1.0, width=1024)
    with made(tmp_path, ranks) as checkpoints:
        checkpoints.save(*parts, 1, STATE)
        checkpoints.wait()
        with no_file_above(1 << 20):
            checkpoints.save(*parts, 2, STATE)
            with pytest.raises(
                RunError, match=r"step-00000002\.tmp: cannot be written: File too large"
            ):
                checkpoints.wait()
        checkpoints.wait()
        assert checkpoints.newest_whole()[1].step == 1
        checkpoints.save(*parts, 3, STATE)
        checkpoints.wait()
        assert checkpoints.newest_whole()[1].step == 3
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000001", "step-00000003"]


def failing(where, rank, out):
    """Write a checkpoint that one rank fails at: its shard, or what rank 0 puts beside it."""
    beside = [out / "absent"] if where == "beside" else []
    with joined("cpu") as ranks:
        if where == "shard" and rank == ranks.rank:
            _Writer.write_data = no_memory
        try:
            with Checkpoints(out, ranks) as checkpoints:
                checkpoints.save(*filled(1.0), 1, STATE, beside=beside)
        except MixoptError as error:
            return type(error).__name__, str(error)


def no_memory(*_):
    raise MemoryError("no memory for a buffer")


@pytest.mark.parametrize(
    ("where", "rank", "why"),
    [
        ("shard", 1, "MemoryError: no memory for a buffer"),
        ("beside", 0, "No such file or directory"),
    ],
)
def test_whatever_ends_the_thread_of_one_rank_ends_all_with_a_line(where, rank, why, tmp_path):
    line = f"{tmp_path}/.step-00000001.tmp: cannot be written: {why}"
    said = on_ranks(2, __file__, "failing", where, rank, tmp_path)
    assert said == [("RunError", line), ("OtherRankError", line)]


def test_an_error_in_training_is_not_hidden_by_one_of_the_thread(ranks, tmp_path):
    def interrupted():
        with made(tmp_path, ranks) as checkpoints:
            checkpoints.save(*filled(1.0, width=1024), 1, STATE)
            raise KeyboardInterrupt

    with no_file_above(1 << 20), pytest.raises(KeyboardInterrupt):
        interrupted()
