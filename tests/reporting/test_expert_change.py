"""How often chance is called a difference, with drifts that go on or end at the change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from mixopt.online import LoggedChange
from mixopt.reporting.expert_changes import COMPARED_BY_LAYER, ExpertChange

ROUTERS = 800  # each with a number of its own in each window


@dataclass
class Window:
    """A window of ten steps, of which these are the tables."""

    start: int
    tables: tuple[pl.DataFrame]

    @property
    def end(self):
        return self.start + 10


def change_of(before, after, *, drift, goes_on=1.0, jump=0.0):
    """Return a change between windows with unit noise, a drift a window, and a jump after it."""
    rng = np.random.default_rng(before)
    windows = []
    for number in range(before + after):
        later = max(0, number - before + 1)
        place = drift * (min(number, before - 1) + goes_on * later) + jump * (later > 0)
        value_R = place + rng.standard_normal(ROUTERS)
        table = dict.fromkeys(COMPARED_BY_LAYER, value_R)
        about = {"layer": np.arange(ROUTERS), "router": [""] * ROUTERS}
        windows.append(Window(10 * number, (pl.DataFrame({**about, **table}),)))
    sides = tuple(windows[:before]), tuple(windows[before:])
    return ExpertChange(LoggedChange(10 * before + 1, "", {}, {}), *sides)


def called(change):
    """Return the share of routers whose number is called different."""
    return change.by_layer.filter(pl.col("measure") == "max_load")["differs"].mean()


@pytest.mark.parametrize(("before", "after"), [(3, 3), (5, 15)])
@pytest.mark.parametrize(("drift", "goes_on"), [(-1.0, 0.5), (1.0, 0.0)])
def test_at_most_one_in_a_hundred_numbers_that_drift_is_called_a_difference(
    before, after, drift, goes_on
):
    # Four standard deviations of a share of 1% among 800.
    assert called(change_of(before, after, drift=drift, goes_on=goes_on)) <= 0.024


def test_what_is_beyond_drift_and_chance_is_called_a_difference():
    assert called(change_of(10, 10, drift=0.5, jump=8.0)) > 0.95
    assert called(change_of(10, 10, drift=0.0, jump=8.0)) > 0.95
