"""Checkpoints written in the background are complete, absent, or recognised as damaged."""

import logging
import re
import resource
import shutil
from contextlib import contextmanager

import pytest
import torch
from ranks import on_ranks
from refusals import refuses
from safetensors.torch import load_file
from torch import nn, optim

from mixopt.errors import MixoptError, RunError
from mixopt.pretraining import checkpoints as checkpoints_module
from mixopt.pretraining.checkpoints import Checkpoints, _Writer, check_checkpoint, load_training
from mixopt.pretraining.config import CheckpointConfig
from mixopt.pretraining.ranks import joined
from mixopt.run_directory import CheckedPart

pytestmark = pytest.mark.usefixtures("one_thread")
METER = {"skipped": 0, "sums": []}
STATE = {
    "meter": METER, "losses": {}, "weights": {}, "sampler": {}, "mixture": {}, "metrics_size": 0,
}  # fmt: skip
NAMES = ["step-00000001", "step-00000002", "step-00000003"]


@pytest.fixture
def ranks():
    with joined("cpu") as ranks:
        yield ranks


def filled(value: float, width: int = 8, bias: bool = False):
    """Return a model of one matrix, with the state of its optimiser."""
    model = nn.Linear(width, width, bias=bias)
    nn.init.constant_(model.weight, value)
    optimizer = optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    return model, optimizer


@pytest.fixture
def three(ranks, tmp_path) -> Checkpoints:
    """Checkpoints of a matrix whose elements are all 1, 2 and 3."""
    model, optimizer = filled(1.0, width=64)
    with Checkpoints(tmp_path, ranks, CheckpointConfig(keep=3)) as checkpoints:
        for step in (1, 2, 3):  # one that is due while another is written waits for it
            nn.init.constant_(model.weight, step)
            checkpoints.save(model, optimizer, step, STATE)
    return checkpoints


def names_in(path) -> list[str]:
    return sorted(item.name for item in path.iterdir())


@contextmanager
def no_file_above(size: int):
    """Let no file grow beyond some bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_each_has_the_weights_of_its_own_step(three, tmp_path):
    assert names_in(tmp_path) == NAMES
    for step, name in enumerate(NAMES, start=1):
        (shard,) = (tmp_path / name).glob("*.safetensors")
        assert load_file(shard)["model.weight"].unique().tolist() == [step]
    path, state = three.newest_whole()
    assert (path, state.step) == (tmp_path / NAMES[2], 3)
    model, optimizer = filled(0.0, width=64)
    load_training(path, model, optimizer)
    assert model.weight.unique().tolist() == [3]
    size = shard.stat().st_size
    assert check_checkpoint(path) == CheckedPart(f"checkpoints/{NAMES[2]}", "whole", 1, size)


def test_checkpoints_of_every_n_steps_stay_besides_the_last(ranks, tmp_path):
    parts = filled(1.0)
    kept = CheckpointConfig(every=1, keep=2, keep_every=4)
    with Checkpoints(tmp_path, ranks, kept) as checkpoints:
        assert checkpoints.newest_whole() is None
        for step in range(1, 12):
            checkpoints.save(*parts, step, STATE)
    assert [int(name.removeprefix("step-")) for name in names_in(tmp_path)] == [4, 8, 10, 11]


def test_one_of_another_model_is_refused_with_the_weight(three, tmp_path):
    path = tmp_path / NAMES[2]
    for width, bias, message in (
        (8, False, r"'weight': its shape is \(64, 64\), and in the model \(8, 8\):"),
        (64, True, r"'bias': its shape is absent, and in the model \(64,\): it is of another"),
    ):
        model, optimizer = filled(0.0, width, bias)
        for item in (None, optimizer):
            refuses(RunError, message, load_training, path, model, item)
    with pytest.raises(
        RunError, match=r"'weight': its shape is \(64, 64\), and in the model absent"
    ):
        load_training(path, nn.Identity(), None)


def truncated(path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def deleted(path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (truncated, "*.safetensors", r"has \d+ bytes, not \d+"),
        (flipped, "*.safetensors", "has changed since it was written"),
        (deleted, "*.safetensors", "is missing"),
        (flipped, "state.json", "cannot be read|has changed"),
        (deleted, "state.json", "not found"),
    ],
)
def test_a_damaged_one_is_put_aside_for_the_one_before_it(
    damage, kind, message, three, tmp_path, caplog
):
    (file,) = (tmp_path / NAMES[2]).glob(kind)
    damage(file)
    part = check_checkpoint(tmp_path / NAMES[2])
    assert (part.state, [*part.faults]) == ("damaged", [file.name])
    with caplog.at_level(logging.WARNING, "mixopt.pretraining"):
        path, state = three.newest_whole()
    assert (path.name, state.step) == (NAMES[1], 2)
    assert names_in(tmp_path) == [f"damaged-{NAMES[2]}", *NAMES[:2]]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert re.match(f"{re.escape(str(file))}: ({message})", warning)
    assert warning.endswith(f"; resuming from {NAMES[1]} instead")
    assert "\n" not in warning


def test_unknown_files_make_a_checkpoint_invalid(three, tmp_path, caplog):
    shutil.rmtree(tmp_path / NAMES[2])
    for name in ("step-00000004", "step-00000004.copy"):
        shutil.copytree(tmp_path / NAMES[0], tmp_path / name)
    (tmp_path / NAMES[1] / "more").touch()
    (tmp_path / f"damaged-{NAMES[1]}").mkdir()
    assert three.newest_whole()[1].step == 1
    assert (tmp_path / "step-00000004.copy").exists()  # a copy of somebody's is left alone
    assert "is the checkpoint of step 1, under another name; resuming from step-0" in caplog.text
    assert f"{NAMES[1]}/more: is not a file of this checkpoint; resuming from" in caplog.text
    assert names_in(tmp_path / f"damaged-{NAMES[1]}") == ["more", *names_in(tmp_path / NAMES[0])]


def test_with_no_whole_one_it_is_one_line_and_nothing_is_renamed(three, tmp_path):
    for path in tmp_path.glob("*/*.safetensors"):
        truncated(path)
    message = rf"{NAMES[2]}/.*: has \d+ bytes, not \d+; no checkpoint in .* is whole: restore the f"
    refuses(RunError, message, three.newest_whole)
    assert names_in(tmp_path) == NAMES


def test_a_full_disk_is_known_after_the_thread_ended_and_raised_once(ranks, tmp_path):
    parts = filled(1.0, width=1024)
    with Checkpoints(tmp_path, ranks, CheckpointConfig()) as checkpoints:
        checkpoints.save(*parts, 1, STATE)
        checkpoints.wait()
        with no_file_above(1 << 20):
            checkpoints.save(*parts, 2, STATE)
            refuses(
                RunError,
                r"step-00000002\.tmp: cannot be written: .*File too large",
                checkpoints.wait,
            )
        checkpoints.wait()
        assert checkpoints.newest_whole()[1].step == 1
        checkpoints.save(*parts, 3, STATE)
    assert names_in(tmp_path) == [NAMES[0], NAMES[2]]


def failing(where, rank, out):
    """Write a checkpoint in which one rank fails: at its shard, at rank 0's files, or before."""
    with joined("cpu") as ranks:
        if where == "shard" and rank == ranks.rank:
            _Writer.write_data = no_memory
        if where == "folder":
            checkpoints_module._sync = no_memory
        try:
            if where == "before":
                ranks.each(no_memory if rank == ranks.rank else list)
            with Checkpoints(out, ranks, CheckpointConfig()) as checkpoints:
                checkpoints.save(*filled(1.0), 1, STATE)
                checkpoints.wait()
        except (MixoptError, MemoryError) as error:
            return f"{type(error).__name__}: {error}"


def no_memory(*_):
    raise MemoryError("no memory for a buffer")


WHERE = "{}/.step-00000001.tmp: cannot be written"
MEMORY = "no memory for a buffer"


@pytest.mark.parametrize(
    ("where", "rank", "first", "second"),
    [
        ("shard", 1, f"{WHERE}: {MEMORY}", f"OtherRankError: {WHERE}: {MEMORY}"),
        ("folder", 0, f"{WHERE}: {MEMORY}", f"OtherRankError: {WHERE}: {MEMORY}"),
        ("before", 1, f"rank 1: {MEMORY}", f"MemoryError: {MEMORY}"),
    ],
)
def test_what_ends_one_rank_ends_all_with_a_line(where, rank, first, second, tmp_path):
    first_rank, second_rank = on_ranks(2, __file__, "failing", where, rank, tmp_path)
    assert first_rank == f"RunError: {first.format(tmp_path)}"
    assert second_rank == second.format(tmp_path)


def test_an_error_in_training_is_not_hidden_by_one_of_the_thread(ranks, tmp_path):
    def interrupted():
        with Checkpoints(tmp_path, ranks, CheckpointConfig()) as checkpoints:
            checkpoints.save(*filled(1.0, width=1024), 1, STATE)
            raise KeyboardInterrupt

    with no_file_above(1 << 20), pytest.raises(KeyboardInterrupt):
        interrupted()
