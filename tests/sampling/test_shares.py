"""Weights become whole shares: exact, nothing lost, nothing tiny forgotten."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from mixopt.sampling.order import UNIT, whole_shares

WEIGHTS = st.lists(
    st.one_of(st.floats(1e-12, 1.0), st.just(0.0), st.floats(1e-30, 1e-12)), min_size=1, max_size=50
).filter(any)


@given(weights=WEIGHTS)
def test_shares_add_up_to_the_unit_and_keep_zeros_and_the_rest(weights):
    shares = whole_shares(weights)
    assert sum(shares) == UNIT
    assert [share > 0 for share in shares] == [weight > 0 for weight in weights]


@given(weights=st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=50))
def test_a_share_is_within_one_of_its_weight(weights):
    total = sum(map(Fraction, weights))
    for weight, share in zip(weights, whole_shares(weights), strict=True):
        assert abs(share - Fraction(weight) / total * UNIT) < 1.02


@given(weights=WEIGHTS)
def test_shares_of_shares_are_the_same(weights):
    shares = whole_shares(weights)
    assert whole_shares(shares) == shares


def test_weights_too_small_to_count_are_taken_from_the_largest():
    assert whole_shares([1.0, 1e-30, 1e-30, 1e-30]) == [UNIT - 3, 1, 1, 1]


@pytest.mark.parametrize("weights", [[1 / 3] * 3, [0.1] * 10])
def test_what_is_left_over_goes_to_the_first_of_equals(weights):
    shares = whole_shares(weights)
    assert sorted(shares, reverse=True) == shares
    assert max(shares) - min(shares) == 1
