"""A plan that was decided: how long it holds, how its shares are rounded, why it cannot be."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from driver_parts import START, sampler
from hypothesis import given, settings, strategies as st

from mixopt.online import DriverOptions, Plan
from mixopt.online.standing_plan import StandingPlan, StreamSteps, impossible, rounded_shares

WEIGHTS = np.array([0.25, 0.25, 0.5])
NONE, ALL = np.zeros(3), np.ones(3)


def setting_of(order=None, **options):
    options = {"steps": 40, "tokens_per_sample": 16} | options
    return DriverOptions(**options).setting(sampler() if order is None else order)


def standing(*, steps=5, held_out=False, seen=10, now=11, first=13, weights=WEIGHTS, **options):
    plan = Plan(weights, steps, "tag", held_out, perturbs=True)
    return StandingPlan.of(plan, setting_of(**options), seen, now=now, first=first)


# How long it holds ----------------------------------------------------------------------------


def test_a_plan_ends_so_many_steps_after_the_last_that_was_seen():
    assert asdict(standing()) == {
        "weights": (0.25, 0.25, 0.5),
        "first": 13,
        "last": 15,
        "until": 15,
        "why": "tag",
        "held_out": False,
        "perturbs": True,
    }


# Why it cannot be -----------------------------------------------------------------------------


def why_not(weights=WEIGHTS, steps=5, first=1, *, held_out=False, order=None, run=40, **options):
    order = sampler() if order is None else order
    lengths = options.get("tokens_per_sample", 16)
    evaluates = options.pop("evaluates", False)
    stream = StreamSteps(order, 1, lengths)
    plan = Plan(np.array(weights), steps, "tag", held_out)
    setting = setting_of(order, steps=run, **options)
    return impossible(plan, setting, stream, first, evaluates=evaluates)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"b": (0.0, 0.3)}, None),
        ({"b": (0.3, 1.0)}, "domain 'b': a share of 0.25 is outside its bounds 0.3 to 1"),
        ({"a": (0.2500005, 1.0), "c": (0.0, 0.4999995)}, None),
        ({"c": (0.0, 0.499998)}, "domain 'c': a share of 0.5 is outside its bounds 0 to 0.5"),
    ],
)
def test_a_plan_outside_the_bounds_is_not(bounds, said):
    assert why_not(bounds=bounds) == said


def limited(allowed, **options):
    """A sampler of batches of 100 that has so many rows of the first domain."""
    return sampler(batch_size=100, max_epochs={"a": allowed / 1000}, **options)


@pytest.mark.parametrize(("samples", "fits"), [(41.9, True), (42.1, False), (42.9, False)])
def test_a_domain_may_be_drawn_two_samples_beyond_what_is_left(samples, fits):
    share = samples / 100
    said = why_not([share, 0.5, 0.5 - share], steps=1, order=limited(40))
    assert said == (
        None
        if fits
        else f"domain 'a': it takes {samples:.0f} samples, but only 40 are left (max_epochs)"
    )


def test_a_stream_that_ends_before_a_step_is_said():
    order = limited(40, exhausted="stop")
    assert len(order) == 0
    assert why_not(steps=1, first=2, order=order) == "the stream ends before batch 1"


# How shares are rounded -----------------------------------------------------------------------


def shares(weights, reference=START, lower=NONE, upper=ALL):
    arrays = (np.array(one, np.float64) for one in (weights, reference, lower, upper))
    return rounded_shares(*arrays).tolist()


@pytest.mark.parametrize(
    ("least", "unit"), [(0.001, 4), (0.00099, 5), (0.0001, 5), (0.000099, 6), (1e-12, 9)]
)
def test_shares_are_finer_where_the_reference_has_small_ones(least, unit):
    reference = [least, 0.5, 0.5 - least]
    weights = [1 / 3, 1 / 3, 1 / 3]
    third = round(1 / 3, unit)
    assert shares(weights, reference)[1] == third
    assert shares(weights, reference)[0] == pytest.approx(third + 10.0**-unit, rel=1e-14)


def test_shares_keep_to_the_multiples_within_the_bounds():
    assert shares([0.25004, 0.25, 0.49996], lower=[0.25003, 0, 0]) == [0.2501, 0.25, 0.4999]
    assert shares([0.25006, 0.25, 0.49994], upper=[0.25007, 1, 1]) == [0.25, 0.25, 0.5]


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
    assert np.abs(shares - weights).max() < 1e-4 + 1e-9


def test_rounding_hides_the_last_digits_and_keeps_small_domains():
    even, noise = np.full(3, 1 / 3), np.array([-1e-8, 2e-8, -1e-8])
    none, all_ = np.zeros(3), np.ones(3)
    assert rounded_shares(even, even, none, all_).tolist() == [0.3334, 0.3333, 0.3333]
    assert rounded_shares(even + noise, even, none, all_).tolist() == [0.3334, 0.3333, 0.3333]
    small = np.array([2e-5, 0.5, 0.5 - 2e-5])
    assert rounded_shares(small, small, none, all_)[0] == pytest.approx(2e-5)
    third = rounded_shares(even, even, even, even)  # no multiple is within such bounds
    assert np.abs(third - 1 / 3).max() <= 1e-9
