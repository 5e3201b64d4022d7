"""Later rounds are chosen by what the earlier ones found, once, and whatever happens in between."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import yaml
from refusals import refuses

import mixopt
from mixopt.config import DesignConfig
from mixopt.errors import RunError
from mixopt.pipeline import status as run_status
from mixopt.run_directory import load_run
from mixopt.run_directory.step_log import StepRecord, read_steps, write_steps
from mixopt.system import read_json


@pytest.fixture(scope="module")
def config(experiment, tmp_path_factory):
    """The experiment in rounds, of so few tokens that a trial is done at once."""
    content = yaml.safe_load(experiment)
    content["design"] = {"rounds": [6, 3, 3], "replicates": 1, "max_usage": None}
    content["proxy"]["tokens"], content["sweep"]["workers"] = 5000, 1
    path = tmp_path_factory.mktemp("rounds") / "rounds.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def designed(config):
    """A run up to its design."""
    mixopt.run(config, config.parent / "designed", until="design")
    return config.parent / "designed"


@pytest.fixture(scope="module")
def undisturbed(config, designed):
    """A run up to its sweep, and what was said."""
    said: list[str] = []
    shutil.copytree(designed, config.parent / "undisturbed")
    run = mixopt.run(config, config.parent / "undisturbed", say=said.append, until="sweep")
    return run, [line for line in said if not line.startswith("check:")]


@pytest.fixture
def at_design(designed, tmp_path):
    shutil.copytree(designed, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def at_sweep(undisturbed, tmp_path):
    shutil.copytree(undisturbed[0].path, tmp_path / "run")
    return tmp_path / "run"


def assert_same(*runs: Path) -> None:
    for name in ("design.parquet", "trials.parquet"):
        tables = [pl.read_parquet(run / name).drop("seconds", strict=False) for run in runs]
        assert tables[0].equals(tables[1])
    records = [read_json(run / "trials/rounds.json") for run in runs]
    assert records[0] == records[1]


def trial_files(path: Path) -> dict[Path, str]:
    found = (path / "trials").glob("[!.]*.json")
    return {file: file.read_text() for file in found if file.stem not in ("groups", "rounds")}


def test_the_trials_of_all_rounds_are_in_both_tables_and_no_mixture_is_chosen_twice(undisturbed):
    run, said = undisturbed
    table = run.trials.table
    assert table["trial"].to_list()[3:] == [f"t{n:04d}" for n in range(12)]
    assert table["round"].to_list() == [0] * 9 + [1] * 3 + [2] * 3
    assert set(table["role"].to_list()[3:9]) <= {"axial", "sampled"}
    assert table["role"].to_list()[9:] == ["chosen"] * 6
    assert table["status"].unique().to_list() == ["finished"]
    design = pl.read_parquet(run.path / "design.parquet")
    assert design["mixture"].to_list() == table["mixture"].to_list()
    tried = table.filter(pl.col("role") != "replicate")
    assert tried["mixture"].n_unique() == len(tried)
    record = read_json(run.path / "trials/rounds.json")
    assert record["rounds"] == [None, None]
    gain = "expected gain over the current proposal"
    assert f"sweep: round 2 of 3: 3 mixtures chosen by linear, {gain}" in said[0]


@pytest.mark.nightly
def test_a_run_that_is_killed_in_a_later_round_goes_on_to_the_same_tables(
    undisturbed, config, at_design
):
    arguments = ["run", str(config), "--out", str(at_design), "--until", "sweep"]
    command = [sys.executable, "-m", "mixopt", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while len(trial_files(at_design)) < 10:
        assert process.poll() is None, "the sweep ended before it could be killed"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = trial_files(at_design)
    assert run_status(load_run(at_design))["steps"]["sweep"]["trials"] == 15
    mixopt.run(config, at_design, until="sweep")
    # The file of a trial holds how long it took: trained again, it would differ.
    assert {path: path.read_text() for path in kept} == kept
    assert_same(at_design, undisturbed[0].path)


def rewind(path: Path, rounds: int) -> None:
    """Undo the last three trials of a finished sweep, with so many rounds on record."""
    trials, last = path / "trials", ["t0009", "t0010", "t0011"]
    record, groups = (read_json(trials / name) for name in ("rounds.json", "groups.json"))
    record["rounds"] = record["rounds"][:rounds]
    (trials / "rounds.json").write_text(json.dumps(record))
    (trials / "groups.json").write_text(json.dumps([g for g in groups if g[0] not in last]))
    for file in (*(trials / f"{name}.json" for name in last), path / "trials.parquet"):
        file.unlink()
    steps = read_steps(path)
    begun = StepRecord(fingerprint=steps["sweep"].fingerprint, seconds=None)
    write_steps(path, {**steps, "sweep": begun})


def test_a_damaged_record_of_rounds_is_one_line(at_sweep):
    file = at_sweep / "trials/rounds.json"
    file.write_text(json.dumps({**read_json(file), "rounds": [3]}))
    line = refuses(RunError, "delete it and groups.json beside it", run_status, load_run(at_sweep))
    assert line.startswith(f"{file}: rounds.0: ")


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_kill_before_or_after_a_round_is_noted_changes_nothing(
    undisturbed, config, at_sweep, rounds
):
    """The design has the last round already; its trials have not begun to train."""
    rewind(at_sweep, rounds)
    mixopt.run(config, at_sweep, until="sweep")
    assert_same(at_sweep, undisturbed[0].path)


def test_a_sweep_that_is_done_again_begins_with_the_first_round(undisturbed, at_sweep):
    run = load_run(at_sweep)
    run.log.discard("sweep")
    assert len(pl.read_parquet(at_sweep / "design.parquet")) == 15
    mixopt.run(run.config, at_sweep, until="sweep")
    assert_same(at_sweep, undisturbed[0].path)


FAILING = """
from mixopt_proxies.ngram import NgramProxy

class Fails(NgramProxy):
    def train(self, trials, *rest):
        if trials[0].name in ("t0002", "t0007"):
            raise ValueError("no luck")
        return super().train(trials, *rest)

class MostFail(NgramProxy):
    def train(self, trials, *rest):
        if trials[0].name != "t0004":
            kind = trials[0].name[::-1].translate(str.maketrans("0123456789", "abcdefghij"))
            raise type(kind, (ValueError,), {})("no disk")
        return super().train(trials, *rest)
"""


@pytest.fixture
def swept(config, at_design, tmp_path, monkeypatch):
    """Return a function that sweeps with one of the failing proxies."""
    (tmp_path / "failing_proxy.py").write_text(FAILING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda name: mixopt.run(
        config, at_design, overrides=[f"proxy.name=failing_proxy:{name}"], until="sweep"
    )


def test_a_trial_that_failed_does_not_stop_the_rounds(swept):
    run = swept("Fails")
    failed = run.trials.table.filter(pl.col("status") == "failed")
    assert failed["trial"].to_list() == ["t0002", "t0007"]
    assert len(run.trials) == 15


def test_a_round_that_too_few_finished_trials_would_choose_is_one_line(swept, at_design):
    with pytest.raises(RunError) as caught:
        swept("MostFail")
    text = str(caught.value)
    assert text.startswith(f"{at_design}: round 2 of 3 cannot be chosen: trials of 1 mix")
    assert "a fit needs 3 (trial natural failed: larutan: no disk)" in text
    assert "--retry-failed" in text
    assert text.endswith("or set design.rounds: off")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("trials", "rounds"),
    [(64, (32, 16, 16)), (27, (15, 6, 6)), (24, (12, 6, 6)), (23, (23,)), (1, (1,))],
)
def test_a_half_and_two_quarters_are_the_rounds_of_enough_trials(trials, rounds):
    assert DesignConfig(trials=trials).planned_rounds == rounds
    given = DesignConfig(rounds=list(rounds))
    assert (given.trials, given.first_round) == (trials, rounds[0])
