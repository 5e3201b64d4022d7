"""Decisions while training runs, one state machine at a time: when it asks, tells and freezes."""

from __future__ import annotations

import json

import numpy as np
import torch
from driver_parts import (
    DOMAIN_OF_ROW,
    NAMES,
    ROWS,
    START,
    TOKENS,
    Turning,
    held_out_of,
    lines,
    losses_of,
    sampler,
)

from mixopt import MixtureSampler
from mixopt.online import Driver, DriverOptions


class Asked(Turning):
    """Counts how often it is asked for a plan, and raises what it is told to."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.asked, self.error, self.deaf = 0, None, None

    def plan(self):
        self.asked += 1
        if self.error is not None:
            raise self.error
        return super().plan()

    def observe(self, observation):
        if self.deaf is not None:
            raise self.deaf
        super().observe(observation)


class Loop:
    """A loop around driver, with their state in reach."""

    def __init__(self, estimator=None, order=None, **options):
        self.order = sampler() if order is None else order
        self.estimator = Asked(5) if estimator is None else estimator
        chosen = DriverOptions(**{"steps": 40, "tokens_per_sample": TOKENS} | options)
        self.driver = Driver(self.estimator, self.order, chosen)

    def go(self, until, loss=0.0):
        self.driver.start()
        while self.driver.steps_done < until:
            rows = np.array(next(iter(self.order)))
            losses = losses_of(rows, self.driver.steps_done) + loss
            self.driver.record(losses, torch.from_numpy(DOMAIN_OF_ROW[rows]))
            self.driver.step(learning_rate=0.25)
        return self

    def state(self):
        return json.loads(json.dumps(self.driver.state_dict()))

    def plan(self):
        return self.driver._plan


def test_a_plan_that_would_hold_after_the_run_is_not_asked_for():
    assert Loop(steps=20).go(20).estimator.asked == 4
    assert Loop(steps=21).go(20).estimator.asked == 5


# Where it freezes -----------------------------------------------------------------------------


def frozen(*, held_out=False, until=8, **options):
    """A loop that froze at step 8, in the middle of a plan that perturbs."""
    options = {"evaluate": held_out_of()} | options
    loop = Loop(Asked(5, held_out=held_out), observe_every=1, **options).go(4)
    loop.estimator.error = ZeroDivisionError("no share")
    return loop.go(until)


def test_a_shadow_that_freezes_changes_nothing(tmp_path):
    log = tmp_path / "log.jsonl"
    loop = frozen(shadow=True, log=log)
    assert [entry.batch for entry in loop.order.log] == [0]
    assert lines(log)[-1]["why"] == "frozen: ZeroDivisionError in plan: no share"
    assert lines(log)[-1]["weights"] == dict(zip(NAMES, START, strict=True))


def test_a_freeze_at_the_last_step_sets_no_weights_beyond_the_run():
    loop = Loop(steps=12, observe_every=1).go(11)  # turn 2 perturbs
    loop.go(12, loss=9.0)
    assert "losses rose" in loop.driver.frozen
    assert [entry.batch for entry in loop.order.log] == [0, 5, 10]


def test_weights_that_the_sampler_cannot_draw_by_freeze(tmp_path):
    order = MixtureSampler({"a": ROWS, "b": ROWS, "c": 0}, [0.5, 0.5, 0.0], batch_size=8)
    log = tmp_path / "log.jsonl"
    loop = Loop(order=order, log=log)
    loop.driver.start()
    assert loop.driver.frozen == (
        "plan 'turn 0': domain 'c' has weight 0.1 and no rows; set it to 0"
    )
    assert list(loop.driver.weights.values()) == [0.5, 0.5, 0.0]
    assert [line["why"] for line in lines(log)] == ["start", f"frozen: {loop.driver.frozen}"]


# State ----------------------------------------------------------------------------------------
