"""The capped simplex: weights that add up to 1, each between a lower and an upper bound.

Two maps onto it. `project` finds the nearest point of the set. `from_cube` maps the unit cube onto
the set, one to one, so that the uniform distribution on the cube becomes the uniform distribution
on the set: evenly spread points of the cube (scrambled Sobol points) give evenly spread mixtures,
and none is rejected however tight the bounds are.

`from_cube` breaks a stick into pieces of limited length, uniformly over all ways to do it. Pieces
x with 0 <= x_k <= room_k that add up to `content` are drawn one by one. Given the remaining length
r, the distribution function of piece k follows from the volume V of the ways to fill the rooms
after it: P(x_k <= x) is proportional to V(r) - V(r - x), where V(t) is the volume of
{0 <= x_j <= room_j for j > k, sum <= t}. Inverting it at a point of the unit interval gives x_k;
over all k this is the inverse of the Rosenblatt transform, so that uniform points give uniform
pieces.

V is computed from the last room backwards: adding a room c to V gives the integral of
V(t) - V(t - c). A grid stores its root of degree m, the number of rooms, because for rooms without
a limit V is t^m / m!: the root is a straight line, which the grid holds exactly. With limits the
grid approximates the density; limits and sum are always exact.

Shapes: N points, D domains or rooms, K = D' - 1 cube dimensions with D' nonempty rooms, G grid
points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import InfeasibleError
from mixopt.system import Array, BoolArray, IntArray

SLACK = 1e-9  # tolerance for bounds whose sum misses 1 by rounding (ten caps of 0.1)
EXACT = 1e-14  # allowed error of a weight of a point in the set
GRID = 1025  # grid points of volumes


@dataclass(frozen=True, eq=False)
class CappedSimplex:
    """The set {w: lower <= w <= upper, sum of w = 1}, never empty.

    Attributes:
        lower_D: Lower bound of each weight, >= 0.
        upper_D: Upper bound of each weight, <= 1.
    """

    lower_D: Array
    upper_D: Array

    def __post_init__(self) -> None:
        lower_D = np.array(self.lower_D, float)
        upper_D = np.array(self.upper_D, float)
        _check_bounds(lower_D, upper_D)
        upper_D = np.maximum(upper_D, lower_D)
        _make_room(lower_D, upper_D)
        for name, bound_D in (("lower_D", lower_D), ("upper_D", upper_D)):
            bound_D.flags.writeable = False
            object.__setattr__(self, name, bound_D)

    @classmethod
    def full(cls, domains: int) -> CappedSimplex:
        """Return the whole simplex of `domains` domains."""
        return cls(np.zeros(domains), np.ones(domains))

    @property
    def dimensions(self) -> int:
        """Cube dimensions of `from_cube`: the number of domains that can vary, minus one."""
        return max(int((self.upper_D > self.lower_D).sum()) - 1, 0)

    def contains(self, weights_ND: ArrayLike, *, tolerance: float = 1e-9) -> BoolArray:
        """Return for each row, shape (N,), whether it is in the set, to `tolerance` per weight."""
        weights = np.atleast_2d(np.asarray(weights_ND, float))
        above = (weights >= self.lower_D - tolerance).all(axis=1)
        below = (weights <= self.upper_D + tolerance).all(axis=1)
        adds_up: BoolArray = np.abs(weights.sum(axis=1) - 1.0) <= tolerance * self.lower_D.size
        return above & below & adds_up

    def project(self, points_ND: ArrayLike) -> Array:
        """Return the nearest point of the set to each row, in Euclidean distance."""
        points = np.asarray(points_ND, float)
        nearest_ND = self._shift(np.atleast_2d(points))
        # A second pass removes rounding errors from thresholds far from the set.
        return self._shift(nearest_ND).reshape(points.shape)

    def inside(self, points_ND: Array) -> Array:
        """Return the nearest point of the set to each row, shape (N, D); keep rows in the set."""
        near_ND = np.array(points_ND, float)
        off_N = ~self.contains(near_ND, tolerance=EXACT)
        near_ND[off_N] = self.project(near_ND[off_N])
        return near_ND

    def from_cube(self, cube_NK: ArrayLike) -> Array:
        """Map points of the unit cube onto the set; uniform points give uniform mixtures."""
        cube = np.atleast_2d(np.asarray(cube_NK, float))
        if cube.shape[1] != self.dimensions:
            raise ValueError(f"cube points of {cube.shape[1]} dimensions, not {self.dimensions}")
        rooms_D = self.upper_D - self.lower_D
        order, flipped, content, volumes = self._sticks
        shares_ND = _break_sticks(cube, rooms_D, order, content, volumes)
        filled_ND = self.upper_D - shares_ND if flipped else self.lower_D + shares_ND
        return self._shift(filled_ND)

    @cached_property
    def _sticks(self) -> tuple[IntArray, bool, float, list[_Volume]]:
        """Rooms from the largest, whether the stick is the unused room, its length, volumes."""
        rooms_D = self.upper_D - self.lower_D
        fill = 1.0 - self.lower_D.sum()
        # If more than half of the room is used, the unused room has the simpler shape.
        flipped = bool(fill > rooms_D.sum() / 2)
        if flipped:
            fill = rooms_D.sum() - fill
        content = max(float(fill), 0.0)
        order = np.argsort(-rooms_D, kind="stable")[: int((rooms_D > 0).sum())]
        return order, flipped, content, _volumes(rooms_D[order], content)

    def _shift(self, points_ND: Array) -> Array:
        """Shift each row, clip it to the bounds; the shift makes it add up to 1."""
        thresholds_NT = np.concatenate([points_ND - self.upper_D, points_ND - self.lower_D], axis=1)
        domains = self.lower_D.size
        order_NT = np.argsort(thresholds_NT, axis=1, kind="stable")
        thresholds_NT = np.take_along_axis(thresholds_NT, order_NT, axis=1)
        moving_NT = np.cumsum(np.where(order_NT < domains, 1, -1), axis=1)
        falls_NT = np.cumsum(moving_NT[:, :-1] * np.diff(thresholds_NT, axis=1), axis=1)
        sums_NT = self.upper_D.sum() - np.pad(falls_NT, ((0, 0), (1, 0)))
        last_N1 = np.maximum((sums_NT >= 1.0).sum(axis=1, keepdims=True) - 1, 0)
        excess_N1 = np.take_along_axis(sums_NT, last_N1, axis=1) - 1.0
        moving_N1 = np.maximum(np.take_along_axis(moving_NT, last_N1, axis=1), 1)
        shift_N1 = np.take_along_axis(thresholds_NT, last_N1, axis=1) + excess_N1 / moving_N1
        shifted: Array = np.clip(points_ND - shift_N1, self.lower_D, self.upper_D)
        return shifted


def _check_bounds(lower_D: Array, upper_D: Array) -> None:
    if lower_D.shape != upper_D.shape:
        raise InfeasibleError(f"bounds of shapes {lower_D.shape} and {upper_D.shape}")
    fits_D = (lower_D >= -SLACK) & (lower_D <= upper_D + SLACK) & (upper_D <= 1 + SLACK)
    for domain in np.flatnonzero(~fits_D)[:1]:
        raise InfeasibleError(
            f"domain {domain}: bounds {lower_D[domain]:.6g} and {upper_D[domain]:.6g}; need"
            " 0 <= lower <= upper <= 1"
        )
    if lower_D.sum() > 1 + SLACK:
        raise InfeasibleError(f"lower bounds add up to {lower_D.sum():.6g}, more than 1")
    if upper_D.sum() < 1 - SLACK:
        raise InfeasibleError(f"upper bounds add up to {upper_D.sum():.6g}, less than 1")


def _make_room(lower_D: Array, upper_D: Array) -> None:
    """Correct bounds, in place, by the rounding error of their sum."""
    lower_D -= max(lower_D.sum() - 1.0, 0.0) * lower_D / max(lower_D.sum(), 1.0)
    upper_D += max(1.0 - upper_D.sum(), 0.0) / upper_D.size


class _Volume(NamedTuple):
    """V(t) of some rooms, as its root of degree `rooms`, scaled to end at 1."""

    grid_G: Array
    root_G: Array
    rooms: int

    def root(self, filled: Array) -> Array:
        return np.asarray(np.interp(filled, self.grid_G, self.root_G))


def _break_sticks(
    cube_NK: Array, rooms_D: Array, order: IntArray, content: float, volumes: list[_Volume]
) -> Array:
    """Map points of the unit cube onto the pieces; uniform points give uniform pieces."""
    pieces_ND = np.zeros((cube_NK.shape[0], rooms_D.size))
    remaining_N = np.full(cube_NK.shape[0], content)
    for k, domain in enumerate(order[:-1]):
        piece_N = _piece(cube_NK[:, k], rooms_D[domain], remaining_N, volumes[k + 1])
        pieces_ND[:, domain] = piece_N
        remaining_N = np.maximum(remaining_N - piece_N, 0.0)
    if order.size:
        pieces_ND[:, order[-1]] = np.minimum(remaining_N, rooms_D[order[-1]])
    return pieces_ND


def _piece(uniform_N: Array, room: float, remaining_N: Array, after: _Volume) -> Array:
    """Invert the distribution of one piece, given the remaining length and the rooms after it."""
    shortest_N = np.maximum(remaining_N - room, 0.0)
    longest_N = np.minimum(remaining_N, after.grid_G[-1])
    high_N = after.root(longest_N)
    ratio_N = np.divide(after.root(shortest_N), high_N, out=np.zeros_like(high_N), where=high_N > 0)
    # Length for the later rooms: their volume falls from longest to shortest as the piece grows.
    share_N = uniform_N * ratio_N**after.rooms + (1.0 - uniform_N)
    root_N = high_N * share_N ** (1.0 / after.rooms)
    later_N = np.interp(root_N, after.root_G, after.grid_G)
    piece_N: Array = np.clip(remaining_N - np.clip(later_N, shortest_N, longest_N), 0.0, room)
    return piece_N


def _volumes(rooms_K: Array, content: float) -> list[_Volume]:
    """Return V of the rooms from k on, for every k."""
    volumes: list[_Volume] = []
    limit = 0.0
    for room in rooms_K[::-1]:
        limit += float(room)
        grid_G = np.linspace(0.0, min(limit, content), GRID)
        after = volumes[-1] if volumes else None
        volumes.append(_with_room(after, float(room), grid_G))
    return volumes[::-1]


def _with_room(after: _Volume | None, room: float, grid_G: Array) -> _Volume:
    """Add one room in front of others."""
    line_G = np.linspace(0.0, 1.0, GRID)
    if after is None:
        return _Volume(grid_G, line_G, rooms=1)
    if grid_G[-1] <= 0:
        return _Volume(grid_G, line_G, after.rooms + 1)
    full_G = after.root(grid_G) ** after.rooms
    density_G = full_G - after.root(np.maximum(grid_G - room, 0.0)) ** after.rooms
    volume_G = _integral(np.maximum(density_G, 0.0), grid_G, after.rooms)
    root_G = (volume_G / volume_G[-1]) ** (1.0 / (after.rooms + 1))
    return _Volume(grid_G, root_G, after.rooms + 1)


def _integral(density_G: Array, grid_G: Array, power: int) -> Array:
    """Integrate from 0; exact for powers of t (near 0 the density is t^power)."""
    low, high = density_G[1:-1], density_G[2:]
    ends = grid_G[2:] / grid_G[1:-1]
    cells = 0.5 * (low + high) * np.diff(grid_G[1:])
    rising = (low > 0) & (high > low)
    slope = np.log(high[rising] / low[rising]) / np.log(ends[rising])
    upper, lower = grid_G[2:][rising], grid_G[1:-1][rising]
    cells[rising] = (upper * high[rising] - lower * low[rising]) / (slope + 1.0)
    first = grid_G[1] * density_G[1] / (power + 1.0)
    return np.concatenate([[0.0], first + np.concatenate([[0.0], np.cumsum(cells)])])
