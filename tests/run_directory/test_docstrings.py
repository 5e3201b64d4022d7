"""Examples in docstrings give what they show, on a finished run in `runs/mine`."""

import doctest
import importlib
import shutil

import pytest

import mixopt

MODULES = [
    *("mixture", "objective", "run_directory.opening", "run_directory.run", "trials.table"),
    *("fitting.fitted", "constraints.constraints", "proposals.proposal", "proposals.decision"),
    *("proposals.validation", "corpus.corpus", "sampling.sampler", "sampling.schedule"),
    *("pipeline.from_fit", "pipeline.exchange", "pipeline.run_status"),
    *("pipeline.experiment_check", "sampling.forecast", "fitting.intervals"),
]


@pytest.fixture(scope="module")
def place(finished, tmp_path_factory):
    """A folder with a finished run in runs/mine."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(finished, folder / "runs/mine")
    return folder


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_give_what_they_show(name, place, monkeypatch):
    monkeypatch.chdir(place)
    module = importlib.import_module(f"mixopt.{name}")
    known = {**vars(module), "mixopt": mixopt, "run": mixopt.load_run("runs/mine")}
    found = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs=known)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in found:
        runner.run(test, out=said.append)
    assert runner.tries > 0, "no example"
    assert runner.failures == 0, "".join(said)
