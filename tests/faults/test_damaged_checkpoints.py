"""A file of a checkpoint that is not what was written: the run goes on from the one before it."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from pathlib import Path

import pytest
from pretrain_runs import (
    CONFIG,
    Job,
    assert_same_weights,
    checkpoints,
    finished,
    log_of,
    metrics_of,
    weights_of,
    write_config,
)

from mixopt import pretrain
from mixopt.errors import MixoptError, RunError
from mixopt.pretraining.directory import HEADER
from mixopt.system import sealed_text, write_sealed
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


def assert_equal_runs(one: Path, other: Path) -> None:
    assert_same_weights(weights_of(one), weights_of(other))
    assert log_of(one) == log_of(other)
    assert metrics_of(one) == metrics_of(other)


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


def test_a_flipped_bit_anywhere_in_a_shard_is_found(config, whole, tmp_path, caplog):
    out = copied(whole, tmp_path)
    (file,) = checkpoints(out)[-1].glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    pretrain(config, out, [ODM])
    assert "has changed since it was written (its sha256 differs)" in caplog.text
    assert_equal_runs(out, whole)


def test_a_file_that_a_checkpoint_does_not_have_is_refused(config, whole, tmp_path, caplog):
    out = copied(whole, tmp_path)
    (file,) = checkpoints(out)[-1].glob("*.safetensors")
    shutil.copyfile(file, file.with_name(".more.safetensors"))
    pretrain(config, out, [ODM])
    assert ".more.safetensors: is not a file of this checkpoint" in caplog.text
    assert_equal_runs(out, whole)


def test_what_was_damaged_is_kept_until_the_run_has_come_past_it(config, whole, tmp_path):
    out = copied(whole, tmp_path)
    deleted(checkpoints(out)[-1] / "state.json")
    pretrain(config, out, [ODM])
    assert [path.name for path in checkpoints(out)] == ["step-00000006", "step-00000009"]
    assert not list((out / "checkpoints").glob("damaged-*"))


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


@pytest.mark.nightly
def test_two_ranks_end_alike_where_none_is_whole(context, config, whole, tmp_path):
    out = copied(whole, tmp_path)
    for path in checkpoints(out):
        deleted(next(path.glob("*.safetensors")))
    job = Job(context, config, out, 2, [ODM])
    assert job.wait() == [2, 2]
    assert "is missing; no checkpoint in" in job.error


# --- What a person could have written -----------------------------------------------------------

ABSURD = [2**63, -1, "x", None, [], {}, [[[]]], 1.5]


def places(content, path=()):
    """Yield the path of each value of a state that is made of something."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield (*path, name)
            yield from places(value, (*path, name))


def state_of(whole: Path) -> dict:
    return json.loads((checkpoints(whole)[-1] / "state.json").read_text())


def replaced(content: dict, place: tuple, value) -> dict:
    """Return a state with one value in it replaced."""
    content = json.loads(json.dumps(content))
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return content


def said_by(config, out) -> str:
    """Return what going on says; nothing where it went on."""
    try:
        pretrain(config, out, [ODM])
    except MixoptError as error:
        return str(error)
    return ""


def test_a_state_with_an_absurd_value_under_a_true_seal_is_one_line(config, whole, tmp_path):
    """A seal finds damage and proves no origin: what is sealed is checked all the same."""
    state = json.loads((checkpoints(whole)[0] / "state.json").read_text())
    found = [p for p in places(state) if p[-1] != "sha256" and p[0] != "files"]
    assert len(found) > 60
    for k, place in enumerate(found[::2]):
        out = copied(whole, tmp_path / str(k))
        shutil.rmtree(checkpoints(out)[-1])
        value = ABSURD[k % len(ABSURD)]
        write_sealed(checkpoints(out)[0] / "state.json", replaced(state, place, value))
        assert "\n" not in said_by(config, out), (place, value)
        shutil.rmtree(out)


def forged(out: Path, header: bytes) -> None:
    """Leave one checkpoint, whose shard has another header, under a true seal and hash."""
    shutil.rmtree(checkpoints(out)[-1])
    (path,) = checkpoints(out)
    (shard,) = path.glob("*.safetensors")
    whole = shard.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    shard.write_bytes((header or whole[:8] + whole[8:end].replace(b"[", b"{", 1)) + whole[end:])
    state = json.loads((path / "state.json").read_text())
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    record = {"bytes": shard.stat().st_size, "sha256": digest}
    write_sealed(path / "state.json", {**state, "files": {**state["files"], shard.name: record}})


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,
        (1 << 40).to_bytes(8, "little"),
        (40_000).to_bytes(8, "little") + b"[" * 40_000,
        (2).to_bytes(8, "little") + b"{}",
        b"",
    ],
    ids=["endless", "long", "nested", "empty", "odd"],
)
def test_a_forged_header_of_a_shard_is_one_line(header, config, whole, tmp_path, capfd):
    out = copied(whole, tmp_path)
    forged(out, header)
    with pytest.raises(RunError, match=r"step-00000006\S*: cannot be read: ") as caught:
        pretrain(config, out, [ODM])
    assert "CheckpointException" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


# --- The rest of the directory ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("training: {steps: 9", r"config.yaml:\d: not valid YAML"),
        ("[]", "config.yaml: .*dict"),
        (
            "a: &a [*a]",
            r"config.yaml:\d: not valid YAML: '\*a' is used inside the section that it names",
        ),
        ("name: run", "was started with seed absent, and here it is 0"),
        ("", "config.yaml: .*dict"),
    ],
)
def test_a_damaged_record_of_the_configuration_is_one_line(
    content, message, config, whole, tmp_path
):
    out = copied(whole, tmp_path)
    (out / "config.yaml").write_text(sealed_text(content, HEADER))
    with pytest.raises(RunError, match=message) as caught:
        pretrain(config, out, [ODM])
    assert "\n" not in str(caught.value)


def test_a_record_of_the_configuration_that_was_edited_is_refused(whole, config, tmp_path):
    record = copied(whole, tmp_path) / "config.yaml"
    record.write_text(record.read_text() + "name: other\n")
    with pytest.raises(RunError, match=r"config\.yaml: has changed since it was written"):
        pretrain(config, record.parent, [ODM])
