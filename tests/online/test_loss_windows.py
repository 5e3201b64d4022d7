"""Losses that are missing, not finite or jump up are noticed, by domain."""

from __future__ import annotations

import torch
from driver_parts import sampler

from mixopt.online import Observation
from mixopt.online.loss_sums import LossWindows
from mixopt.online.standing_plan import StreamSteps


def rise(*means, counts=(4, 4, 4)):
    """Return what is said of the last of several windows of mean losses, at a spike of 0.5."""
    order = sampler()
    seen = LossWindows(StreamSteps(order, 1, 16), spike=0.5, needs_losses=True)
    said = []
    for step, losses in enumerate(means, 1):
        next(iter(order))
        for domain, (loss, count) in enumerate(zip(losses, counts, strict=True)):
            sequence = torch.full((1, max(count, 1)), float(loss))
            mask = torch.full(sequence.shape, bool(count))
            seen.record(sequence, torch.tensor([domain]), mask)
        said.append(seen.close(step, 0.1))
    assert all(isinstance(one, Observation) for one in said[:-1])
    return said[-1]


def test_what_was_seen_is_sums_and_counts_by_domain():
    seen = rise([1, 2, 3], [1, 2.25, 9], counts=(4, 8, 0))
    assert (seen.step, seen.learning_rate) == (2, 0.1)
    assert seen.loss_sum_D.tolist() == [4, 18, 0]
    assert seen.loss_count_D.tolist() == [4, 8, 0]


def test_losses_that_are_not_finite_are_said_of_the_first_domain_that_has_most():
    said = rise([1, torch.nan, 1], counts=(4, 2, 4))
    assert said == "domain 'b': 2 losses up to step 1 are not finite"


def test_a_rise_by_the_spike_is_allowed_and_more_is_not():
    assert isinstance(rise([1, 1, 1], [1.5, 1.5, 1.5]), Observation)
    said = rise([1, 1, 1], [1.75, 1.75, 1.75])
    assert said == "losses rose by 0.75 nats up to step 2; spike is 0.5"


def test_a_domain_is_compared_with_its_mean_over_earlier_windows():
    assert "rose by 0.7 nats" in rise([1, 1, 1], [0, 0, 0], [1.4, 1.4, 1.4])  # mean 0.7
    assert "rose by 0.91 nats" in rise(*([x] * 3 for x in (1, 0, 0, 1.4)))  # mean 0.49
