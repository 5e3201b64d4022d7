"""Examples in docstrings give what they show, on a finished run in `runs/mine`."""

from __future__ import annotations

import doctest
import shutil

import pytest

import mixopt
from mixopt.run_directory import Run

NAMES = {
    "Mixture": mixopt.Mixture,
    "load_run": mixopt.load_run,
    "Run": Run,
    "Run.predict": Run.predict,
    "Run.propose": Run.propose,
}


@pytest.fixture(scope="module")
def place(finished, tmp_path_factory):
    """A folder with a finished run in runs/mine."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(finished, folder / "runs/mine")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_the_example_gives_what_it_shows(name, place, monkeypatch):
    monkeypatch.chdir(place)
    known = {"mixopt": mixopt, "run": mixopt.load_run("runs/mine")}
    (test,) = doctest.DocTestFinder(recurse=False).find(NAMES[name], name, globs=known)
    assert test.examples, "no example"
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert result.failed == 0, "".join(said)
