"""A corpus, and a sweep of a proxy that goes wrong as it is told, in real worker processes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from fault_runs import KINDS, Undisturbed, undisturbed as undisturbed_run
from work_runs import faulty_job, noted, trials_named

from mixopt.config import SweepConfig
from mixopt.sweeps import run_trials

HERE = Path(__file__).parent
MANY = 6  # cases of a test


def pytest_collection_modifyitems(config, items):
    """Mark all that is in this folder, and leave it to `make nightly`.

    Of a test with many cases, the quick part (MIXOPT_FAULTS=0) has every second one.
    """
    here = [item for item in items if item.path.is_relative_to(HERE)]
    cases = defaultdict(list)
    for item in here:
        item.add_marker(pytest.mark.nightly)
        cases[item.path, item.originalname].append(item)
    if KINDS:
        return
    left = {one for many in cases.values() if len(many) > MANY for one in many[1::2]}
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = [item for item in items if item not in left]


class FaultySweep:
    """Six trials, a to f, of the faulty proxy; what it noted, and what was said."""

    def __init__(self, folder: Path, corpus: Path) -> None:
        self.place, self.folder, self._corpus = folder, folder / "trials", corpus
        self.said: list[str] = []

    def __call__(self, *, patience=600.0, workers=1, **options):
        """Run it, and return the results by trial."""
        job, trials = faulty_job(self.place, self._corpus, **options), trials_named(*"abcdef")
        means = SweepConfig(workers=workers, patience=patience)
        results = run_trials(trials, job, self.folder, sweep=means, say=self.said.append)
        return {result.trial: result for result in results}

    def notes(self, what: str) -> list[str]:
        """Return the groups that were noted so, in order."""
        return noted(self.place / "trained.log", what)


@pytest.fixture
def faulty_sweep(corpus, tmp_path) -> FaultySweep:
    """A sweep that is not run yet."""
    return FaultySweep(tmp_path, corpus.path)


@pytest.fixture(scope="session")
def undisturbed(corpus, tmp_path_factory):
    """The results of a sweep in which nothing goes wrong."""
    return FaultySweep(tmp_path_factory.mktemp("undisturbed"), corpus.path)()


@pytest.fixture(scope="session")
def whole(tmp_path_factory, short_texts) -> Undisturbed:
    """The run, and the state before each of its steps."""
    return undisturbed_run(tmp_path_factory.mktemp("whole"), short_texts)
