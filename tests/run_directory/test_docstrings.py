"""Examples in docstrings give what they show, on a finished run in `runs/mine`."""

from __future__ import annotations

import doctest
import operator
import shutil
import sys

import pytest

import mixopt
from mixopt import constraints, fitting, objective, proposals, sampling  # noqa: F401

NAMES = [
    *("Mixture", "load_run", "Run", "Run.predict", "Run.propose", "Trials", "Trials.frame"),
    *("fitting.Fit", "fitting.Fit.predict", "fitting.Fit.propose", "fitting.fitted.Prediction"),
    *("constraints.Constraints", "objective.Objective", "Proposal", "proposals.Recommendation"),
    *("proposals.Validation", "Corpus", "MixtureSampler", "sampling.Schedule"),
    *("sampling.simulate_schedule", "load_fit", "predict", "propose", "export", "status", "check"),
]


@pytest.fixture(scope="module")
def place(finished, tmp_path_factory):
    """A folder with a finished run in runs/mine."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(finished, folder / "runs/mine")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_the_example_gives_what_it_shows(name, place, monkeypatch):
    monkeypatch.chdir(place)
    documented = operator.attrgetter(name)(mixopt)
    own = vars(sys.modules[documented.__module__])
    known = {**own, "mixopt": mixopt, "run": mixopt.load_run("runs/mine")}
    (test,) = doctest.DocTestFinder(recurse=False).find(documented, name, globs=known)
    assert test.examples, "no example"
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert result.failed == 0, "".join(said)
