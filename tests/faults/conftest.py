"""A corpus, and a sweep of a proxy that goes wrong as it is told, in real worker processes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from fault_runs import KINDS, Undisturbed, undisturbed as undisturbed_run
from work_fixtures import designed, local_table, work_run

from mixopt.config import CorpusConfig, SweepConfig
from mixopt.corpus import prepare_corpus
from mixopt.mixture import Mixture
from mixopt.sweeps import Job, run_trials
from mixopt.trials import Training, Trial

__all__ = ["designed", "local_table", "work_run"]

HERE = Path(__file__).parent
MANY = 6  # cases of a test
SUPPORT = HERE.parent / "support"


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


@pytest.fixture(scope="session")
def faults_corpus(text_files, tmp_path_factory):
    """Token shards of two small domains."""
    path = tmp_path_factory.mktemp("faults") / "corpus"
    domains = {name: {"path": str(text_files[name])} for name in ("code", "prose")}
    config = CorpusConfig.model_validate({"domains": domains})
    prepare_corpus(config, {}, path, fingerprint="test", seed=0, min_tokens=2)
    return path


class FaultySweep:
    """Six trials, a to f, of the faulty proxy; what it noted, and what was said."""

    def __init__(self, folder: Path, corpus: Path) -> None:
        self.folder, self._corpus = folder / "trials", corpus
        self._log = folder / "trained.log"
        self.said: list[str] = []

    def __call__(self, *, patience=600.0, workers=1, **options):
        """Run it, and return the results by trial."""
        options = {"log": str(self._log), **options}
        job = Job("faulty_proxy:Faulty", options, self._corpus, Training(1000, device="cpu"))
        trials = [
            Trial(name, Mixture({"code": n / 6, "prose": 1 - n / 6}), seed=n)
            for n, name in enumerate("abcdef")
        ]
        means = SweepConfig(workers=workers, patience=patience)
        results = run_trials(trials, job, self.folder, sweep=means, say=self.said.append)
        return {result.trial: result for result in results}

    def notes(self, what: str) -> list[str]:
        """Return the groups that were noted so, in order."""
        return [names for noted, _, names in self._lines() if noted == what]

    def times(self, what: str, names: str) -> list[float]:
        """Return when a group was noted so."""
        return [float(at) for noted, at, group in self._lines() if (noted, group) == (what, names)]

    def _lines(self) -> list[list[str]]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [line.split() for line in lines]


@pytest.fixture
def faulty_sweep(faults_corpus, tmp_path, monkeypatch) -> FaultySweep:
    """A sweep that is not run yet."""
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    return FaultySweep(tmp_path, faults_corpus)


@pytest.fixture(scope="session")
def undisturbed(faults_corpus, tmp_path_factory):
    """The results of a sweep in which nothing goes wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SUPPORT))
        return FaultySweep(tmp_path_factory.mktemp("undisturbed"), faults_corpus)()


@pytest.fixture(scope="session")
def whole(tmp_path_factory, text_files) -> Undisturbed:
    """The run, and the state before each of its steps."""
    lines = {n: path.read_text().splitlines(keepends=True)[:50] for n, path in text_files.items()}
    return undisturbed_run(tmp_path_factory.mktemp("whole"), lines)
