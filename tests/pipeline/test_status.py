"""What `mixopt status` tells of a sweep: losses, reasons, hours and nodes, from its files."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from mixopt import pipeline
from mixopt.pipeline import status, status_lines, status_of_folder
from mixopt.pipeline.run_status import hours_line
from mixopt.run_directory import load_run
from mixopt.run_directory.step_log import read_steps, write_steps
from mixopt.sweeps import ATTEMPTS, Beat, Job, Training, TrialFolder, read_entry
from mixopt.sweeps.groups import HANDLE, write_beat, write_group
from mixopt.system import host_name, only_one
from mixopt.trials import read_design


def interrupt(run):
    """Make the sweep look as if its owner had died in the middle."""
    steps = read_steps(run)
    write_steps(run, {**steps, "sweep": steps["sweep"].model_copy(update={"seconds": None})})


def sweep_of(path, **options):
    return status(load_run(path, **options))["steps"]["sweep"]


def lines_of(path, **options):
    return [line.strip() for line in status_lines(status(load_run(path, **options)))]


def fail(path, names, status="diverged", reason="loss is nan at step {}"):
    folder = TrialFolder(path / "trials")
    for number, name in enumerate(names, start=40):
        trial, result = read_entry(path / "trials" / f"{name}.json")
        why = reason.format(number)
        failed = replace(result, status=status, losses=None, curve=(), reason=why)
        folder.forget(name)
        folder.write([trial], [failed])


def test_a_sweep_tells_hours_who_trained_and_what_was_lost_with_its_node(copied):
    found = sweep_of(copied)
    assert (found["lost"], found["retried"], found["gpu_hours"]) == (0, 0, 0)
    assert 0 < found["cpu_hours"] < 0.1
    (node,) = found["nodes"]
    assert (node["kind"], node["done"], node["running"]) == ("cpu", 12, 0)
    assert any(re.search(r"CPU hours: [\d.]+$", line) for line in lines_of(copied))
    lost = {"at": 1.0, "trials": ["t0000", "t0001"], "finished": 0, "outcome": "lost"}
    lost |= {"kind": "NVIDIA L4", "gpus": 2.0, "seconds": 1800.0, "reason": "", "node": "n7"}
    with (copied / "trials" / ATTEMPTS).open("a") as stream:
        stream.write(json.dumps(lost) + "\n")
    found, lines = sweep_of(copied), lines_of(copied)
    assert (found["lost"], found["retried"], found["gpu_hours"]) == (2, 2, 1.0)
    assert any("n7 (NVIDIA L4, 0 workers): 0 running, 0 done, 2 lost, 1 GPU h" in x for x in lines)
    (sweep,) = (line for line in lines if line.startswith("sweep"))
    assert "2 lost, 2 retried" in sweep


def test_hours_are_never_a_power_of_ten():
    said = [hours_line({"cpu_hours": hours}) for hours in (4.2e-5, 9.94, 1234.5)]
    assert said == [f"CPU hours: {text}" for text in ("0.000042", "9.9", "1,234")]


def test_five_reasons_are_shown_the_most_frequent_first_and_those_that_differ_in_numbers_are_one(
    copied,
):
    names = sorted(trial.name for trial in read_design(copied / "design.parquet"))
    fail(copied, names[:4])
    for name, reason in zip(names[4:10], "abcdef", strict=True):
        fail(copied, [name], "failed", f"reason {reason}")
    reasons, said = sweep_of(copied)["reasons"], lines_of(copied)
    counts = [(entry["status"], len(entry["trials"])) for entry in reasons]
    assert counts == [("diverged", 4), *[("failed", 1)] * 6]
    three = ", ".join(names[:3])
    assert f"4 diverged: loss is nan at step 40 ({three} and 1 more)" in said
    assert f"1 failed: reason a ({names[4]})" in said
    assert sum(line.startswith("1 failed: reason ") for line in said) == 4
    assert "and 2 more reasons; --json lists all" in said


@pytest.fixture
def left(experiment, tmp_path):
    """A run whose sweep is begun and whose owner is gone; two tasks still run without it."""
    config = tmp_path / "left.yaml"
    sweep = "sweep: {workers: 2, executor: 'one_by_one:Outliving'}"
    config.write_text(experiment.replace("sweep: {workers: 2}", sweep))
    run = pipeline.run(config, tmp_path / "run", until="sweep").path
    interrupt(run)
    beat = {"done": 10, "total": 40, "seconds": 7200.0, "node": "n3", "kind": "NVIDIA L4"}
    for trial in read_design(run / "design.parquet")[:2]:
        folder = run / "trials" / "work" / f"{trial.name}-0123.0"
        write_group(folder, Job("ngram", {}, run / "corpus", Training(20)), [trial])
        write_beat(folder, Beat(trials=[trial.name], gpus=1.0, doing="training", **beat))
        (folder / HANDLE).write_text("job 12")
    return run


def test_a_cluster_that_goes_on_without_its_owner_is_asked_where_the_directory_is_trusted(left):
    assert "going_on" not in sweep_of(left)
    assert any("was not asked what still runs" in line for line in lines_of(left))
    found, said = sweep_of(left, trust=True), lines_of(left, trust=True)
    assert (found["state"], found["going_on"], found["running"]) == ("interrupted", 2, 2)
    assert found["gpu_hours"] == 4.0
    assert f"resume it with: mixopt run {left} --trust" in said
    assert "the owner is gone; 2 tasks are still running; the same command takes over" in said
    begun = "worker 1: training natural on n3, 25% of 40 tokens"
    assert any(line.startswith(begun) for line in said)
    assert "n3 (NVIDIA L4, 2 workers): 2 running, 0 done, 0 lost, 4 GPU hours" in said


def test_a_sweep_that_runs_tells_its_speed_and_the_time_left(copied):
    """Two workers with 3 of 12 trials to go, 20,000 tokens each, of which 5,000 are done."""
    interrupt(copied)
    for name in ("t0005", "t0006", "t0007"):
        (copied / "trials" / f"{name}.json").unlink()
    (copied / "trials" / ATTEMPTS).unlink()
    beats = {"trials": ["t0005"], "total": 20_000, "node": host_name(), "doing": "training"}
    for number, done in enumerate((1000, 4000)):
        folder = copied / "trials" / "work" / f"t000{number}-0123.0"
        folder.mkdir(parents=True)
        write_beat(folder, Beat(**beats, done=done, seconds=10.0))
    with only_one(copied):
        entry = sweep_of(copied)
        (line,) = (item for item in lines_of(copied) if item.startswith("sweep"))
        workers = [item for item in lines_of(copied) if "worker" in item]
    left = (3 * 20_000 - 5000) / 500
    known = {"state": "running", "trials": 12, "ended": 9, "running": 2, "left": left}
    assert {name: entry[name] for name in known} == known
    assert line == "sweep     running, 9 of 12 trials, 2 running, 500 tokens/s, 1m50s left"
    assert workers == [
        "worker 1: training t0005, 5% of 20k tokens, 100 tokens/s",
        "worker 2: training t0005, 20% of 20k tokens, 400 tokens/s",
    ]


def test_a_folder_lists_its_runs_with_the_step_that_they_stand_at_or_what_is_wrong(copied):
    folder = copied.parent
    (folder / "tiny.yaml").unlink()
    for name in ("begun", "broken", "mine"):
        shutil.copytree(copied, folder / name)
    load_run(folder / "begun").log.discard("validate")
    (folder / "broken" / "config.yaml").write_text("{}")
    (folder / "mine" / "steps.json").unlink()  # another tool's folder
    found = {item["run"]: (item["state"], item["answer"]) for item in status_of_folder(folder)}
    assert list(found) == ["begun", "broken", "run"]
    assert found["begun"] == ("validate: waiting", "")
    assert found["run"] == ("done", load_run(copied).recommendation.headline)
    assert found["broken"][0] == "unreadable"
    assert "config.yaml: has changed" in found["broken"][1]


def test_a_damaged_step_is_said_with_the_command_that_finds_the_repair(copied):
    (copied / "report.html").write_text("")
    (line,) = (item for item in lines_of(copied) if "verify" in item)
    said = "report.html: has 0 bytes.*; mixopt verify .* names the command that repairs it"
    assert re.fullmatch(f"{copied}/{said}", line)


def test_a_trial_that_may_still_continue_has_not_ended(copied):
    fail(copied, ["t0000", "t0001"], status="stopped")
    interrupt(copied)
    found = sweep_of(copied)
    assert (found["trials"], found["ended"], found["stopped"]) == (12, 10, 2)
