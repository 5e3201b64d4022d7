"""Compare neighbours in meaning with neighbours in routing.

"Routing Manifold Alignment" (Li et al. 2025) finds that models are better where samples of similar
tasks, by a text encoder's embeddings, are routed alike, and trains for it. This measures it. In
the space of embeddings, near is a small angle; in the space of routing, a small Hellinger distance
of the shares in which a sequence falls on the experts. The alignment is the mean share of an item's
k nearest others in the one space that are among its k nearest in the other. Chance is what
permuting the embeddings among the items gives, k / (N - 1) on the mean.

Shapes: N items, X numbers of an embedding, E experts, k neighbours, P permutations.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from mixopt.errors import RoutingError
from mixopt.system import Array, IntArray, shown_value

LEAST_ITEMS = 3  # of two, each is the other's nearest
_ROWS = 512  # of distances at once


@dataclass(frozen=True)
class Alignment:
    """How well neighbours in one space are neighbours in the other.

    Attributes:
        alignment: Mean share of the k nearest items in common, 0 to 1.
        chance: Its mean over permutations.
        chance_deviation: Its standard deviation over permutations.
        p_value: Share of the permutations that reach it.
    """

    alignment: float
    chance: float
    chance_deviation: float
    p_value: float


def checked_embeddings(embeddings: Any, sizes: dict[str, int]) -> Array:
    """Return embeddings as an array of unit rows.

    Args:
        embeddings: Numbers, shape (N, X).
        sizes: What N may be, by what its rows are then of.

    Raises:
        RoutingError: They are no such array.
    """
    rows = " or ".join(f"{size} ({what})" for what, size in sizes.items())
    try:
        array_NX = np.asarray(embeddings, float)
    except (TypeError, ValueError) as error:
        raise RoutingError(
            f"embeddings: not an array of numbers; {rows} rows are needed"
        ) from error
    if array_NX.ndim != 2 or len(array_NX) not in sizes.values():
        raise RoutingError(f"embeddings of shape {array_NX.shape}: {rows} rows are needed")
    if not np.isfinite(array_NX).all():
        row = int(np.flatnonzero(~np.isfinite(array_NX).all(1))[0])
        raise RoutingError(f"embeddings: row {row} has a number that is not finite")
    return np.asarray(array_NX / np.linalg.norm(array_NX, axis=1, keepdims=True).clip(1e-12))


def check_neighbours(neighbours: int, items: int, permutations: int) -> None:
    """Check that so many neighbours can be compared.

    Args:
        neighbours: k.
        items: N, that are routed.
        permutations: P.

    Raises:
        RoutingError: They cannot, with what can.
    """
    if items < LEAST_ITEMS:
        raise RoutingError(
            f"{items} sequences or domains have experts; {LEAST_ITEMS} or more are needed to"
            " compare which are near each other"
        )
    most = items - 2
    if isinstance(neighbours, bool) or not isinstance(neighbours, Integral):
        said = shown_value(neighbours)
        raise RoutingError(f"neighbours: {said}; a whole number, 1 to {most}, is needed")
    if not 1 <= neighbours <= most:
        raise RoutingError(
            f"neighbours: {neighbours} of {items} that are compared; 1 to {most} are needed"
        )
    if isinstance(permutations, bool) or not isinstance(permutations, Integral) or permutations < 2:
        raise RoutingError(f"permutations: {shown_value(permutations)}; 2 or more are needed")


def alignment(
    routing_NE: Array, unit_NX: Array, neighbours: int, permutations: int, seed: int
) -> Alignment:
    """Return how well neighbours in embeddings are neighbours in routing.

    Args:
        routing_NE: How each item falls on the experts, rows adding up to 1.
        unit_NX: Its embedding, of length 1.
        neighbours: k, from 1 to N - 2.
        permutations: How often chance is drawn.
        seed: Of the permutations, and of the order in which items at one distance are taken.
    """
    rng = np.random.default_rng(seed)
    count = len(routing_NE)
    order_N = rng.permutation(count)
    near_Nk = _nearest(unit_NX, neighbours, order_N)
    near_NN = np.zeros((count, count), bool)
    np.put_along_axis(
        near_NN, _nearest(np.sqrt(routing_NE), neighbours, order_N), values=True, axis=1
    )
    found = _overlap(near_NN, near_Nk, np.arange(count))
    null_P = np.array(
        [_overlap(near_NN, near_Nk, rng.permutation(count)) for _ in range(permutations)]
    )
    return Alignment(
        found,
        float(null_P.mean()),
        float(null_P.std()),
        float((1 + (null_P >= found).sum()) / (1 + permutations)),
    )


def _overlap(near_NN: Any, near_Nk: IntArray, place_N: IntArray) -> float:
    """Return the share of neighbours in common where item n is at a place of the routing."""
    return float(near_NN[place_N[:, None], place_N[near_Nk]].mean())


def _nearest(points_NX: Array, neighbours: int, order_N: IntArray) -> IntArray:
    """Return each point's nearest others, those at one distance in the order given."""
    points = points_NX[order_N]
    squared_N = np.square(points).sum(1)
    near = np.empty((len(points), neighbours), np.int64)
    for begin in range(0, len(points), _ROWS):
        some = points_NX[begin : begin + _ROWS]
        distances = squared_N - 2 * some @ points.T
        # Equal points have distances that differ by rounding alone.
        distances = np.round(distances, 12)
        distances[order_N == np.arange(begin, begin + len(some))[:, None]] = np.inf
        near[begin : begin + _ROWS] = order_N[
            np.argsort(distances, axis=1, kind="stable")[:, :neighbours]
        ]
    return near
