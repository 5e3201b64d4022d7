"""What each step left is noted, and what has changed is told, by its hash and its configuration."""

import json
import re
from pathlib import Path

import polars as pl
import pytest
from refusals import refuses

import mixopt
from mixopt.errors import RunError
from mixopt.run_directory import STEPS, SWEEP, load_run, verify_run
from mixopt.run_directory.step_log import StepLog, StepRecord, write_steps
from mixopt.run_directory.steps import step_differences, step_fingerprints, step_named, steps_from
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


CONTENT = {
    "name": "tiny",
    "seed": 3,
    "corpus": {"domains": {"web": {"path": "web.jsonl"}}, "tokenizer": "bytes"},
    "evaluation": {},
    "design": {"trials": 8},
    "constraints": {"bounds": {"web": [0.1, 0.9]}},
    "proxy": {"name": "ngram", "tokens": 20000, "eval_every": 0},
    "fit": {"folds": 3},
    "objective": {"target": "web"},
    "propose": {"target_tokens": 1000, "bootstrap": 3},
    "validate": {"seeds": 3},
}
# As a run directory has them: with other ones, every run that was ever made would be made again.
FINGERPRINTS = {
    "prepare": "f0dfff7f31ee0175",
    "design": "3617411ea1a51366",
    "sweep": "99c22d13f53424f4",
    "fit": "a48f474f5e645026",
    "propose": "1e1052c6a476792d",
    "validate": "599de08b5f2807a8",
    "report": "39cfede949157714",
}


def test_fingerprints_stay_as_run_directories_have_them():
    assert step_fingerprints(CONTENT) == FINGERPRINTS
    assert list(step_fingerprints(CONTENT)) == [step.name for step in STEPS]


@pytest.mark.parametrize(
    ("field", "value", "first"),
    [
        ("constraints", {}, "design"),
        ("proxy", {"name": "ngram", "tokens": 10000}, "sweep"),
        ("objective", {"target": "help"}, "fit"),
        ("propose", {"target_tokens": 2000, "bootstrap": 3}, "design"),
    ],
)
def test_a_field_changes_its_step_and_those_after_it(field, value, first):
    changed = step_fingerprints({**CONTENT, field: value})
    differing = [name for name in FINGERPRINTS if changed[name] != FINGERPRINTS[name]]
    assert differing == [step.name for step in steps_from(step_named(first))]


def test_differences_of_a_step_are_those_of_what_it_and_earlier_steps_depend_on():
    now = {**CONTENT, "validate": {"seeds": 5}, "design": {"trials": 9, "folds": 2}}
    found = list(step_differences(SWEEP, CONTENT, now))
    assert found == [("design.trials", 8, 9), ("design.folds", "absent", 2)]


def test_another_way_to_read_results_deletes_no_results_of_an_own_trainer(tmp_path):
    proxy = {"name": "command", "run": "train", "result": "a.json"}
    record = {**CONTENT, "proxy": proxy}
    changed = {**record, "proxy": {**proxy, "result": "b.json"}}
    more = {**changed, "proxy": {**changed["proxy"], "run": "other"}}

    def log(content):
        return StepLog(tmp_path, content, command=lambda *_, until="": until)

    assert not log(changed).differs_only_in_reading  # no record is there
    (tmp_path / "config.yaml").write_text(json.dumps(record))
    assert [log(c).differs_only_in_reading for c in (record, changed, more)] == [False, True, False]
    for name in ("t0.json", "files/t0/a.json", "work/t0/b"):
        (tmp_path / "trials" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "trials" / name).touch()
    log(changed).discard("sweep", files=False)
    left = [p.relative_to(tmp_path / "trials") for p in (tmp_path / "trials").rglob("*")]
    assert sorted(map(str, left)) == ["files", "files/t0", "files/t0/a.json"]
    log(changed).discard("sweep")
    assert not (tmp_path / "trials").exists()


def test_trials_without_a_word_on_evaluations_are_those_that_evaluate_at_the_end_alone():
    def with_every(tokens):
        return {**CONTENT, "proxy": {**CONTENT["proxy"], "eval_every": tokens}}

    proxy = {key: value for key, value in CONTENT["proxy"].items() if key != "eval_every"}
    without = {**CONTENT, "proxy": proxy}
    assert step_fingerprints(without) == step_fingerprints(with_every(0))
    assert not list(step_differences(SWEEP, with_every(0), without))
    assert step_fingerprints(with_every(None)) == step_fingerprints(with_every(0))
    assert step_fingerprints(with_every(None)) != step_fingerprints(with_every(500))
    assert not list(step_differences(SWEEP, with_every(0), with_every(None)))
