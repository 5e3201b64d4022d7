"""The set of mixtures within linear limits and a radius: projection, moves, sampling.

With only bounds of domains, all maps are exact and fast (mixopt.constraints.capped_simplex). Groups
and a radius restrict the set further, and four maps stay within it:

- `project` finds the nearest mixture of the set, point by point.
- `inside` moves an outside mixture straight towards the interior point, only as far as needed.
- `step` moves a mixture of the set, as far as the set allows.
- `from_cube` scales the capped simplex around the interior point, along every ray to the end of the
  set: one to one, but not quite uniform where a constraint cuts the set diagonally.

The interior point touches no limit, unless a limit leaves no room: then every mixture touches that
limit, and all moves stay on it.

Shapes: N points, D domains, G groups, R rows, K directions in the set.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from mixopt.constraints.capped_simplex import CappedSimplex
from mixopt.constraints.limits import Radius
from mixopt.constraints.solvers import LinearConstraints
from mixopt.errors import InfeasibleError
from mixopt.system import Array, BoolArray

MIN_MOVE = 1e-15  # shorter moves meet no bound
ROOM = 1e-9  # with less room than this, every mixture touches the limit
PLENTY = 1e-3  # enough room for the interior point
EXACT = 1e-10  # allowed error of a mixture in the set
HALVINGS = 45


@dataclass(frozen=True, eq=False)
class ConvexSet:
    """The mixtures of a capped simplex with `rows . w <= upper`, within a radius."""

    base: CappedSimplex
    rows_RD: Array
    upper_R: Array
    radius: Radius | None = None

    def __post_init__(self) -> None:
        if self.radius is not None:
            upper_D = self.radius.within(self.base.upper_D)
            object.__setattr__(self, "base", CappedSimplex(self.base.lower_D, upper_D))
        self.interior_point_D.flags.writeable = False  # raises if the set is empty

    @property
    def lower_D(self) -> Array:
        """Lower bound of each weight."""
        return self.base.lower_D

    @property
    def upper_D(self) -> Array:
        """Upper bound of each weight."""
        return self.base.upper_D

    @property
    def dimensions(self) -> int:
        """Cube dimensions of `from_cube`; 0 if the set is a single mixture."""
        return self.base.dimensions if len(self._directions_KD) else 0

    def contains(self, weights_ND: ArrayLike, *, tolerance: float = 1e-9) -> BoolArray:
        """Return for each row, shape (N,), whether it is in the set, to `tolerance`."""
        weights = np.atleast_2d(np.asarray(weights_ND, float))
        return self.base.contains(weights, tolerance=tolerance) & ~self._outside(weights, tolerance)

    def project(self, points_ND: ArrayLike) -> Array:
        """Return the nearest point of the set to each row, in Euclidean distance."""
        points = np.asarray(points_ND, float)
        near_ND = self.base.project(np.atleast_2d(points))
        for row in np.flatnonzero(self._outside(near_ND, EXACT)):
            start_D = self.inside(near_ND[row : row + 1])[0]
            point_D = np.atleast_2d(points)[row]
            near_ND[row] = self.independent_rows.nearest(point_D, start_D, self.radius)
        return self.inside(near_ND).reshape(points.shape)

    def inside(self, points_ND: Array) -> Array:
        """Return a point of the set for each row, shape (N, D); keep rows in the set."""
        near_ND = self.base.inside(points_ND)
        off_N = self._outside(near_ND, EXACT)
        moves_ND = self._project_moves(near_ND[off_N] - self.interior_point_D)
        near_ND[off_N] = self.step(np.broadcast_to(self.interior_point_D, moves_ND.shape), moves_ND)
        return near_ND

    def step(self, points_ND: Array, moves_ND: Array) -> Array:
        """Move points of the set along `moves_ND`, completely or as far as the set allows."""
        part_N = self._reach(points_ND, moves_ND, 1.0)
        return np.clip(points_ND + part_N[:, None] * moves_ND, self.lower_D, self.upper_D)

    def from_cube(self, cube_NK: ArrayLike) -> Array:
        """Map points of the unit cube onto the set, one to one."""
        cube = np.atleast_2d(np.asarray(cube_NK, float))
        if self.dimensions == 0:
            return np.tile(self.interior_point_D, (len(cube), 1))
        rays_ND = self._project_moves(self.base.from_cube(cube) - self.interior_point_D)
        middle_ND = np.broadcast_to(self.interior_point_D, rays_ND.shape)
        bounds_R = np.arange(len(self._upper_R)) < 2 * len(self.lower_D)
        base_N = self._linear_reach(middle_ND, rays_ND, bounds_R & self._loose_R)
        ends_N = np.where(np.isfinite(base_N), self._reach(middle_ND, rays_ND, np.inf), 0.0)
        return self.step(middle_ND, (ends_N / np.maximum(base_N, 1.0))[:, None] * rays_ND)

    def _outside(self, weights_ND: Array, tolerance: float) -> BoolArray:
        """Return for each row whether it violates a group's bounds or a radius."""
        off_N = (weights_ND @ self.rows_RD.T - self.upper_R > tolerance).any(axis=1)
        if self.radius is None:
            return np.asarray(off_N)
        return np.asarray(off_N | (self.radius.value(weights_ND) > self.radius.size + tolerance))

    def _project_moves(self, moves_ND: Array) -> Array:
        """Project moves onto the directions of the set."""
        return moves_ND @ self._directions_KD.T @ self._directions_KD

    def _reach(self, points_ND: Array, moves_ND: Array, limit: float) -> Array:
        """Return the multiple of each move that stays in the set, <= `limit`, shape (N,)."""
        reach_N = np.minimum(self._linear_reach(points_ND, moves_ND, self._loose_R), limit)
        if (radius := self.radius) is None:
            return reach_N
        finite_N = np.where(np.isfinite(reach_N), reach_N, 0.0)
        far_N = radius.value(points_ND + finite_N[:, None] * moves_ND) > radius.size
        low_N, high_N = np.zeros(int(far_N.sum())), reach_N[far_N]
        for _ in range(HALVINGS):
            half_N = (low_N + high_N) / 2
            middle_ND = points_ND[far_N] + half_N[:, None] * moves_ND[far_N]
            beyond_N = radius.value(middle_ND) > radius.size
            low_N, high_N = np.where(beyond_N, low_N, half_N), np.where(beyond_N, half_N, high_N)
        reach_N[far_N] = low_N
        return reach_N

    def _linear_reach(self, points_ND: Array, moves_ND: Array, which_R: BoolArray) -> Array:
        rows_RD, upper_R = self._rows_RD[which_R], self._upper_R[which_R]
        rates_NR = moves_ND @ rows_RD.T
        room_NR = np.maximum(upper_R - points_ND @ rows_RD.T, 0.0)
        moving_NR = rates_NR > MIN_MOVE
        reach: Array = np.divide(
            room_NR, rates_NR, out=np.full_like(room_NR, np.inf), where=moving_NR
        ).min(axis=1, initial=np.inf)
        return reach

    @cached_property
    def _rows_RD(self) -> Array:
        """The bounds of domains as rows, then the other rows."""
        eye_DD = np.eye(len(self.lower_D))
        return np.vstack([eye_DD, -eye_DD, self.rows_RD])

    @cached_property
    def _upper_R(self) -> Array:
        return np.concatenate([self.upper_D, -self.lower_D, self.upper_R])

    @cached_property
    def _loose_R(self) -> BoolArray:
        """Rows with room at the interior point; the others are equalities on the set."""
        return np.asarray(self._upper_R - self._rows_RD @ self.interior_point_D > ROOM)

    @cached_property
    def _directions_KD(self) -> Array:
        """Orthonormal directions of the set; none if the interior point is at the radius."""
        from scipy.linalg import null_space

        radius, middle_1D = self.radius, self.interior_point_D[None]
        if radius is not None and radius.value(middle_1D)[0] >= radius.size * (1.0 - ROOM):
            return np.empty((0, len(self.lower_D)))
        fixed_RD = np.vstack([np.ones_like(self.lower_D), self._rows_RD[~self._loose_R]])
        directions_DK: Array = null_space(fixed_RD)
        return directions_DK.T

    @cached_property
    def independent_rows(self) -> LinearConstraints:
        """The set without redundant rows; rows that every mixture touches are equalities."""
        from scipy.linalg import orth

        bounds = 2 * len(self.lower_D)
        fixed_D = ~self._loose_R[:bounds].reshape(2, -1).all(axis=0)
        loose_R = self._loose_R[bounds:]
        fixed_RD = np.vstack([np.ones_like(self.lower_D), self.rows_RD[~loose_R]])
        ties_ED = orth(np.where(fixed_D, 0.0, fixed_RD).T).T
        return LinearConstraints(
            self.rows_RD[loose_R],
            self.upper_R[loose_R],
            np.where(fixed_D, self.interior_point_D, self.lower_D),
            np.where(fixed_D, self.interior_point_D, self.upper_D),
            ties=(ties_ED, ties_ED @ self.interior_point_D),
        )

    @cached_property
    def interior_point_D(self) -> Array:
        """A mixture that touches no limit with room, shape (D,)."""
        within = LinearConstraints(self.rows_RD, self.upper_R, self.lower_D, self.upper_D)
        roomy_D = self._mean_of_extremes(within)
        if (radius := self.radius) is None:
            return roomy_D
        near_D = within.nearest_to(radius)
        if near_D is None or not radius.allows(near_D):
            raise InfeasibleError(f"no mixture within these bounds has {radius.text}")
        near, far = radius.value(np.stack([near_D, roomy_D]))
        room = 0.5 * max(radius.size - near, 0.0)
        part = 1.0 if far - near <= room else room / (far - near)
        return near_D + part * (roomy_D - near_D)

    def _mean_of_extremes(self, within: LinearConstraints) -> Array:
        """Average mixtures far from one limit each, until the mean is far from all limits."""
        rows: list[Array] = []
        for row_D, upper in zip(self._rows_RD, self._upper_R, strict=True):
            if rows and upper - row_D @ np.mean(rows, axis=0) > PLENTY:
                continue
            far_D = within.lowest(row_D)
            if far_D is None:
                raise InfeasibleError("no mixture satisfies these bounds of domains and groups")
            rows.append(far_D)
        roomy_D: Array = np.mean(rows, axis=0)
        return roomy_D


Allowed = CappedSimplex | ConvexSet


def limits_of(allowed: Allowed) -> tuple[LinearConstraints, Radius | None]:
    """Return a set as linearly independent rows, and its radius, for a descent."""
    if isinstance(allowed, ConvexSet):
        return allowed.independent_rows, allowed.radius
    none_0D = np.empty((0, len(allowed.lower_D)))
    return LinearConstraints(none_0D, np.empty(0), allowed.lower_D, allowed.upper_D), None
