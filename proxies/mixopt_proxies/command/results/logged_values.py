"""Values that a trainer logged, by name, whatever file they are from.

A nested mapping is flattened: `{"eval": {"web": 3.1}}` has the name `eval.web`. A list of mappings
is rows of a log, such as the `log_history` of a Hugging Face Trainer: each name in them is a
series, with the row's step and tokens where it says them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

STEPS = ("step", "_step", "steps", "global_step", "iteration", "iter", "trainer/global_step")
TOKENS = ("tokens", "tokens_seen", "consumed_tokens", "num_tokens", "total_tokens")
# What a result may say of itself, beside losses.
OF_ITSELF = ("trial", "seed", "mixture", "tokens", "parameters")
_NO_NUMBERS = frozenset({"nan", "inf", "-inf", "infinity", "-infinity"})
DEEPEST = 32  # mappings within mappings


@dataclass(frozen=True)
class LoggedPoint:
    """One value, and where in training it was logged, as far as that is said."""

    value: float
    step: float | None = None
    tokens: float | None = None


@dataclass(frozen=True)
class LoggedValues:
    """What a trainer logged.

    Attributes:
        series: Points by name, in their order.
        said: What the result says of itself (`trial`, `seed`, `mixture`, `tokens`, `parameters`).
    """

    series: dict[str, list[LoggedPoint]] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]]) -> LoggedValues:
        """Take rows of a log; of what they say of themselves, the last counts."""
        found = cls()
        for row in rows:
            found.add_row(row)
        return found

    @classmethod
    def of_mapping(cls, content: Mapping[str, Any]) -> LoggedValues:
        """Take one mapping, lists of rows within it included."""
        found = cls()
        found.add_row(content)
        return found

    def add_row(self, row: Mapping[str, Any], prefix: str = "", *, deep: int = 0) -> None:
        """Add one row of a log, or a whole mapping."""
        step, tokens = (_first_number(row, names) for names in (STEPS, TOKENS))
        if not prefix:
            self.said.update({name: row[name] for name in OF_ITSELF if row.get(name) is not None})
        for name, value in _flat(row, prefix):
            self.add_value(name, value, step, tokens, deep=deep)

    def add_value(
        self, name: str, value: Any, step: float | None, tokens: float | None, *, deep: int = 0
    ) -> None:
        """Add one value; a list is a series of its own, and what is not a number is left out."""
        if isinstance(value, list):
            for one in value if deep < DEEPEST else []:
                if isinstance(one, Mapping):
                    self.add_row(one, f"{name}.", deep=deep + 1)
                else:
                    self.add_value(name, one, None, None, deep=DEEPEST)
        elif (number := number_of(value)) is not None:
            self.series.setdefault(name, []).append(LoggedPoint(number, step, tokens))


def number_of(value: Any) -> float | None:
    """Return a value as a number, NaN and infinities included; None where it is none."""
    if isinstance(value, str):
        return float(value) if value.strip().lower() in _NO_NUMBERS else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf


def _first_number(row: Mapping[str, Any], names: Iterable[str]) -> float | None:
    """Return the first of some numbers that a row has and that is finite."""
    found = (number_of(row.get(name)) for name in names)
    return next((one for one in found if one is not None and math.isfinite(one)), None)


def _flat(row: Mapping[str, Any], prefix: str, deep: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.", deep + 1) if deep < DEEPEST else ()
        else:
            yield name, value
