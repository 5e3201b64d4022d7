"""`mixopt list` and `mixopt compare`: several runs at once."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from command_line import mixopt

from mixopt import load_run


@pytest.fixture
def folder(finished_run, tmp_path, monkeypatch):
    """A folder with a run, an older one further below, a broken one and other files."""
    monkeypatch.chdir(tmp_path)
    done = shutil.copytree(finished_run[1], tmp_path / "runs" / "done")
    older = shutil.copytree(done, tmp_path / "runs" / "older" / "mine")
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text("name: [unclosed\n")
    (tmp_path / "runs" / "notes").mkdir()
    os.utime(broken / "config.yaml", (1, 1))
    for name in ("config.yaml", "steps.json"):
        os.utime(older / name, (1000, 1000))
    return tmp_path / "runs"


def test_runs_are_listed_newest_first_and_a_broken_one_with_its_reason(folder):
    found = json.loads(mixopt("list", "--json").out)["runs"]
    assert [run["path"] for run in found] == ["runs/done", "runs/older/mine", "runs/broken"]
    done, broken = found[0], found[2]
    assert (done["state"], done["domains"], done["ended"], done["trials"]) == ("done", 2, 12, 12)
    gains = load_run(folder / "done").recommendation.gains
    natural = gains.get("natural")
    assert done["gain"] == (0.0 if natural is None else natural.validated.value)
    assert broken["state"] == "damaged"
    assert "config.yaml" in broken["fault"]


def test_the_table_ends_with_the_reasons(folder):
    said = mixopt("list", folder).out
    assert "broken: " in said
    assert "gain: over the natural mixture" in said


def test_a_folder_without_runs_says_so_and_one_that_is_not_there_is_a_mistake(tmp_path):
    (tmp_path / "empty").mkdir()
    assert mixopt("list", tmp_path / "empty").out == f"{tmp_path / 'empty'}: no runs\n"
    assert mixopt("list", tmp_path / "nowhere").code == 2


def test_a_run_compared_with_itself_differs_in_nothing(folder):
    found = json.loads(mixopt("compare", folder / "done", folder / "done", "--json").out)
    assert found["configuration"] == {}
    assert found["total_variation"] == 0
    assert (
        "The configurations are the same."
        in mixopt("compare", folder / "done", folder / "done").out
    )


def test_what_differs_is_shown_side_by_side(folder, finished_run, tmp_path):
    other = tmp_path / "other"
    asked = ("--set", "design.trials=6", "--set", "seed=1", "--out", other)
    assert mixopt("design", finished_run[0], *asked).code == 2  # nothing is prepared yet
    assert mixopt("prepare", finished_run[0], *asked).code == 0
    found = json.loads(mixopt("compare", folder / "done", other, "--json").out)
    assert found["configuration"]["design.trials"] == [8, 6]
    assert found["total_variation"] is None
    said = mixopt("compare", folder / "done", other).out
    assert "design.trials" in said
