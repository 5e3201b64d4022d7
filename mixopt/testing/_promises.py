"""Check promises of a plug-in, with one format for messages about broken promises."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixopt.system import Array


@dataclass(frozen=True)
class Promises:
    """Checks the promises of one kind of plug-in, such as `a regressor`."""

    kind: str

    def __call__(self, holds: object, promise: str, broken: object = "") -> None:
        """Raise an error with the promise and the observed behaviour unless `holds`."""
        if not holds:
            raise AssertionError(f"{self.kind} promises: {promise}. Broken: {broken}")

    def same(self, value: object, expected: object, promise: str) -> None:
        """Check that two values are equal."""
        self(value == expected, promise, f"{value}, not {expected}")

    def shape(self, values: Any, shape: tuple[int, ...], promise: str) -> Array:
        """Check the shape of values, and return them as an array."""
        self.same(np.shape(values), shape, promise)
        return np.asarray(values)

    def close(self, values: Array, expected: Array, limit: float, promise: str) -> None:
        """Check that no value differs from the expected one by more than `limit`."""
        largest = float(np.abs(np.asarray(values) - expected).max())
        self(largest <= limit, promise, f"largest difference: {largest:.3g}")

    def pair(self, answer: Any, promise: str) -> tuple[Any, Any]:
        """Check that an answer is a pair of means and deviations, and return it."""
        is_pair = isinstance(answer, tuple) and len(answer) == 2
        self(is_pair, promise, f"it returned {type(answer).__name__}")
        means, deviations = answer
        return means, deviations

    def deviations(self, values: Array, promise: str) -> None:
        """Check that all values are finite and >= 0."""
        fine = np.isfinite(values).all() and (values >= 0).all()
        self(fine, f"{promise} finite and >= 0", f"the minimum is {np.min(values)}")

    @contextmanager
    def works(self, promise: str) -> Iterator[None]:
        """Check that a block raises nothing."""
        try:
            yield
        except Exception as error:
            self._raised(promise, error)

    def refuses(self, call: Callable[[], object], error: type[Exception], promise: str) -> None:
        """Check that a call raises an error of one kind."""
        try:
            call()
        except error:
            return
        except Exception as unexpected:
            self._raised(promise, unexpected)
        else:
            self(False, promise, "it was accepted")

    def _raised(self, promise: str, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        raise AssertionError(f"{self.kind} promises: {promise}. Broken: {text}") from error
