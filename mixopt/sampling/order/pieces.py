"""The pieces of a plan: stretches of positions in which shares do not change.

Shapes: D domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mixopt.sampling.order.shares import UNIT, whole_shares
from mixopt.system import IntArray


class ShareChange(NamedTuple):
    """Shares of the samples (mixopt.sampling.order.shares), shape (D,), from a position on."""

    position: int
    shares: tuple[int, ...]


class Exhausted(NamedTuple):
    """A domain that was drawn as often as it may be, from a position on."""

    position: int
    domain: int


class Origin(NamedTuple):
    """Where an order goes on, shape (D,): how often each domain was drawn, and what it is owed.

    That is in samples / UNIT, or in tokens / UNIT where tokens are owed; `tokens_D` is then how
    many each domain has had.
    """

    position: int
    counts_D: tuple[int, ...]
    owed_D: tuple[int, ...]
    tokens_D: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Piece:
    """Positions [start, stop) with shares that do not change.

    Attributes:
        start: First position.
        stop: Position after the last; None for no end.
        asked: Shares that were set.
        shares_D: The same without the domains that ran out: what the integral is of.
        awake_D: The same without the domains that sleep: what is drawn.
        counts_D: How often each domain was drawn before `start`.
        owed_D: What each is owed at `start`, in samples / UNIT.
        length: How long domains sleep at most, in positions.
    """

    start: int
    stop: int | None
    asked: tuple[int, ...]
    shares_D: IntArray
    awake_D: IntArray
    counts_D: IntArray
    owed_D: IntArray
    length: int


def owed_after(piece: Piece, drawn_D: IntArray, length: int) -> IntArray:
    """What is owed after `length` positions; whole numbers of any size on the way."""
    owed = [
        before + share * length - UNIT * count
        for before, share, count in zip(
            piece.owed_D.tolist(), piece.shares_D.tolist(), drawn_D.tolist(), strict=True
        )
    ]
    return np.array(owed, np.int64)


def awake_shares(shares: list[int], owed: list[int], length: int) -> list[int]:
    """Put to sleep the domains that need no sample for `length` positions after a change.

    Those that stay ahead of their integral, and those of next to no share that are owed less than
    three quarters of a sample. In one tree with the others they would pass their debts on to them.
    """
    if not any(owed):
        return shares
    kept = [
        0 if share and _can_sleep(share * length, debt) else share
        for share, debt in zip(shares, owed, strict=True)
    ]
    return whole_shares(kept) if any(kept) and kept != shares else shares


def _can_sleep(coming: int, debt: int) -> bool:
    stays_ahead = debt < 0 and debt + coming < 0
    is_idle = coming * 20 < UNIT and (debt + coming) * 4 < 3 * UNIT
    return stays_ahead or is_idle
