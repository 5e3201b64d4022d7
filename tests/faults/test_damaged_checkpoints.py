"""A file of a checkpoint that is not what was written: the run goes on from the one before it."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import pytest
from pretrain_runs import (
    CONFIG,
    assert_equal_runs,
    assert_same_weights,
    checkpoints,
    finished,
    metrics_of,
    weights_of,
    write_config,
)

from mixopt import pretrain
from mixopt.errors import RunError
from mixopt.testing import tiny_corpus

pytestmark = pytest.mark.usefixtures("one_thread")
ODM = "estimator={name: odm, observe_every: 2, options: {warmup_steps: 2}}"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def deleted(path: Path) -> None:
    path.unlink()


DAMAGE = {
    truncated: r"has \d+ bytes, not \d+|cannot be read",
    flipped: "has changed since it was written|cannot be read|format",
    emptied: r"has 0 bytes, not \d+|cannot be read",
    deleted: "is missing|not found",
}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    corpus = tiny_corpus(tmp_path_factory.mktemp("corpus"))
    training = {**CONFIG["training"], "steps": 9}
    return write_config(
        tmp_path_factory.mktemp("config"),
        corpus=str(corpus.path),
        training=training,
        checkpoint={"every": 3},
    )


@pytest.fixture(scope="module")
def whole(context, config, tmp_path_factory) -> Path:
    """An undisturbed run, with two checkpoints: after 6 steps and after all 9."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finished(context, config, out, overrides=[ODM])
    assert [path.name for path in checkpoints(out)] == ["step-00000006", "step-00000009"]
    return out


def copied(whole: Path, folder: Path) -> Path:
    shutil.copytree(whole, folder / "run")
    return folder / "run"


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["state.json", "*.safetensors"])
def test_the_run_goes_on_from_the_checkpoint_before_to_equal_weights(
    damage, kind, config, whole, tmp_path, caplog
):
    out = copied(whole, tmp_path)
    (file,) = checkpoints(out)[-1].glob(kind)
    damage(file)
    with caplog.at_level(logging.WARNING, "mixopt.pretraining"):
        result = pretrain(config, out, [ODM])
    assert result.is_finished
    assert_equal_runs(out, whole)
    (warning,) = [one.getMessage() for one in caplog.records]
    assert str(file) in warning
    assert "; resuming from step-00000006 instead" in warning
    assert "\n" not in warning
    assert re.search(DAMAGE[damage], warning)


def test_with_no_whole_checkpoint_it_is_one_line_and_nothing_is_renamed(config, whole, tmp_path):
    out = copied(whole, tmp_path)
    for path in checkpoints(out):
        truncated(next(path.glob("*.safetensors")))
    message = (
        r"step-00000009/.*: has \d+ bytes, not \d+; no checkpoint in .* is whole: restore the file"
    )
    with pytest.raises(RunError, match=message) as caught:
        pretrain(config, out, [ODM])
    assert "\n" not in str(caught.value)
    assert [path.name for path in checkpoints(out)] == ["step-00000006", "step-00000009"]


def test_a_checkpoint_under_the_name_of_another_is_refused(config, whole, tmp_path, caplog):
    out = copied(whole, tmp_path)
    shutil.rmtree(checkpoints(out)[-1])
    shutil.copytree(checkpoints(out)[0], out / "checkpoints" / "step-00000008")
    pretrain(config, out, [ODM])
    assert "is the checkpoint of step 6, under another name" in caplog.text
    assert_equal_runs(out, whole)


@pytest.mark.nightly
def test_two_ranks_go_on_from_the_same_checkpoint(context, config, tmp_path):
    overrides = [ODM, "parallel=fsdp"]
    whole = finished(context, config, tmp_path / "whole", 2, overrides)
    out = copied(whole.out, tmp_path)
    shards = sorted(checkpoints(out)[-1].glob("*.safetensors"))
    assert len(shards) == 2
    flipped(shards[1])
    finished(context, config, out, 2, overrides)
    assert_same_weights(weights_of(out), weights_of(whole.out))
    assert metrics_of(out) == metrics_of(whole.out)


def test_a_record_of_the_configuration_that_was_edited_is_refused(whole, config, tmp_path):
    record = copied(whole, tmp_path) / "config.yaml"
    record.write_text(record.read_text() + "name: other\n")
    with pytest.raises(RunError, match=r"config\.yaml: has changed since it was written"):
        pretrain(config, record.parent, [ODM])
