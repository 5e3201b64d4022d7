"""Losses that are missing, not finite or jump up are noticed, by domain."""

from __future__ import annotations

import numpy as np
from driver_parts import TOKENS, sampler

from mixopt.online import UNIT
from mixopt.online.loss_windows import LossWindow, LossWindows
from mixopt.online.standing_plan import StreamSteps

NONE = [0, 0, 0]


def windows(order=None, *, spike=None, needs_losses=False):
    stream = StreamSteps(sampler() if order is None else order, 1, TOKENS)
    return LossWindows(stream, spike=spike, needs_losses=needs_losses)


def window(step=1, *, losses=NONE, counts=NONE, broken=NONE, due=None, ends_plan=False, **fields):
    """A window of mean losses in nats."""
    sums = np.array([np.multiply(losses, counts) * UNIT, counts, broken], np.int64)
    due = step if due is None else due
    fields = {"tokens_D": np.ones(3), "learning_rate": 0.0} | fields
    return LossWindow(step, due, ends_plan, lambda: sums, **fields)


# What is wrong with it ------------------------------------------------------------------------


def test_losses_that_are_not_finite_are_said_of_the_first_domain_that_has_most():
    trouble = windows().trouble(window(7, broken=[0, 2, 1]))
    assert trouble == "domain 'b': 2 losses up to step 7 are not finite"


def rise(*means, counts=(4, 4, 4)):
    """Return what is said of the last of several windows of mean losses, at a spike of 0.5."""
    seen = windows(spike=0.5)
    said = [
        seen.trouble(window(step, losses=losses, counts=counts))
        for step, losses in enumerate(means, 1)
    ]
    assert not any(said[:-1])
    return said[-1]


def test_a_rise_by_the_spike_is_allowed_and_more_is_not():
    assert rise([1, 1, 1], [1.5, 1.5, 1.5]) is None
    assert (
        rise([1, 1, 1], [1.75, 1.75, 1.75]) == "losses rose by 0.75 nats up to step 2; spike is 0.5"
    )


def test_a_rise_counts_each_domain_by_its_tokens():
    said = rise([1, 1, 1], [2, 1, 3], counts=(1, 6, 1))
    assert said is None  # (1 * 1 + 0 * 6 + 2 * 1) / 8
    assert "rose by 0.667 nats" in rise([1, 1, 1], [2, 1, 1], counts=(4, 2, 0))


def test_a_domain_is_compared_with_its_mean_over_earlier_windows():
    assert "rose by 0.7 nats" in rise([1, 1, 1], [0, 0, 0], [1.4, 1.4, 1.4])  # mean 0.7
    assert "rose by 0.91 nats" in rise(*([[x] * 3 for x in (1, 0, 0, 1.4)]))  # mean 0.49
