"""Describe an objective in few words: a few losses by name, many by their common prefix.

`the mean of 110 losses: 57 of mmlu_*, 17 of mt_*, 7 of basic_*, 7 of minerva_* and 22 more` is a
line that fits a title; the names themselves are in fit.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

FEW = 8  # names that are written one by one
GROUPS = 4  # beginnings of names, or families, that are written
LEAST = 3  # names that make a group
ROUNDING = 1e-9


def listed(names: Iterable[str]) -> str:
    """Write names one by one: `a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def grouped_names(names: Sequence[str]) -> str:
    """Write a few names one by one, and many by what they begin with: `57 of mmlu_*, ...`."""
    if len(names) <= FEW:
        return listed(names)
    parts, left = [], len(names)
    for beginning, count in _beginnings(names):
        parts.append(f"{count} of {beginning}*")
        left -= count
    if not parts:
        parts, left = list(names[:GROUPS]), len(names) - GROUPS
    return listed([*parts, f"{left} more"] if left else parts)


def mean_in_words(weights: Mapping[str, float], families: Mapping[str, Sequence[str]]) -> str:
    """Write what a weighted mean is of.

    Args:
        weights: Weight of each name, adding up to 1; a name may be written with its sign.
        families: Names by family, for a mean of means; none for a plain one.
    """
    if families:
        return _of_families(weights, families)
    names = list(weights)
    equal = max(weights.values()) - min(weights.values()) <= ROUNDING
    if len(names) <= FEW:
        return listed(names if equal else [f"{w:.3g} {name}" for name, w in weights.items()])
    uneven = "" if equal else ", with different weights"
    return f"{len(names)} losses{uneven}: {grouped_names(names)}"


def _of_families(weights: Mapping[str, float], families: Mapping[str, Sequence[str]]) -> str:
    shares = {family: sum(weights[n] for n in members) for family, members in families.items()}
    equal = max(shares.values()) - min(shares.values()) <= ROUNDING
    parts = []
    for family, members in families.items():
        share = "" if equal else f"{shares[family]:.3g} "
        one = "loss" if len(members) == 1 else "losses"
        parts.append(f"{share}{family} ({len(members)} {one})")
    shown = parts if len(parts) <= FEW else [*parts[:GROUPS], f"{len(parts) - GROUPS} more"]
    return f"{len(parts)} {'family' if len(parts) == 1 else 'families'}: {listed(shown)}"


def _beginnings(names: Sequence[str]) -> list[tuple[str, int]]:
    """Return what many names begin with, up to the first mark, the most frequent first."""
    counts: dict[str, int] = {}
    for name in names:
        found = re.match(r"[^\W_]+[\W_]", name)
        if found:
            counts[found[0]] = counts.get(found[0], 0) + 1
    often = [(beginning, count) for beginning, count in counts.items() if count >= LEAST]
    return sorted(often, key=lambda pair: (-pair[1], pair[0]))[:GROUPS]
