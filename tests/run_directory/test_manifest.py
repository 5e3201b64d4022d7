"""What each step left is noted with its hash, and what has changed is told and made again."""

import json
import re
from pathlib import Path

import polars as pl
import pytest
from refusals import refuses

import mixopt
from mixopt.errors import RunError
from mixopt.run_directory import STEPS, load_run, verify_run
from mixopt.run_directory.step_log import StepLog, StepRecord, write_steps
from mixopt.system import file_hash, write_sealed

NAMES = [step.name for step in STEPS]


def flip(path: Path, bit: int = 4) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= bit
    path.write_bytes(content)


def states(run: Path) -> dict[str, str]:
    return {part.name: part.state for part in verify_run(load_run(run))}


def trial_times(run: Path) -> set[tuple[str, int]]:
    """When each trial was written."""
    return {(path.name, path.stat().st_mtime_ns) for path in (run / "trials").glob("t*.json")}


def test_every_file_that_a_step_left_is_noted_with_its_hash_and_whole(finished):
    steps = load_run(finished).log.records.values()
    recorded = {name: record for step in steps for name, record in step.files.items()}
    outputs = {name for step in STEPS for name in step.files if (finished / name).exists()}
    assert {name.split("/")[0] for name in recorded} == outputs
    for name, record in recorded.items():
        assert record.sha256 == file_hash(finished / name)
    assert states(finished) == dict.fromkeys(NAMES, "whole")


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("corpus/code/train/00000.bin", "prepare"),
        ("trials.parquet", "sweep"),
        ("fit/regressor/arrays.npz", "fit"),
        ("report.html", "report"),
    ],
)
def test_a_changed_file_is_found_and_the_step_that_makes_it_named(copied, name, step):
    flip(copied / name)
    damaged = {part.name: part for part in verify_run(load_run(copied)) if part.state != "whole"}
    assert list(damaged) == [step]
    assert "sha256 differs" in damaged[step].faults[name]
    assert f"--until {step}" in damaged[step].fix


def test_a_file_that_is_gone_or_new_is_named_and_a_reader_refuses_what_has_changed(copied):
    (copied / "fit" / "held_out.parquet").unlink()
    (copied / "trials" / "t9999.json").write_text("{}")
    faults = {part.name: part.faults for part in verify_run(load_run(copied))}
    assert faults["fit"] == {"fit/held_out.parquet": "is missing"}
    assert faults["sweep"] == {"trials/t9999.json": "was not written by this step"}
    flip(copied / "trials.parquet")
    with pytest.raises(RunError, match=r"trials\.parquet: has changed .*: mixopt run .* --until s"):
        _ = load_run(copied).trials


def test_what_has_changed_is_made_again_and_a_trial_that_is_gone_and_no_other(copied, finished):
    (copied / "trials.parquet").write_bytes(b"")
    (copied / "trials" / "t0003.json").unlink()
    before, lines = trial_times(copied), []
    mixopt.run(copied.parent / "tiny.yaml", copied, until="sweep", say=lines.append)
    said = re.compile("sweep: .*trials.parquet: has 0 bytes.*; running it again")
    assert any(map(said.fullmatch, lines))
    assert {name for name, _ in trial_times(copied) - before} == {"t0003.json"}
    tables = [pl.read_parquet(r / "trials.parquet").drop("seconds") for r in (copied, finished)]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("sha256", "0", "has changed since it was written"),
        ("seconds", "long", r"steps\.sweep\.seconds"),
        ("files", {"../outside": {"bytes": 1, "sha256": "0"}}, "'../outside' is outside"),
    ],
)
def test_a_manifest_that_cannot_be_is_one_line_though_its_seal_is_right(
    copied, field, value, fault
):
    content = json.loads((copied / "steps.json").read_text())
    if field == "sha256":
        (copied / "steps.json").write_text(json.dumps(content | {field: value}))
    else:
        content["steps"]["sweep"][field] = value
        write_sealed(copied / "steps.json", content)
    refuses(RunError, fault, load_run(copied).is_done, "sweep")


def test_the_manifest_is_read_again_when_another_process_changed_it(tmp_path):
    log = StepLog(tmp_path, {}, command=lambda step: step)
    assert log.records == {}
    write_steps(tmp_path, {"prepare": StepRecord(fingerprint="a", seconds=1.0)})
    assert list(log.records) == ["prepare"]
    write_steps(tmp_path, {"design": StepRecord(fingerprint="b", seconds=None)})
    assert list(log.records) == ["design"]
