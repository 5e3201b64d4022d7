"""LightGBM's boosters as the arrays of a plain law (mixopt.fitting.capabilities).

Trees of all targets share their cuts, since LightGBM bins each domain once: a split is the number
of its cut. Nodes come in the order split, left side, right side, so that nothing else says how they
hang together. Trees of a target that ask the same questions are one tree whose leaves are the sums
of theirs: with a small learning rate most of a thousand are. Values of leaves are in single
precision, counted from a base for each target, so that their sums are exact to about 1e-8;
thresholds are in double precision, since trials are as near to them as to each other.

Shapes: M targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Cut = tuple[int, float]
MOST_SHORT = 2**15 - 1  # cuts that two bytes can number


def plain_trees(boosters: Sequence[Any]) -> dict[str, Any]:
    """Return the trees of all boosters, one booster for each target."""
    trees = [_merged([list(_nodes(tree)) for tree in _structures(one)]) for one in boosters]
    every = [node for own in trees for tree in own for node in tree]
    cuts = sorted({node for node in every if isinstance(node, tuple)})
    number = {cut: place for place, cut in enumerate(cuts)}
    bases = [_base(own) for own in trees]
    values = [
        node - (base if first else 0.0)
        for own, base in zip(trees, bases, strict=True)
        for first, tree in zip([True, *[False] * len(own)], own, strict=False)
        for node in tree
        if not isinstance(node, tuple)
    ]
    numbers = [number[node] if isinstance(node, tuple) else -1 for node in every]
    return {
        "kind": "trees",
        "trees_M": np.array([len(own) for own in trees], dtype=np.int32),
        "bases_M": np.array(bases),
        "nodes": np.array(numbers, dtype=np.int16 if len(cuts) <= MOST_SHORT else np.int32),
        "values": np.array(values, dtype=np.float32),
        "cut_domains": np.array([domain for domain, _ in cuts], dtype=np.int16),
        "cuts": np.array([threshold for _, threshold in cuts], dtype=np.float64),
    }


def _structures(booster: Any) -> list[dict[str, Any]]:
    return [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]


def _nodes(node: dict[str, Any]) -> Iterator[Cut | float]:
    """Yield a split before its left side and that before its right side."""
    if "leaf_value" in node:
        yield float(node["leaf_value"])
        return
    yield int(node["split_feature"]), float(node["threshold"])
    yield from _nodes(node["left_child"])
    yield from _nodes(node["right_child"])


def _merged(trees: Sequence[Sequence[Cut | float]]) -> list[list[Cut | float]]:
    """Return trees with the same splits as one each, in the order in which they first come."""
    sums: dict[tuple[Cut | None, ...], list[Cut | float]] = {}
    for tree in trees:
        splits = tuple(node if isinstance(node, tuple) else None for node in tree)
        before = sums.get(splits)
        sums[splits] = list(tree) if before is None else _summed(before, tree)
    return list(sums.values())


def _summed(one: Sequence[Cut | float], other: Sequence[Cut | float]) -> list[Cut | float]:
    """Return the sum of two trees with the same splits."""
    return [
        left if isinstance(left, tuple) or isinstance(right, tuple) else left + right
        for left, right in zip(one, other, strict=True)
    ]


def _base(trees: Sequence[Sequence[Cut | float]]) -> float:
    """Return what is about the mean: LightGBM adds that of the losses to its first tree."""
    leaves = [node for tree in trees[:1] for node in tree if not isinstance(node, tuple)]
    return float(np.mean(leaves)) if leaves else 0.0
