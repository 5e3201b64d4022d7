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
from mixopt.sweeps import ATTEMPTS, Beat, Job, TrialFolder, read_entry
from mixopt.sweeps.groups import HANDLE, write_beat, write_group
from mixopt.system import host_name, only_one
from mixopt.trials import Training, read_design


@pytest.fixture
def run(copied):
    return copied


def interrupt(run):
    """Make the sweep look as if its owner had died in the middle."""
    steps = read_steps(run)
    write_steps(run, {**steps, "sweep": steps["sweep"].model_copy(update={"seconds": None})})


def sweep_of(path, **options):
    return status(load_run(path, **options))["steps"]["sweep"]


def lines_of(path, **options):
    return list(status_lines(status(load_run(path, **options))))


def note(path, trials, **changes):
    first = {"at": 1.0, "trials": trials, "finished": 0, "outcome": "lost", "node": "n7"}
    first |= {"kind": "NVIDIA L4", "gpus": 2.0, "seconds": 1800.0, "reason": "the node is gone"}
    with (path / "trials" / ATTEMPTS).open("a") as stream:
        stream.write(json.dumps(first | changes) + "\n")


def fail(path, names, status="diverged", reason="loss is nan at step {}"):
    folder = TrialFolder(path / "trials")
    for number, name in enumerate(names, start=40):
        trial, result = read_entry(path / "trials" / f"{name}.json")
        why = reason.format(number)
        failed = replace(result, status=status, losses=None, curve=(), reason=why)
        folder.forget(name)
        folder.write([trial], [failed])


def test_a_sweep_on_cores_tells_hours_of_cpus_and_who_trained(run):
    found = sweep_of(run)
    assert (found["lost"], found["retried"], found["gpu_hours"]) == (0, 0, 0)
    assert 0 < found["cpu_hours"] < 0.1
    (node,) = found["nodes"]
    assert (node["kind"], node["done"], node["running"]) == ("cpu", 12, 0)
    assert any(re.search(r"CPU hours: [\d.]+$", line) for line in lines_of(run))


@pytest.mark.parametrize(
    ("hours", "text"), [(4.2e-5, "0.000042"), (9.94, "9.9"), (1234.5, "1,234")]
)
def test_hours_are_never_a_power_of_ten(hours, text):
    assert hours_line({"cpu_hours": hours}) == f"CPU hours: {text}"


def test_what_was_lost_is_counted_with_its_node_and_its_gpu_hours(run):
    note(run, ["t0000", "t0001"])
    found = sweep_of(run)
    assert (found["lost"], found["retried"]) == (2, 2)
    assert found["gpu_hours"] == 1.0
    assert any(
        "n7 (NVIDIA L4, 0 workers): 0 running, 0 done, 2 lost, 1 GPU h" in one
        for one in lines_of(run)
    )
    sweep = next(line for line in lines_of(run) if line.startswith("sweep"))
    assert "2 lost, 2 retried" in sweep


def test_reasons_that_differ_in_numbers_are_one_and_the_most_frequent_comes_first(run):
    fail(run, ["t0000"], "failed", "no such layer")
    fail(run, ["t0001", "t0002", "t0003", "t0004"])
    reasons = sweep_of(run)["reasons"]
    assert [(entry["status"], len(entry["trials"])) for entry in reasons] == [
        ("diverged", 4),
        ("failed", 1),
    ]
    said = [line.strip() for line in lines_of(run)]
    first = "4 diverged: loss is nan at step 40 (t0001, t0002, t0003 and 1 more)"
    assert first in said
    assert "1 failed: no such layer (t0000)" in said


def test_five_reasons_are_shown_and_the_others_counted(run):
    for number, name in enumerate("abcdefg"):
        fail(run, [f"t000{number}"], "failed", f"reason {name}")
    said = [line.strip() for line in lines_of(run)]
    assert sum(line.startswith("1 failed: reason ") for line in said) == 5
    assert "and 2 more reasons; --json lists all" in said
    assert len(sweep_of(run)["reasons"]) == 7


LEFT = """
from one_by_one import OneByOne

class Left(OneByOne):
    outlives_owner = True

    def states(self, handles):
        return dict.fromkeys(handles, "running")

    def cancel(self, handles):
        pass
"""


@pytest.fixture
def left(experiment, tmp_path, monkeypatch):
    """A run whose sweep is begun and whose owner is gone; two tasks still run without it."""
    (tmp_path / "left_executor.py").write_text(LEFT)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = tmp_path / "left.yaml"
    sweep = "sweep: {workers: 2, executor: 'left_executor:Left'}"
    config.write_text(experiment.replace("sweep: {workers: 2}", sweep))
    run = pipeline.run(config, tmp_path / "run", until="sweep").path
    interrupt(run)
    place = {"node": "n3", "kind": "NVIDIA L4", "gpus": 1.0}
    for trial in read_design(run / "design.parquet")[:2]:
        folder = run / "trials" / "work" / f"{trial.name}-0123.0"
        job = Job("ngram", {}, run / "corpus", Training(20))
        folder.mkdir(parents=True)
        write_group(folder, job, [trial], 1.0)
        beat = Beat(trials=[trial.name], done=10, total=40, seconds=7200.0, **place)
        write_beat(folder, beat.model_copy(update={"doing": "training"}))
        (folder / HANDLE).write_text("job 12")
    return run


def test_a_cluster_that_goes_on_without_its_owner_is_asked_where_the_directory_is_trusted(left):
    assert "going_on" not in sweep_of(left)
    assert any("was not asked what still runs" in line for line in lines_of(left))
    found = sweep_of(left, trust=True)
    assert (found["state"], found["going_on"], found["running"]) == ("interrupted", 2, 2)
    assert found["gpu_hours"] == 4.0
    said = [line.strip() for line in lines_of(left, trust=True)]
    assert f"resume it with: mixopt run {left} --trust" in said
    assert "the owner is gone; 2 tasks are still running; the same command takes over" in said
    begun = "worker 1: training natural on n3, 25% of 40 tokens"
    assert any(line.startswith(begun) for line in said)
    assert "n3 (NVIDIA L4, 2 workers): 2 running, 0 done, 0 lost, 4 GPU hours" in said


def test_a_sweep_that_runs_tells_its_speed_and_the_time_left(run):
    """Two workers with 3 of 12 trials to go, 20,000 tokens each, of which 5,000 are done."""
    interrupt(run)
    for name in ("t0005", "t0006", "t0007"):
        (run / "trials" / f"{name}.json").unlink()
    (run / "trials" / ATTEMPTS).unlink()
    beats = {"trials": ["t0005"], "total": 20_000, "node": host_name(), "doing": "training"}
    for number, done in enumerate((1000, 4000)):
        folder = run / "trials" / "work" / f"t000{number}-0123.0"
        folder.mkdir(parents=True)
        write_beat(folder, Beat(**beats, done=done, seconds=10.0))
    with only_one(run):
        entry = sweep_of(run)
        (line,) = (one for one in lines_of(run) if one.startswith("sweep"))
        workers = [one.strip() for one in lines_of(run) if "worker" in one]
    assert (entry["state"], entry["trials"], entry["ended"], entry["running"]) == (
        "running", 12, 9, 2,
    )  # fmt: skip
    assert (entry["tokens_per_second"], entry["left"]) == (500.0, (3 * 20_000 - 5000) / 500)
    assert line == "sweep     running, 9 of 12 trials, 2 running, 500 tokens/s, 1m50s left"
    assert workers == [
        f"worker {k}: training t0005, {share} of 20k tokens, {speed} tokens/s"
        for k, share, speed in ((1, "5%", 100), (2, "20%", 400))
    ]


def test_a_folder_lists_its_runs_with_the_step_that_they_stand_at_or_what_is_wrong(run):
    folder = run.parent
    (folder / "tiny.yaml").unlink()
    for name in ("begun", "broken", "mine"):
        shutil.copytree(run, folder / name)
    load_run(folder / "begun").log.discard("validate")
    (folder / "broken" / "config.yaml").write_text("{}")
    (folder / "mine" / "steps.json").unlink()  # another tool's folder
    found = {one["run"]: (one["state"], one["answer"]) for one in status_of_folder(folder)}
    assert list(found) == ["begun", "broken", "run"]
    assert found["begun"] == ("validate: waiting", "")
    assert found["run"] == ("done", load_run(run).recommendation.headline)
    assert found["broken"][0] == "unreadable"
    assert "config.yaml: has changed" in found["broken"][1]


def test_a_damaged_step_is_said_with_the_command_that_finds_the_repair(run):
    (run / "report.html").write_text("")
    (line,) = (one.strip() for one in lines_of(run) if "verify" in one)
    said = "report.html: has 0 bytes.*; mixopt verify .* names the command that repairs it"
    assert re.fullmatch(f"{run}/{said}", line)
