"""A plan that was decided: how long it holds, how its shares are rounded, why it cannot be."""

import numpy as np
import pytest
from driver_parts import sampler
from hypothesis import given, settings, strategies as st

from mixopt.online import DriverOptions, Plan
from mixopt.online.standing_plan import StreamSteps, impossible, rounded_shares

WEIGHTS = np.array([0.25, 0.25, 0.5])


def why_not(weights=WEIGHTS, steps=5, first=1, *, order=None, **options):
    order = sampler() if order is None else order
    setting = DriverOptions(steps=40, tokens_per_sample=16, **options).setting(order)
    plan, stream = Plan(np.array(weights), steps, "tag"), StreamSteps(order, 1, 16)
    return impossible(plan, setting, stream, first, evaluates=False)


def test_a_plan_outside_the_bounds_is_not():
    assert why_not(bounds={"a": (0.2500005, 1.0), "c": (0.0, 0.4999995)}) is None
    said = "domain 'b': a share of 0.25 is outside its bounds 0.3 to 1"
    assert why_not(bounds={"b": (0.3, 1.0)}) == said


def limited(allowed, **options):
    """A sampler of batches of 100 that has so many rows of the first domain."""
    return sampler(batch_size=100, max_epochs={"a": allowed / 1000}, **options)


def test_a_domain_may_be_drawn_two_samples_beyond_what_is_left_and_a_stream_must_reach_the_step():
    def said(share, first, allowed):
        weights = [share, 0.5, 0.5 - share]
        return why_not(weights, steps=1, first=first, order=limited(allowed))

    few = "domain 'a': it takes 42 samples, but only 40 are left (max_epochs)"
    assert (said(0.419, 1, 40), said(0.421, 1, 40)) == (None, few)
    assert (said(0.419, 2, 90), said(0.421, 2, 90)) == (None, few)  # 50 are drawn by a step
    order = limited(40, exhausted="stop")
    assert len(order) == 0
    assert why_not(steps=1, first=2, order=order) == "the stream ends before batch 1"


@settings(max_examples=50)
@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_rounded_shares_are_a_mixture_within_the_bounds_and_near(domains, seed, bounded):
    random = np.random.default_rng(seed)
    weights = random.dirichlet(np.ones(domains))
    room = random.uniform(0, 0.5, domains) if bounded else np.ones(domains)
    lower, upper = np.maximum(weights - room, 0), np.minimum(weights + room, 1)
    shares = rounded_shares(weights, np.full(domains, 1 / domains), lower, upper)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    assert (shares >= lower - 1e-9).all()
    assert (shares <= upper + 1e-9).all()
    assert np.abs(shares - weights).max() < 2e-4
    noise = 1e-12 * np.where(np.arange(domains) % 2, 1, -1)
    shifted = rounded_shares(
        weights + noise - noise.mean(), np.full(domains, 1 / domains), lower, upper
    )
    assert shifted.tolist() == shares.tolist(), "other ranks, other last digits"


def test_rounding_hides_the_last_digits_and_keeps_small_domains():
    even, noise = np.full(3, 1 / 3), np.array([-1e-8, 2e-8, -1e-8])
    none, all_ = np.zeros(3), np.ones(3)
    assert rounded_shares(even, even, none, all_).tolist() == [0.3334, 0.3333, 0.3333]
    assert rounded_shares(even + noise, even, none, all_).tolist() == [0.3334, 0.3333, 0.3333]
    small = np.array([2e-5, 0.5, 0.5 - 2e-5])
    assert rounded_shares(small, small, none, all_)[0] == pytest.approx(2e-5)
    half = np.array([0.5, 0.5, 0.0])  # a share of 0 asks for no finer unit
    thirds = np.array([1 / 3, 2 / 3, 0])
    assert rounded_shares(thirds, half, none, all_).tolist() == [0.3333, 0.6667, 0]
    third = rounded_shares(even, even, even, even)  # no multiple is within such bounds
    assert np.abs(third - 1 / 3).max() <= 1e-9
