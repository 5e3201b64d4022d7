"""check_convex_limit names the promise that each of these breaks."""

import numpy as np
import pytest

from mixopt.constraints import ConvexLimit, KLRadius, TotalVariationRadius
from mixopt.testing import check_convex_limit


class Square(ConvexLimit):
    """The sum of squares, at most one half."""

    def __init__(self, natural, upper=0.5):
        self.upper = upper
        self.domains = len(natural)

    def value(self, weights_ND):
        return (weights_ND**2).sum(axis=1)

    def gradient(self, weights_D):
        return 2 * weights_D

    def describe(self):
        return f"sum of squares <= {self.upper:g}"


@pytest.mark.parametrize(
    "make",
    [
        Square,
        lambda natural: Square(natural, 0.25),
        lambda natural: KLRadius(natural, "natural", 0.1),
        lambda natural: TotalVariationRadius(natural, "natural", 0.1),
    ],
)
def test_a_convex_limit_that_keeps_its_promises_passes(make):
    check_convex_limit(make)


# Broken ones ----------------------------------------------------------------------------------


class Endless(Square):
    upper = np.inf

    def __init__(self, natural):
        pass


class OneNumber(Square):
    def value(self, weights_ND):
        return float((weights_ND**2).sum())


class Undefined(Square):
    def value(self, weights_ND):
        return np.where(weights_ND[:, 0] < 0.5, np.nan, 0.0)


class Overwriting(Square):
    def value(self, weights_ND):
        weights_ND **= 2
        return weights_ND.sum(axis=1)


class OfAllRows(Square):
    def value(self, weights_ND):
        return super().value(weights_ND - weights_ND.mean(axis=0))


class BrokenByRounding(Square):
    def value(self, weights_ND):
        return np.where((weights_ND < 0).any(axis=1), 9.0, super().value(weights_ND))


class Hollow(Square):
    def value(self, weights_ND):
        return -super().value(weights_ND)


class Infinite(Square):
    def gradient(self, weights_D):
        return np.where(weights_D > 0, 2 * weights_D, -np.inf)


class Uphill(Square):
    def gradient(self, weights_D):
        return -2 * weights_D


class Narrow(Square):
    def upper_bounds(self, upper_D):
        return np.minimum(upper_D, 0.3)


class Loose(TotalVariationRadius):
    @property
    def linear_form(self):
        form = super().linear_form
        return form._replace(per_value_R=2 * form.per_value_R)


class TwoLines(Square):
    def describe(self):
        return "sum of squares\nat most a half"


class Silent(Square):
    def violation(self, weights_D):
        return None


class Wordy(Square):
    def hint(self, value):
        return value


@pytest.mark.parametrize(
    ("make", "promise"),
    [
        (lambda: None, "it is created with the natural mixture"),
        (lambda natural: natural, "derived from mixopt.constraints.ConvexLimit"),
        (Endless, "upper is a finite number"),
        (OneNumber, "value returns a number for each mixture"),
        (Undefined, "none of which is nan"),
        (Overwriting, "value does not change its argument"),
        (OfAllRows, "does not depend on the other rows"),
        (BrokenByRounding, "below 0 by rounding counts as 0"),
        (Hollow, "value is convex"),
        (Infinite, "a finite slope for each domain"),
        (Uphill, "gradient is that of value"),
        (lambda natural: Square(natural, 0.24), "some mixture meets it"),
        (Narrow, "upper_bounds excludes no mixture"),
        (lambda natural: Loose(natural, "natural", 0.1), "linear_form holds up to the value"),
        (TwoLines, "describe returns one line"),
        (Silent, "violation returns one line"),
        (Wordy, "hint returns one line or None"),
    ],
)
def test_a_broken_promise_is_named(make, promise):
    with pytest.raises(AssertionError, match=promise):
        check_convex_limit(make)
