"""What a step is called by, and in what two configurations differ."""

import json

import pytest

from mixopt.run_directory import STEPS, SWEEP
from mixopt.run_directory.step_log import StepLog
from mixopt.run_directory.steps import step_differences, step_fingerprints, step_named, steps_from

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

    assert not log(changed).only_reads_otherwise  # no record is there
    (tmp_path / "config.yaml").write_text(json.dumps(record))
    assert [log(c).only_reads_otherwise for c in (record, changed, more)] == [False, True, False]
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
