"""Break a stick into pieces of limited length, evenly over all the ways to do it.

Pieces x with 0 <= x_k <= room_k that add up to `content` are drawn one after another. Given
what is left, r, the distribution function of piece k follows from the volume V of the ways to
fill the rooms after it: P(x_k <= x) is proportional to V(r) - V(r - x), where V(t) is the
volume of {0 <= x_j <= room_j for j > k, sum <= t}. Turning it round at a point of the unit
interval gives x_k; doing so for every k is the inverse of the Rosenblatt transform, so that
uniform points give uniform pieces.

V is computed from the last room backwards: adding a room c to V gives the integral of
V(t) - V(t - c). It is kept on a grid as its root of degree m, the number of rooms, because for
rooms without a limit V is t^m / m!: the root is a straight line, which the grid holds exactly.
With limits the grid is an approximation, of the density alone: limits and sum are always exact.

Shapes: N points, D rooms, K = D' - 1 cube dimensions with D' rooms that are not empty, G grid
points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixopt.system import Array

GRID = 1025


@dataclass(frozen=True)
class _Volume:
    """V(t) of some rooms as its root of degree `rooms`, scaled to end at 1."""

    grid_G: Array
    root_G: Array
    rooms: int

    def root(self, filled: Array) -> Array:
        return np.interp(filled, self.grid_G, self.root_G)

    def at_root(self, root: Array) -> Array:
        return np.interp(root, self.root_G, self.grid_G)


def break_sticks(cube_NK: Array, rooms_D: Array, content: float) -> Array:
    """Map points of the unit cube onto the pieces, uniform onto uniform.

    Args:
        cube_NK: Points in [0, 1]; K is the number of rooms > 0, less one (and not below 0).
        rooms_D: Longest length of each piece, >= 0.
        content: What the pieces add up to, between 0 and the sum of the rooms.

    Returns:
        Pieces, shape (N, D), in [0, room] and adding up to `content` to rounding.
    """
    order = np.argsort(-rooms_D, kind="stable")[: int((rooms_D > 0).sum())]
    volumes = _volumes(rooms_D[order], content)
    pieces_ND = np.zeros((cube_NK.shape[0], rooms_D.size))
    left_N = np.full(cube_NK.shape[0], content)
    for k, domain in enumerate(order[:-1]):
        piece_N = _piece(cube_NK[:, k], rooms_D[domain], left_N, volumes[k + 1])
        pieces_ND[:, domain] = piece_N
        left_N = np.maximum(left_N - piece_N, 0.0)
    if order.size:
        pieces_ND[:, order[-1]] = np.minimum(left_N, rooms_D[order[-1]])
    return pieces_ND


def _piece(uniform_N: Array, room: float, left_N: Array, after: _Volume) -> Array:
    """Invert the distribution of one piece, given what is left and the rooms after it."""
    least_N = np.maximum(left_N - room, 0.0)
    most_N = np.minimum(left_N, after.grid_G[-1])
    high_N = after.root(most_N)
    ratio_N = np.divide(after.root(least_N), high_N, out=np.zeros_like(high_N), where=high_N > 0)
    # What the later rooms get: the volume runs from most to least as the piece grows.
    share_N = uniform_N * ratio_N**after.rooms + (1.0 - uniform_N)
    later_N = after.at_root(high_N * share_N ** (1.0 / after.rooms))
    return np.clip(left_N - np.clip(later_N, least_N, most_N), 0.0, room)


def _volumes(rooms_K: Array, content: float) -> list[_Volume]:
    """Return V of the rooms from k on, for every k."""
    volumes: list[_Volume] = []
    limit = 0.0
    for room in rooms_K[::-1]:
        limit += float(room)
        grid_G = np.linspace(0.0, min(limit, content), GRID)
        volumes.append(_with_room(volumes[-1] if volumes else None, float(room), grid_G))
    return volumes[::-1]


def _with_room(after: _Volume | None, room: float, grid_G: Array) -> _Volume:
    """Add one room in front of others."""
    if after is None or grid_G[-1] <= 0:
        return _Volume(grid_G, np.linspace(0.0, 1.0, GRID), 1 if after is None else after.rooms + 1)
    full_G = after.root(grid_G) ** after.rooms
    density_G = full_G - after.root(np.maximum(grid_G - room, 0.0)) ** after.rooms
    volume_G = _integral(np.maximum(density_G, 0.0), grid_G, after.rooms)
    root_G = (volume_G / volume_G[-1]) ** (1.0 / (after.rooms + 1))
    return _Volume(grid_G, root_G, after.rooms + 1)


def _integral(density_G: Array, grid_G: Array, power: int) -> Array:
    """Integrate from 0, exactly where the density is a power of t (near 0 it is t^power)."""
    low, high = density_G[1:-1], density_G[2:]
    ends = grid_G[2:] / grid_G[1:-1]
    cells = 0.5 * (low + high) * np.diff(grid_G[1:])
    rising = (low > 0) & (high > low)
    slope = np.log(high[rising] / low[rising]) / np.log(ends[rising])
    upper, lower = grid_G[2:][rising], grid_G[1:-1][rising]
    cells[rising] = (upper * high[rising] - lower * low[rising]) / (slope + 1.0)
    first = grid_G[1] * density_G[1] / (power + 1.0)
    return np.concatenate([[0.0], first + np.concatenate([[0.0], np.cumsum(cells)])])
