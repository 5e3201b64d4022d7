"""A run on real text: left as promised, run again, changed, interrupted, damaged."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import mixopt as command
from fault_runs import STEPS, results

import mixopt
from mixopt.system import only_one, read_json, write_sealed


@pytest.fixture
def config(copied) -> Path:
    return copied.parent / "tiny.yaml"


def trial_texts(run):
    """The files of its trials, which hold how long they took: trained again, they would differ."""
    files = [path for path in (run / "trials").glob("[!.]*.json") if path.name != "groups.json"]
    return {path: path.read_text() for path in files}


def test_a_second_run_does_no_work_and_prints_the_answer(finished):
    """Which leans to what the target is like: docstrings, as prose is and code is not."""
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    repeated = command("run", finished.parent / "tiny.yaml", "--out", finished)
    assert repeated.out.startswith("Recommendation: ")
    assert ", bits per byte (above 0 is better)" in repeated.out
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert list(read_json(finished / "steps.json")["steps"]) == list(STEPS)
    run = mixopt.load_run(finished)
    assert run.proposal.mixture["prose"] > run.natural["prose"]


def test_a_second_run_loads_neither_torch_nor_mlflow_nor_a_regressor(finished):
    code = (
        "import sys, mixopt; from mixopt.reporting.terminal import run_summary, summary_text;"
        f"summary_text(mixopt.run({str(finished.parent / 'tiny.yaml')!r}, {str(finished)!r}));"
        "print([m for m in ('torch', 'mlflow', 'lightgbm', 'datasets') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_another_configuration_is_refused_and_named_and_a_redo_of_it_deletes_nothing(
    copied, config
):
    other = ("run", config, "--out", copied, "--set", "design.trials=9")
    for args in (other, (*other, "--from", "validate")):
        ended = command(*args)
        assert (ended.code, ended.error.count("\n")) == (2, 1)
        assert "'design' was made from another configuration" in ended.error
        assert "design.trials is 8 there and 9 here" in ended.error
    assert (copied / "validation.parquet").exists()


def test_where_the_manifest_is_lost_trials_are_kept_and_those_of_others_refused(copied, config):
    kept, before = trial_texts(copied), results(copied)
    (copied / "steps.json").unlink()
    ended = command("run", config, "--out", copied, "--set", "proxy.tokens=10000")
    assert ended.code == 2
    assert re.search(r"trials/\S+\.json: was trained by another configuration", ended.error)
    assert "trials/t0000.json" in command("verify", copied, "--json").out
    (copied / "steps.json").unlink()
    assert command("run", config, "--out", copied).code == 0
    assert trial_texts(copied) == kept
    assert results(copied) == before


def test_an_interrupted_sweep_does_not_resume_with_another_configuration(copied, config):
    log = mixopt.load_run(copied).log
    log.discard("sweep", keep=["trials"])
    log.begin("sweep")
    (copied / "trials" / "t0003.json").unlink()
    kept = trial_texts(copied)
    status = json.loads(command("status", copied, "--json").out)
    assert status["steps"]["sweep"]["state"] == "interrupted"
    ended = command("run", config, "--out", copied, "--set", "proxy.tokens=10000")
    assert ended.code == 2
    assert "proxy.tokens is 20000 there and 10000 here" in ended.error
    assert trial_texts(copied) == kept


def test_a_first_mistake_can_be_fixed_in_the_same_directory(config_path, tmp_path):
    args = ("run", config_path, "--out", tmp_path / "run", "--until", "prepare")
    skip = ("--set", "corpus.on_bad_document=skip")
    ended = command(*args, *skip, "--set", "corpus.domains.code.column=txt")
    assert (ended.code, "no column 'txt'" in ended.error) == (2, True)
    ended = command(*args, *skip)
    assert ended.code == 0
    suggested = f"mixopt run {config_path} --out {tmp_path / 'run'} --until design"
    assert f"next: {suggested}" in ended.out


def test_another_objective_keeps_the_trials(copied, config):
    trials = (copied / "trials.parquet").read_bytes()
    changed = ["--set", "objective={target: code}", "--from", "fit"]
    ended = command("run", config, "--out", copied, *changed)
    assert ended.code == 0, ended.error
    assert (copied / "trials.parquet").read_bytes() == trials
    assert mixopt.load_run(copied).proposal.mixture["code"] > 0.5


def test_two_processes_do_not_work_in_one_directory(copied, config):
    with only_one(copied):
        words = [sys.executable, "-m", "mixopt", "run", config, "--out", copied]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "another mixopt process is running here" in ended.stderr
    assert command("run", config, "--out", copied).code == 0


def test_an_altered_shard_is_found_before_it_is_trained_on_and_made_again_by_prepare(
    copied, config
):
    shard = copied / "corpus" / "code" / "train" / "00000.bin"
    before = shard.read_bytes()
    shard.write_bytes(before[:100] + bytes([before[100] ^ 1]) + before[101:])
    ended = command("run", config, "--out", copied, "--from", "sweep")
    assert ended.code == 2
    assert "00000.bin" in ended.error
    assert "--until prepare" in ended.error
    ended = command("run", config, "--out", copied, "--until", "prepare")
    assert ended.code == 0, ended.error
    assert shard.read_bytes() == before
    assert "all steps are done" in ended.out


def test_failed_trials_are_trained_again_when_asked(copied, config):
    path = copied / "trials" / "t0003.json"
    content = read_json(path)
    content["result"] |= {"status": "failed", "reason": "out of memory", "losses": None}
    write_sealed(path, content)
    ended = command("run", config, "--out", copied, "--retry-failed")
    assert ended.code == 0, ended.error
    assert read_json(path)["result"]["status"] == "finished"
