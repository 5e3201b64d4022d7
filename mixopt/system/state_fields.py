"""Types of arrays, and the fields of a state dictionary, each checked when read; numpy alone.

A state comes from a checkpoint that other code wrote. A loader reads all fields before it changes
itself, so that a refused state changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixopt.errors import MixoptError
from mixopt.system.files import PlainMapping
from mixopt.system.names import shown_value

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
AnyArray = NDArray[Any]
DType = np.dtype[Any]


MAX_WHOLE = 1 << 53  # largest integers that JSON and float64 keep exactly

Value = TypeVar("Value")
Text = TypeVar("Text", bound=str)


def int_array(values: Any) -> IntArray:
    """Return values as an array of 64-bit integers."""
    return np.asarray(values, np.int64)


class StateFields:
    """A mapping with checked access by name; errors name the field."""

    def __init__(self, content: object, where: str, error: Callable[[str], MixoptError]) -> None:
        """Wrap a mapping; `error` creates the exception from a line."""
        self.where, self.error = where, error
        if not isinstance(content, Mapping):
            raise error(f"{where}: {shown_value(content)} is not a mapping")
        if not all(isinstance(name, str) for name in content):
            raise error(f"{where}: its keys must be names")
        self.content: PlainMapping = content

    def refuse(self, name: str, fault: str) -> NoReturn:
        """Raise the error for a field with a wrong value."""
        raise self._fault(name, self.get(name), fault)

    def check_format(self, expected: str) -> None:
        """Check the field `format`."""
        recorded = self.content.get("format", "")
        if recorded != expected:
            fault = "it has no format" if recorded == "" else f"format {shown_value(recorded)}"
            raise self.error(f"{self.where} is not a state of format {expected!r}: {fault}")

    def get(self, name: str) -> Any:
        """Return a field unchecked."""
        if name not in self.content:
            raise self.error(f"{self.where}: {name}: is missing")
        return self.content[name]

    def maybe(self, name: str, take: Callable[[str], Value]) -> Value | None:
        """Return a field read by `take`, or None if it is None."""
        return None if self.get(name) is None else take(name)

    def whole(self, name: str, minimum: int = 0, maximum: int = MAX_WHOLE) -> int:
        """Return an integer in [minimum, maximum]."""
        return self._whole(name, self.get(name), minimum, maximum)

    def number(self, name: str, minimum: float = -math.inf) -> float:
        """Return a finite number >= minimum."""
        return self._number(name, self.get(name), minimum, math.inf)

    def flag(self, name: str) -> bool:
        """Return a bool."""
        return bool(self._of(name, (bool, np.bool_), "neither true nor false"))

    def text(self, name: str) -> str:
        """Return text."""
        value: str = self._of(name, str, "not text")
        return value

    def one_of(self, name: str, choices: Collection[Text]) -> Text:
        """Return one of the choices."""
        value = self.text(name)
        for choice in choices:
            if choice == value:
                return choice
        raise self._fault(name, value, f"not one of {', '.join(choices)}")

    def part(self, name: str) -> StateFields:
        """Return the fields of a nested mapping."""
        return StateFields(self.get(name), f"{self.where}: {name}", self.error)

    def listed(self, name: str, length: int | None = None) -> list[Any]:
        """Return a list, of a given length if any."""
        value = self._of(name, (list, tuple), "not a list")
        if length is not None and len(value) != length:
            raise self.error(f"{self.where}: {name}: has {len(value)} values, not {length}")
        return list(value)

    def parts(self, name: str) -> list[StateFields]:
        """Return the fields of each mapping of a list."""
        return [
            StateFields(part, f"{self.where}: {name}.{k}", self.error)
            for k, part in enumerate(self.listed(name))
        ]

    def texts(self, name: str) -> list[str]:
        """Return a list of texts."""
        values = self.listed(name)
        if not all(isinstance(value, str) for value in values):
            self.refuse(name, "not a list of names")
        return values

    def wholes(
        self, name: str, length: int | None = None, minimum: int = 0, maximum: int = MAX_WHOLE
    ) -> list[int]:
        """Return a list of integers in [minimum, maximum]."""
        values = enumerate(self.listed(name, length))
        return [self._whole(f"{name}.{k}", value, minimum, maximum) for k, value in values]

    def numbers(
        self,
        name: str,
        length: int | None = None,
        minimum: float = -math.inf,
        maximum: float = math.inf,
    ) -> list[float]:
        """Return a list of finite numbers in [minimum, maximum]."""
        values = enumerate(self.listed(name, length))
        return [self._number(f"{name}.{k}", value, minimum, maximum) for k, value in values]

    def array(
        self, name: str, shape: tuple[int, ...], minimum: float = -math.inf, kind: type = float
    ) -> Any:
        """Return an array of finite numbers >= minimum, of a given shape and kind (int, float)."""
        fault = "not an array of whole numbers" if kind is int else "not an array of numbers"
        value = self._of(name, (list, tuple, np.ndarray), fault)
        try:
            raw = np.asarray(value)
        except ValueError:  # rows of different lengths
            self.refuse(name, fault)
        allowed = "i" if kind is int else "iuf"
        if raw.size and raw.dtype.kind not in allowed:
            self.refuse(name, fault)
        if raw.shape != shape:
            raise self.error(f"{self.where}: {name}: has shape {raw.shape}, not {shape}")
        array: Array = raw.astype(kind)
        if not (np.isfinite(array) & (array >= minimum)).all():
            self.refuse(name, "not finite numbers" + _range(minimum, math.inf))
        return array

    def _of(self, name: str, kinds: Any, expected: str) -> Any:
        value = self.get(name)
        if not isinstance(value, kinds):
            self.refuse(name, expected)
        return value

    def _whole(self, place: str, value: Any, minimum: int, maximum: int) -> int:
        is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if is_whole and minimum <= value <= maximum:
            return int(value)
        raise self._fault(place, value, f"not a whole number from {minimum} to {maximum}")

    def _number(self, place: str, value: Any, minimum: float, maximum: float) -> float:
        kinds = (int, float, np.integer, np.floating)
        if isinstance(value, kinds) and not isinstance(value, bool):
            with suppress(OverflowError):
                number = float(value)
                if math.isfinite(number) and minimum <= number <= maximum:
                    return number
        raise self._fault(place, value, "not a finite number" + _range(minimum, maximum))

    def _fault(self, place: str, value: object, fault: str) -> MixoptError:
        return self.error(f"{self.where}: {place}: {shown_value(value)} is {fault}")


def _range(minimum: float, maximum: float) -> str:
    if math.isinf(maximum) and math.isinf(minimum):
        return ""
    if math.isinf(maximum):
        return f" >= {minimum:g}"
    return f" from {minimum:g} to {maximum:g}"
