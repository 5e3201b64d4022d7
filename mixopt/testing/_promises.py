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

    def array(self, values: Any, shape: tuple[int, ...], promise: str) -> Array:
        """Return values as an array; check its shape, and that all are finite."""
        array = np.asarray(values)
        self.same(array.shape, shape, promise)
        self(np.isfinite(array).all(), f"{promise}, all finite", array)
        return array

    def close(self, values: Any, expected: Array, limit: float, promise: str) -> None:
        """Check that no value differs from the expected one by more than `limit`."""
        largest = float(np.abs(self.array(values, expected.shape, promise) - expected).max())
        self(largest <= limit, promise, f"largest difference: {largest:.3g}")

    @contextmanager
    def works(self, promise: str) -> Iterator[None]:
        """Check that a block raises nothing."""
        try:
            yield
        except Exception as error:  # which the raised error has as its context
            self(False, promise, f"{type(error).__name__}: {error}")

    def refuses(self, call: Callable[[], object], error: type[Exception], promise: str) -> None:
        """Check that a call raises an error of one kind."""
        with self.works(promise):
            try:
                call()
            except error:
                return
        self(False, promise, "it was accepted")
