"""Held-out losses: means, errors and tokens of what `evaluate` returns, and what it must not."""

from __future__ import annotations

import math

import pytest

from mixopt.errors import EstimatorError
from mixopt.online import UNIT, held_out_losses


def test_losses_are_means_in_the_order_of_the_names():
    found = {"b": (9.0, 2), "a": (6.0, 4), "unasked": (1.0, 1)}
    held_out = held_out_losses(lambda: found, ["a", "b"])
    assert held_out.losses_M.tolist() == [1.5, 4.5]
    assert held_out.tokens == 6


def test_a_standard_error_comes_from_the_squares():
    held_out = held_out_losses(lambda: {"a": (6.0, 4, 10.0)}, ["a"])
    assert held_out.errors_M.tolist() == [0.25]  # sqrt((10/4 - 1.5**2) / 4)


def test_without_squares_the_error_is_0():
    assert held_out_losses(lambda: {"a": (6.0, 4)}, ["a"]).errors_M.tolist() == [0]


def test_a_domain_of_one_token_is_enough():
    held_out = held_out_losses(lambda: {"a": (2.0, 1)}, ["a"])
    assert (held_out.losses_M.tolist(), held_out.tokens) == ([2], 1)


def test_losses_are_rounded_to_the_unit():
    held_out = held_out_losses(lambda: {"a": (0.1, 1)}, ["a"])
    assert held_out.losses_M.tolist() == [round(0.1 * UNIT) / UNIT]


@pytest.mark.parametrize("found", [{"a": (1.0, 1)}, {"a": (1.0, 1), "b": (1.0, 0)}])
def test_a_domain_without_tokens_is_an_error_that_names_it(found):
    with pytest.raises(EstimatorError, match=r"evaluation domain 'b' has no held-out tokens"):
        held_out_losses(lambda: found, ["a", "b"])


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 2.0**42, -(2.0**42)])
def test_a_loss_that_is_not_finite_or_too_large_is_said(loss):
    found = {"a": (1.0, 1), "b": (loss, 1)}
    assert held_out_losses(lambda: found, ["a", "b"]) == "held-out loss of 'b' is not finite"


def test_squares_that_are_not_finite_are_said():
    found = {"a": (1.0, 1, math.nan), "b": (1.0, 1)}
    assert held_out_losses(lambda: found, ["a", "b"]) == "held-out loss of 'a' is not finite"


def test_a_loss_that_is_just_small_enough_is_kept():
    held_out = held_out_losses(lambda: {"a": (2.0**42 - 1, 1)}, ["a"])
    assert held_out.losses_M.tolist() == [2.0**42 - 1]
