"""A single bit that changed in a table or a result of a run is found, or changes nothing."""

from __future__ import annotations

import shutil

import pytest
from fault_runs import KINDS
from flips import flips

from mixopt.errors import MixoptError
from mixopt.fitting import Fit
from mixopt.sweeps import read_entry
from mixopt.trials import Trials, read_design

FLIPS = 600 if KINDS else 60


def fit_of(path):
    found = Fit.load(path.parent)
    return found.report.rows(), found.held_out.rows(), found.trials.table.rows()


READERS = {
    "design.parquet": lambda path: [(t.name, dict(t.mixture), t.seed) for t in read_design(path)],
    "trials.parquet": lambda path: Trials.read(path).table.rows(),
    "validation.parquet": lambda path: Trials.read(path).table.rows(),
    "fit/report.parquet": fit_of,
    "fit/held_out.parquet": fit_of,
    "fit/trials.parquet": fit_of,
    "trials/t0000.json": read_entry,
}


@pytest.mark.parametrize("name", READERS)
def test_a_bit_that_changed_is_found_or_changes_nothing(whole, tmp_path, name):
    run = shutil.copytree(whole.states["end"], tmp_path / "run")
    path, read = run / name, READERS[name]
    before, found = read(path), 0
    for _ in flips(path, count=FLIPS, seed=name):
        try:
            assert read(path) == before
        except MixoptError:
            found += 1
    assert found > FLIPS / 2
