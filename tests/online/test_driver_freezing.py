"""The driver: the mixture freezes, and training goes on, where something is wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from driver_parts import (
    Turning,
    driver_over,
    held_out_of,
    lines,
    sampler,
    train,
)

from mixopt.online import Plan


class Broken(Turning):
    """Plans well twice, then as it is told to."""

    def __init__(self, plan=None, **options):
        super().__init__(5, **options)
        self.then = plan

    def plan(self):
        if self.count < 2 or self.then is None:
            return super().plan()
        return self.then() if callable(self.then) else self.then


def no_plan():
    raise ZeroDivisionError("no share")


def test_losses_that_are_not_finite_freeze_the_mixture_and_training_goes_on(tmp_path, caplog):
    def record(step, losses):
        losses = losses.clone()
        if step == 8:
            losses[0, 3] = torch.nan
        return losses

    order, log = sampler(), tmp_path / "log.jsonl"
    driver = driver_over(order, Turning(5), log=log)
    train(driver, order, until=30, record=record)
    assert driver.frozen is not None
    last = lines(log)[-1]
    assert "losses up to step 10 are not finite" in last["why"]
    assert last["why"] == f"frozen: {driver.frozen}"
    assert [f"the mixture is {last['why']}"] == caplog.messages
    assert last["batch"] == 10
    assert last["weights"] == lines(log)[2]["weights"]  # turn 1 is no perturbation, and stays
    assert [entry.batch for entry in order.log] == [0, 5]
    assert driver.steps_done == 30


def test_a_freeze_in_a_perturbation_goes_back_to_the_weights_before_it(tmp_path):
    def record(step, losses):
        return losses + 5 * (step > 12)  # turn 2, which perturbs, holds from step 11

    order, log = sampler(), tmp_path / "log.jsonl"
    driver = driver_over(order, Turning(5), log=log)
    train(driver, order, until=20, record=record)
    *_, steady, perturbing, frozen = lines(log)
    assert (steady["why"], perturbing["why"]) == ("turn 1", "turn 2")
    assert re.match(r"frozen: losses rose by \S+ nats up to step \d+; spike is 1", frozen["why"])
    assert frozen["weights"] == steady["weights"]
    assert dict(order.mixture_at(frozen["batch"])) == pytest.approx(steady["weights"])


@pytest.mark.parametrize(
    ("plan", "options", "why"),
    [
        (no_plan, {}, r"ZeroDivisionError in plan: no share"),
        (
            Plan(np.array([0.8, 0.1, 0.1]), 5, "all in"),
            {"bounds": {"a": (0.0, 0.75)}},
            r"plan 'all in': domain 'a': a share of 0.8 is outside its bounds 0 to 0.75",
        ),
        (
            Plan(np.array([0.5, 0.5]), 5, "two"),
            {},
            r"plan 'two': 2 weights for 3 domains",
        ),
        (
            Plan(np.array([0.5, 0.3, 0.2]), 0, "look", held_out=True),
            {"evaluate": held_out_of()},
            r"plan 'look': held-out losses are requested twice in a row",
        ),
        (
            Plan(np.array([0.5, 0.3, 0.2]), 0, "look", held_out=True),
            {"evaluate": held_out_of((1.0, float("nan"), 1.0))},
            r"held-out loss of 'b' is not finite",
        ),
    ],
)
def test_what_cannot_be_done_freezes_and_says_why(tmp_path, plan, options, why):
    order, log = sampler(), tmp_path / "log.jsonl"
    driver = driver_over(order, Broken(plan), log=log, **options)
    train(driver, order, until=20)
    assert re.search(why, driver.frozen or "")
    assert lines(log)[-1]["why"] == f"frozen: {driver.frozen}"
    assert lines(log)[-1]["weights"] == lines(log)[2]["weights"]
    assert len(order.log) == 2
