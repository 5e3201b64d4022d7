"""Checks of the options of estimators; each error is one line that names the option."""

from __future__ import annotations

import math
from numbers import Real

from mixopt.errors import EstimatorError


def check_number(
    option: str, value: object, *, least: float = -math.inf, most: float = math.inf
) -> None:
    """Check that an option is a finite number in a range.

    Args:
        option: Estimator and option, for the message: `aioli: eta`.
        value: What was given.
        least: The smallest that it may be.
        most: The largest.

    Raises:
        EstimatorError: It is not.
    """
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and least <= value <= most):  # type: ignore[operator]
        raise EstimatorError(f"{option}: {value!r}; it takes a number{_range(least, most)}")


def check_whole(option: str, value: object, *, least: int) -> None:
    """Check that an option is a whole number, `least` or more.

    Raises:
        EstimatorError: It is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise EstimatorError(f"{option}: {value!r}; it takes a whole number >= {least}")


def check_flag(option: str, value: object) -> None:
    """Check that an option is true or false.

    Raises:
        EstimatorError: It is not.
    """
    if not isinstance(value, bool):
        raise EstimatorError(f"{option}: {value!r}; it takes true or false")


def _range(least: float, most: float) -> str:
    if math.isinf(least):
        return ""
    return f" >= {least:g}" if math.isinf(most) else f" from {least:g} to {most:g}"
