"""Optimiser steps on a stream: where they begin, what they consumed, how far ahead batches are."""

from __future__ import annotations

import pytest
from driver_parts import NAMES, START, loader_over_rows, sampler

from mixopt.errors import EstimatorError, MixtureError
from mixopt.online.standing_plan import StreamSteps

LENGTHS = {"a": 1.0, "b": 10.0, "c": 100.0}
EVEN = dict.fromkeys(NAMES, 1 / 3)


def ahead(order, batches):
    for _ in range(batches):
        next(iter(order))


def test_a_step_begins_with_the_batch_after_the_last_of_the_step_before():
    steps = StreamSteps(sampler(), 3, 16)
    assert [steps.batch(1), steps.batch(2), steps.batch(5)] == [0, 3, 12]
    assert [steps.position(0), steps.position(2)] == [0, 48]


def test_step_1_begins_with_the_next_batch_of_the_sampler():
    order = sampler()
    ahead(order, 2)
    steps = StreamSteps(order, 3, 16)
    assert [steps.batch(1), steps.batch(2)] == [2, 5]
    ahead(order, 1)
    steps.begin()
    assert steps.batch(1) == 3


def test_batches_that_were_handed_out_ahead_are_steps_begun():
    order = sampler()
    steps = StreamSteps(order, 2, 16)
    assert steps.lag(0) == 0
    ahead(order, 3)
    assert steps.lag(0) == 2  # the second of them half
    assert steps.lag(1) == 2  # as many as it once was
    ahead(order, 3)
    assert steps.lag(0) == 3


@pytest.mark.parametrize(("accumulation", "lag"), [(1, 4), (2, 2), (3, 2)])
def test_a_loader_is_as_far_ahead_as_its_workers_may_be(accumulation, lag):
    loader = loader_over_rows(sampler(), workers=2)
    steps = StreamSteps(loader, accumulation, 16)
    assert steps.lag(0) == steps.lag(5) == lag


def test_a_loader_without_workers_is_not_ahead():
    assert StreamSteps(loader_over_rows(sampler(), workers=0), 1, 16).lag(0) == 0


def test_a_loop_has_received_the_batches_of_its_steps():
    order = sampler()
    steps = StreamSteps(order, 2, 16)
    ahead(order, 2)
    steps.check(1)
    with pytest.raises(EstimatorError, match=r"after step 2 the loop is at batch 2, .* it is at 4"):
        steps.check(2)


def test_a_sampler_may_be_ahead_of_the_loop_and_a_loader_not():
    order = sampler()
    steps = StreamSteps(order, 1, 16)
    ahead(order, 2)
    steps.check(1)
    loader = loader_over_rows(sampler(), workers=0)
    steps = StreamSteps(loader, 1, 16)
    ahead(loader.sampler, 2)
    with pytest.raises(EstimatorError, match=r"with accumulation=1 it is at 1: call step\(\)"):
        steps.check(1)


def test_weights_hold_from_the_first_batch_of_a_step():
    order = sampler()
    StreamSteps(order, 2, 16).set_weights(3, EVEN)
    assert order.log[-1].batch == 4
    assert dict(order.mixture_at(4)) == pytest.approx(EVEN)
    assert order.mixture_at(3).array.tolist() == START


def test_weights_that_come_too_late_are_an_error():
    order = sampler()
    steps = StreamSteps(order, 1, 16)
    ahead(order, 3)
    with pytest.raises(EstimatorError, match=r"call start\(\) before the first batch"):
        steps.set_weights(3, EVEN)
    with pytest.raises(MixtureError):
        steps.set_weights(9, {"a": 1.0, "d": 1.0})


def consumed(order, start, stop):
    pairs = zip(order.counts(start).values(), order.counts(stop).values(), strict=True)
    lengths = LENGTHS.values()
    return [(after - before) * n for (before, after), n in zip(pairs, lengths, strict=True)]


def test_tokens_are_those_of_the_steps_since_the_last_time():
    order = sampler()
    ahead(order, 2)
    steps = StreamSteps(order, 1, LENGTHS)
    assert steps.take_tokens(5).tolist() == consumed(order, 2, 7)
    assert steps.take_tokens(6).tolist() == consumed(order, 7, 8)
    assert not steps.take_tokens(6).any()
