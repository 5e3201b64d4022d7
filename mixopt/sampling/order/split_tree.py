"""Split a stream of positions among domains exactly, with random access.

The shares are the leaves of a binary tree. Of the first m items that reach a node of weight w,
its heavier child (weight a) takes floor((a m + phase) / w) and the other the rest: a two-way
split whose error is at most half an item. A child passes on its part of its parent's error, so in
a Huffman tree, where an internal child has at most two thirds of its parent, a leaf is off by less
than 2 at every prefix. What domains are owed from before a change of weights is put into the
phases; where it is more than half an item it is paid at once (the split is clamped to [0, m]).

Huffman trees for fair sequences are folklore; the phases that carry what is owed, and the choice
of siblings whose debts cancel, are ours.

Everything is an integer. Shapes: D domains, N nodes; leaves come first, the root is last.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mixopt.sampling.order.shares import UNIT
from mixopt.system import IntArray

LONGEST = 1 << 16
"""Most positions of one draw: a share times a position stays below 2^63."""

Places = tuple[int, IntArray]

_SIBLINGS = 6
_BOUND_UNIT = 1 << 20


class Split(NamedTuple):
    """An internal node: its children, the heavier one's weight, its own weight and its phase."""

    heavy: int
    light: int
    part: int
    whole: int
    phase: int


class SplitTree:
    """Which domain each position of a segment goes to, for shares that do not change."""

    __slots__ = ("_leaf", "_parent", "_splits", "domains")

    longest = LONGEST

    def __init__(self, shares_D: Sequence[int], owed_D: Sequence[int]) -> None:
        """Build the tree.

        Args:
            shares_D: Integers >= 0 that add up to UNIT; a domain with 0 is never drawn.
            owed_D: What each domain is owed (its integral less its count), in samples / UNIT.
                What they are owed together is expected beyond the positions dealt out.
        """
        self.domains = [d for d, share in enumerate(shares_D) if share]
        shares = [shares_D[d] for d in self.domains]
        owed = [owed_D[d] for d in self.domains]
        self._leaf = {d: node for node, d in enumerate(self.domains)}
        self._splits = _splits(shares, owed)
        self._parent = {
            child: (len(shares) + k, child == split.heavy)
            for k, split in enumerate(self._splits)
            for child in (split.heavy, split.light)
        }

    def counts(self, items: int) -> list[int]:
        """Count the first `items` positions by active domain, in the order of `domains`."""
        leaves = len(self.domains)
        at = [0] * (leaves + len(self._splits))
        at[-1] = items
        for node in range(len(at) - 1, leaves - 1, -1):
            heavy, light, part, whole, phase = self._splits[node - leaves]
            here = at[node]
            taken = min(max((part * here + phase) // whole, 0), here)
            at[heavy], at[light] = taken, here - taken
        return at[:leaves]

    def draw(self, start: int, length: int) -> tuple[IntArray, IntArray]:
        """Return the domain of each position, and how many of that domain came before it.

        Args:
            start: First position, from the start of the segment.
            length: Positions, at most LONGEST.

        Returns:
            Domains and ordinals within the segment, each of shape (length,).
        """
        domain = np.empty(length, np.int64)
        ordinal = np.empty(length, np.int64)
        steps = np.arange(length + 1, dtype=np.int64)
        for d, (before, where) in self.places(start, steps[:-1], steps).items():
            domain[where] = d
            ordinal[where] = steps[: len(where)] + before
        return domain, ordinal

    def places(self, start: int, where: IntArray, steps: IntArray) -> dict[int, Places]:
        """Hand out some positions, from the `start`th of the segment on.

        Args:
            start: How many positions of the segment came before.
            where: The positions, at most LONGEST.
            steps: 0, 1, 2 ..., longer than `where`.

        Returns:
            How often each domain was drawn before, and its positions; domains without any are
            left out.
        """
        leaves = len(self.domains)
        waiting = {leaves + len(self._splits) - 1: (start, where)} if len(where) else {}
        for node in range(leaves + len(self._splits) - 1, leaves - 1, -1):
            if node in waiting:
                _send_down(self._splits[node - leaves], *waiting.pop(node), steps, waiting)
        return {self.domains[node]: places for node, places in waiting.items()}

    def position(self, domain: int, count: int) -> int:
        """Return after how many positions an active domain has been drawn `count` >= 1 times."""
        node, items = self._leaf[domain], count
        while node in self._parent:
            node, is_heavy = self._parent[node]
            _, _, part, whole, phase = self._splits[node - len(self.domains)]
            if is_heavy:
                needed = -((phase - items * whole) // part)
            else:
                needed = ((items - 1) * whole + phase) // (whole - part) + 1
            items = max(items, needed)
        return items

    def first_full(self, limits: dict[int, int]) -> int | None:
        """Return after how many positions the first domain has been drawn as often as it may.

        Args:
            limits: How often an active domain may be drawn, >= 1.
        """
        return min((self.position(d, limit) for d, limit in limits.items()), default=None)


def _send_down(
    split: Split,
    before: int,
    where: IntArray,
    steps: IntArray,
    waiting: dict[int, Places],
) -> None:
    """Divide the positions that reach a node between its children."""
    heavy, light, part, whole, phase = split
    quotient, rest = divmod(part * before + phase, whole)
    base = min(max(quotient, 0), before)
    taken = (steps[: len(where) + 1] * part + rest) // whole
    if quotient != base:
        taken = np.minimum(np.maximum(taken + quotient, 0), steps[: len(where) + 1] + before)
    to_heavy = taken[1:] != taken[:-1]
    first = where[to_heavy]
    if len(first):
        waiting[heavy] = (base, first)
    if len(first) < len(where):
        waiting[light] = (before - base, where[~to_heavy])


def _splits(shares: list[int], owed: list[int]) -> list[Split]:
    if any(owed):
        pairs = _paired(shares, owed, _SIBLINGS)
        if _bound(pairs, shares) < 2 * _BOUND_UNIT:
            return _phased(pairs, shares, owed)
    return _phased(_paired(shares, owed, 1), shares, owed)


def _paired(shares: list[int], owed: list[int], siblings: int) -> list[tuple[int, int]]:
    """Merge the lightest node with one of the next lightest until one is left.

    Among the next `siblings` that weigh at most half more than the lightest of them, the one
    whose debt cancels best is taken, so that groups of domains are owed little. With one sibling
    this is Huffman's tree.
    """
    weight, debt = list(shares), list(owed)
    line = sorted((-w, node) for node, w in enumerate(weight))
    pairs = []
    while len(line) > 1:
        lightest = line.pop()[1]
        chosen = _sibling(line, debt, debt[lightest], siblings)
        other = line.pop(chosen)[1]
        pairs.append((lightest, other))
        weight.append(weight[lightest] + weight[other])
        debt.append(debt[lightest] + debt[other])
        insort(line, (-weight[-1], len(weight) - 1))
    return pairs


def _sibling(line: list[tuple[int, int]], debt: list[int], own: int, siblings: int) -> int:
    last = len(line) - 1
    if siblings == 1:
        return last
    most = line[-1][0] * 3 // 2
    best, best_debt = last, abs(own + debt[line[-1][1]])
    for k in range(last - 1, max(last - siblings, -1), -1):
        if line[k][0] < most:
            break
        left = abs(own + debt[line[k][1]])
        if left < best_debt:
            best, best_debt = k, left
    return best


def _weights(pairs: list[tuple[int, int]], shares: list[int]) -> list[int]:
    weight = list(shares)
    for one, other in pairs:
        weight.append(weight[one] + weight[other])
    return weight


def _bound(pairs: list[tuple[int, int]], shares: list[int]) -> int:
    """Bound the error of a leaf at any prefix, in samples times _BOUND_UNIT."""
    weight = _weights(pairs, shares)
    error = [0] * len(weight)
    for k in range(len(pairs) - 1, -1, -1):
        node = len(shares) + k
        for child in pairs[k]:
            inherited = error[node] * weight[child] // weight[node]
            error[child] = inherited + _BOUND_UNIT // 2 + 1
    return max(error[: len(shares)])


def _phased(pairs: list[tuple[int, int]], shares: list[int], owed: list[int]) -> list[Split]:
    weight = _weights(pairs, shares)
    debt = _weights(pairs, owed)
    splits = []
    for k, (one, other) in enumerate(pairs):
        node = len(shares) + k
        heavy, light = (one, other) if weight[one] > weight[other] else (other, one)
        part, whole = weight[heavy], weight[node]
        carried = (debt[heavy] * whole - part * debt[node]) // UNIT
        splits.append(Split(heavy, light, part, whole, whole // 2 + carried))
    return splits
