"""The cost of an estimator: laps, perturbed steps and evaluations are counted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mixopt.online import standing_plan as cost
from mixopt.online.standing_plan import Cost, CostMeter


@pytest.fixture
def clock(monkeypatch):
    """A list of the times that the clock shows next."""
    times = [10.0]
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: times.pop(0)))
    return times


def test_a_lap_is_the_time_since_the_last(clock):
    meter = CostMeter()
    clock += [12.0, 17.0]
    assert [meter.lap(), meter.lap()] == [2, 5]


def test_a_run_begins_at_no_cost():
    assert CostMeter().cost == Cost(0, 0, 0.0, 0, 0, 0.0) == Cost()


def test_perturbed_steps_add_up():
    meter = CostMeter()
    meter.add_perturbed(4, 0.5)
    meter.add_perturbed(10, 1.5)
    assert meter.cost == Cost(perturbed_steps=2, perturbed_tokens=14, perturbed_seconds=2.0)


def test_evaluations_add_up():
    meter = CostMeter()
    meter.add_evaluation(100, 0.5)
    meter.add_evaluation(30, 1.5)
    assert meter.cost == Cost(evaluations=2, evaluation_tokens=130, evaluation_seconds=2.0)
