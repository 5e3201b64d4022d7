"""What changes of weights did to experts, and how often chance is called a difference."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from command_line import mixopt as command
from made_experts import counted

import mixopt
from mixopt.errors import RoutingError, RunError
from mixopt.online import MIXTURE_LOG, LoggedChange, MixtureLog, read_changes
from mixopt.reporting.expert_changes import COMPARED_BY_LAYER, Drift, ExpertChange
from mixopt.routing import ExpertRecord

EVERY = 10


def log_of(path: Path, weights) -> None:
    log = MixtureLog(path / MIXTURE_LOG)
    for step, share in weights.items():
        log.write(step - 1, step, {"d0": share, "d1": 1 - share}, f"at {step}", shadow=False)


def run_of(path: Path, busy_W, *, share=0.5, drift=0.0, seed=0) -> Path:
    """Write a run whose windows have this load on the first expert of the second layer."""
    rng, record = np.random.default_rng(seed), ExpertRecord(path / "experts")
    for number, busy in enumerate(busy_W):
        layers = []
        for load in (1.0, busy + drift * number):
            profile_E = np.array([load, *[(8 - load) / 7] * 7]) / 8
            rows = [rng.multinomial(int(40_000 * s), profile_E) for s in (share, 1 - share)]
            layers.append(np.stack(rows))
        record.write_window(number * EVERY, (number + 1) * EVERY, counted(layers))
    return path


def differing(change):
    table = change.by_layer.filter("differs")
    return set(zip(table["layer"], table["measure"], strict=True))


@pytest.fixture
def changed(tmp_path) -> Path:
    """A run whose busiest expert has twice the load after a change of weights at step 55."""
    log_of(tmp_path, {1: 0.5, 55: 0.8})
    return run_of(tmp_path, [1.5] * 6 + [3.0] * 6)


def test_a_change_is_held_against_the_windows_before_it_and_after_it(changed):
    (change,) = mixopt.experts(changed).changes
    assert (change.step, change.logged.why, change.between) == (55, "at 55", 0)
    assert [w.end for w in change.windows_before] == [10, 20, 30, 40, 50]
    assert [w.start for w in change.windows_after] == [60, 70, 80, 90, 100, 110]
    found = differing(change)
    assert (1, "max_load") in found
    assert not {layer for layer, _ in found} - {1}
    busiest = change.by_layer.filter(layer=1, measure="max_load").row(0, named=True)
    assert busiest["difference"] == pytest.approx(1.5, abs=0.05)


def test_with_two_windows_before_nothing_is_called_a_difference(tmp_path):
    log_of(tmp_path, {1: 0.5, 21: 0.8})
    run_of(tmp_path, [1.5] * 2 + [3.0] * 4)
    found = mixopt.experts(tmp_path)
    assert differing(found.changes[0]) == set()
    assert "2 windows of counts before it, 3 are needed to tell what chance gives" in str(found)


def test_of_changes_that_are_near_each_other_the_nearest_windows_are_taken(tmp_path):
    log_of(tmp_path, {1: 0.5, 55: 0.9, **{60 + n: 0.5 + n / 100 for n in range(1, 40)}})
    run_of(tmp_path, [1.5] * 12)
    (change,) = mixopt.experts(tmp_path, change=70).changes
    assert [w.end for w in change.windows_before] == [30, 40, 50, 60]
    assert [w.start for w in change.windows_after] == [70, 80, 90, 100]
    assert change.between == 39
    largest = mixopt.experts(tmp_path).changes
    assert [item.step for item in largest][:2] == [55, 61]
    assert len(largest) == 3
    text = str(mixopt.experts(tmp_path))
    assert "37 other changes of weights are in the log; --change STEP shows one" in text


def test_a_change_that_is_not_there_or_has_no_windows_is_one_line(changed):
    with pytest.raises(RoutingError, match="--change 54: weights did not change .*; 55 did"):
        mixopt.experts(changed, change=54).changes  # noqa: B018
    log_of(changed, {1: 0.5, 5: 0.4})
    with pytest.raises(RoutingError, match="step 5: no window of counts before the change"):
        mixopt.experts(changed, change=5).changes  # noqa: B018


def test_the_command_tells_of_a_change_as_text_and_json(changed):
    ran = command("experts", changed, "--change", "55", "--json")
    assert ran.code == 0, ran.error
    found = json.loads(ran.out)
    (change,) = found["changes"]
    known = {"step": 55, "steps_before": [1, 50], "steps_after": [61, 120]}
    assert {name: change[name] for name in known} == known
    assert found["steps"] == [60, 120]
    text = str(mixopt.experts(changed))
    assert "change of weights at step 55 (at 55): d0 50.0 -> 80.0%  d1 50.0 -> 20.0%" in text
    (line,) = [x for x in text.splitlines() if "layers, most in" in x and "max load" in x]
    assert "1 of 2 layers, most in 1 (+1." in line


def test_a_log_is_read_as_it_was_written(tmp_path):
    assert read_changes(tmp_path / MIXTURE_LOG) == []
    log_of(tmp_path, {1: 0.5, 11: 0.5, 21: 0.8})
    log = MixtureLog(tmp_path / MIXTURE_LOG)
    log.write(30, 31, {"d0": 0.1, "d1": 0.9}, "would", shadow=True)
    with (tmp_path / MIXTURE_LOG).open("a") as stream:
        stream.write('{"batch": 40, "st')
    (change,) = read_changes(tmp_path / MIXTURE_LOG)
    assert (change.step, change.why) == (21, "at 21")
    assert change.distance == pytest.approx(0.3)
    (tmp_path / MIXTURE_LOG).write_text('{"step": 1, "weights": {"d0": "much"}}\n')
    with pytest.raises(RunError, match="weights: d0"):
        read_changes(tmp_path / MIXTURE_LOG)


ROUTERS = 800  # each with a number of its own in each window


def change_of(before, after, *, drift, goes_on=1.0, jump=0.0):
    """Return a change between windows with unit noise, a drift a window, and a jump after it."""
    rng = np.random.default_rng(before)
    windows = []
    for number in range(before + after):
        later = max(0, number - before + 1)
        place = drift * (min(number, before - 1) + goes_on * later) + jump * (later > 0)
        value_R = place + rng.standard_normal(ROUTERS)
        table = {"layer": np.arange(ROUTERS), "router": [""] * ROUTERS}
        table |= dict.fromkeys(COMPARED_BY_LAYER, value_R)
        place = {"start": EVERY * number, "end": EVERY * (number + 1)}
        windows.append(SimpleNamespace(**place, layers=pl.DataFrame(table)))
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


def test_what_is_beyond_the_drift_and_chance_of_a_line_before_is_called_a_difference():
    found = Drift.of(np.array([0.0, 10, 20]), np.array([1.0, 2, 4]), np.array([40.0, 60]))
    # Slope 0.15, squared rest 1/6 of one degree of freedom, whose quantile is 63.6567.
    assert found == pytest.approx((6.0, 23.7234, 77.2379), rel=1e-4)
    for drift in (0.5, 0.0):
        assert called(change_of(10, 10, drift=drift, jump=8.0)) > 0.95
