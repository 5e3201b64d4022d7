"""What a training process says of its run: lines in the journal, and one warning at most."""

import json
from pathlib import Path

from mixopt.config import TrackingConfig
from mixopt.tracking import Tracker
from mixopt.tracking.journal import JOURNAL


def tracker(path, warnings=None, **config):
    warn = [].append if warnings is None else warnings.append
    return Tracker(TrackingConfig(**config), "toy", path, warn, sends=False)


def said(path):
    """Return the lines of the journal without their times."""
    lines = [json.loads(line) for line in (path / JOURNAL).read_text().splitlines()]
    assert all(line.pop("time") > 1e9 for line in lines)
    return lines


def test_a_step_is_said_with_its_settings_as_text(tmp_path):
    with tracker(tmp_path, uri="http://u") as says:
        says.start("sweep", {"lr": 1e-3, "name": "x", "seeds": [1, 2]}, {"a": "b"})
        says.tags("sweep", {"c": "d"})
        says.end("sweep")
    opened, started, tagged, ended = said(tmp_path)
    assert opened == {"op": "open", "uri": "http://u", "experiment": "toy"}
    environment = started.pop("environment")
    assert {"mixopt", "python", "machine"} <= environment.keys()
    assert started == {
        "op": "start",
        "step": "sweep",
        "name": "sweep",
        "folder": None,
        "datasets": [],
        "params": {"lr": "0.001", "name": "x", "seeds": "[1, 2]"},
        "tags": {"a": "b"},
    }
    assert tagged == {"op": "tags", "step": "sweep", "tags": {"c": "d"}}
    assert ended == {"op": "end", "step": "sweep"}


def test_the_experiment_may_have_a_name_of_its_own_and_steps_too(tmp_path):
    with tracker(tmp_path, experiment="mine") as says:
        says.start("sweep", {}, name="run/sweep", folder="trials")
        says.start("validate", {})
    opened, first, second = said(tmp_path)
    assert (opened["experiment"], opened["uri"]) == ("mine", None)
    assert (first["name"], first["folder"], second["name"]) == ("run/sweep", "trials", "validate")


def test_files_are_named_from_the_run_directory_where_they_are_in_it(tmp_path):
    run = tmp_path / "run"
    with tracker(run) as says:
        says.start("sweep", {})
        says.files("sweep", [run / "figures/a.svg", tmp_path / "b.svg"], "f", "t0")
        says.follow("sweep", run / "m.jsonl")
    kept, followed = said(run)[-2:]
    outside = (tmp_path / "b.svg").resolve().as_posix()
    assert kept == {
        "op": "files",
        "step": "sweep",
        "folder": "f",
        "trial": "t0",
        "files": ["figures/a.svg", outside],
    }
    assert followed == {"op": "follow", "step": "sweep", "file": "m.jsonl", "trial": None}


def test_without_sending_no_process_is_started(tmp_path):
    with tracker(tmp_path) as says:
        says.start("sweep", {})
        assert says._process is None
    assert [file.name for file in tmp_path.iterdir()] == [JOURNAL]


def test_a_journal_that_cannot_be_written_is_said_once_and_is_no_error(tmp_path):
    warnings: list[str] = []
    (tmp_path / JOURNAL).mkdir()
    with tracker(tmp_path, warnings) as says:
        says.start("sweep", {})
        says.end("sweep")
    assert len(warnings) == 1
    assert warnings[0].startswith(f"tracking: {tmp_path / JOURNAL} cannot be written: ")
    assert warnings[0].endswith(f"or by: mixopt sync {tmp_path}")


def test_before_a_step_begins_nothing_is_said(tmp_path):
    with tracker(tmp_path) as says:
        says.end("sweep")
        says.follow("sweep", Path("m.jsonl"))
    assert list(tmp_path.iterdir()) == []
