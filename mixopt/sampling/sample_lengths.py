"""Lengths of samples in tokens: given beforehand, constant in a domain, or learned.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import SamplerError, did_you_mean
from mixopt.system import IntArray, shown_value

Unit = Literal["samples", "tokens", "supervised"]
UNITS: tuple[Unit, ...] = ("samples", "tokens", "supervised")
MOST_LENGTH = 1 << 40  # tokens of a sample

Lengths = Mapping[str, "int | ArrayLike | None"]


class SampleLengths:
    """Tokens of each sample of each domain, in the unit that shares are of."""

    def __init__(self, sizes: Mapping[str, int], lengths: Lengths | None) -> None:
        """Check what is given.

        Args:
            sizes: Rows of each domain.
            lengths: For each domain the tokens of each row, shape (rows,), or one number for all;
                None, or a domain that is left out, where they are learned.

        Raises:
            SamplerError: An unknown domain, as many numbers as it has not rows, a number that is
                not whole or negative, or a domain of which no sample has a token.
        """
        given = dict(lengths or {})
        for name in given:
            if name not in sizes:
                raise SamplerError(f"lengths: unknown domain {name!r}{did_you_mean(name, sizes)}")
        self._each_D = [_checked(name, given.get(name), rows) for name, rows in sizes.items()]
        self._names = tuple(sizes)

    @property
    def are_known(self) -> bool:
        """Whether no domain's lengths have to be learned."""
        return all(each is not None for each in self._each_D)

    @cached_property
    def sums(self) -> tuple[int | None, ...]:
        """Tokens of all rows of each domain; one row's where all are alike; None where learned."""
        return tuple(
            None if each is None else int(np.sum(each, dtype=np.int64)) for each in self._each_D
        )

    def alike(self, domain: int) -> int | None:
        """Return the length of a domain whose samples all have one, else None."""
        each = self._each_D[domain]
        return each if isinstance(each, int) else None

    def is_known(self, domain: int) -> bool:
        """Whether a domain's lengths were given."""
        return self._each_D[domain] is not None

    def of(self, domain: int, rows: IntArray) -> list[int]:
        """Return the tokens of some rows of a domain whose lengths were given."""
        each = self._each_D[domain]
        if isinstance(each, int):
            return [each] * len(rows)
        assert each is not None, self._names[domain]
        picked: list[int] = each[rows].tolist()
        return picked


def guessed_lengths(counts_D: Sequence[int], tokens_D: Sequence[int]) -> list[int]:
    """Guess the next sample of each domain: its mean so far, else that of all, else one token."""
    count, tokens = sum(counts_D), sum(tokens_D)
    of_all = max(1, round(tokens / count)) if count else 1
    return [
        max(1, round(had / drawn)) if drawn else of_all
        for drawn, had in zip(counts_D, tokens_D, strict=True)
    ]


def checked_unit(unit: str) -> Unit:
    """Return the unit of shares.

    Raises:
        SamplerError: It is none.
    """
    for known in UNITS:
        if unit == known:
            return known
    raise SamplerError(f"unit={unit!r}{did_you_mean(unit, UNITS)}")


def _checked(name: str, given: Any, rows: int) -> int | IntArray | None:
    if given is None:
        return None
    if isinstance(given, (int, np.integer)) and not isinstance(given, bool):
        return _one(name, int(given), rows)
    array = np.asarray(given)
    if array.ndim != 1 or len(array) != rows:
        shape = "x".join(map(str, array.shape)) or "no list"
        raise SamplerError(f"lengths: domain {name!r}: {shape} of its {rows} rows")
    if rows and array.dtype.kind not in "iu":
        raise SamplerError(f"lengths: domain {name!r}: {array.dtype} are not whole numbers")
    if rows:
        _check_range(name, array)
    return array


def _one(name: str, length: int, rows: int) -> int:
    if not 0 < length <= MOST_LENGTH and rows:
        raise SamplerError(
            f"lengths: domain {name!r}: {shown_value(length)} is not from 1 to {MOST_LENGTH}"
        )
    return length


def _check_range(name: str, array: IntArray) -> None:
    for extreme in (int(array.argmin()), int(array.argmax())):
        if not 0 <= int(array[extreme]) <= MOST_LENGTH:
            raise SamplerError(
                f"lengths: domain {name!r}: row {extreme}: {int(array[extreme])} is not from 0 to"
                f" {MOST_LENGTH}"
            )
    if not array.any():
        raise SamplerError(f"lengths: domain {name!r}: no row has a token; leave the domain out")
