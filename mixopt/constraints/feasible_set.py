"""The set of mixtures that meet all limits: projection, moves, sampling, lowest cost.

With only bounds of domains, all maps are exact and fast (mixopt.constraints.capped_simplex). Rows
and convex limits restrict the set further, and four maps stay within it:

- `project` finds the nearest mixture of the set, point by point.
- `inside` moves an outside mixture straight towards the interior point, only as far as needed.
- `step` moves a mixture of the set, as far as the set allows.
- `from_cube` scales the capped simplex around the interior point, along every ray to the end of the
  set: one to one, but not quite uniform where a limit cuts the set diagonally.

The interior point touches no limit, unless a limit leaves no room: then every mixture touches that
limit, and all moves stay on it.

Shapes: N points, D domains, R rows, K directions in the set, X variables: the weights, then further
variables of the caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from mixopt.constraints.capped_simplex import CappedSimplex
from mixopt.constraints.convex_limits import ConvexLimit
from mixopt.constraints.solvers import (
    ACCURACY,
    DifferentiableFunction,
    Polytope,
    Ties,
    minimize_slsqp,
)
from mixopt.errors import InfeasibleError
from mixopt.system import Array, BoolArray

MIN_MOVE = 1e-15  # shorter moves meet no bound
ROOM = 1e-9  # with less room than this, every mixture touches the limit
EXACT = 1e-10  # allowed error of a mixture in the set
HALVINGS = 45


@dataclass(frozen=True, eq=False)
class FeasibleSet:
    """The mixtures within bounds, rows `row . w <= upper` and convex limits; never empty.

    Attributes:
        bounds: Bounds of each weight.
        rows_RD: Rows of the limits on sums and ratios.
        upper_R: Upper bound of each row.
        convex: Convex limits.

    Raises:
        InfeasibleError: No mixture is within all of these.
    """

    bounds: CappedSimplex
    rows_RD: Array
    upper_R: Array
    convex: tuple[ConvexLimit, ...] = ()

    def __post_init__(self) -> None:
        if self.has_only_bounds:
            return
        upper_D = self.bounds.upper_D
        for limit in self.convex:
            upper_D = limit.upper_bounds(upper_D)
        if self.convex:
            object.__setattr__(self, "bounds", CappedSimplex(self.bounds.lower_D, upper_D))
        self.interior_point_D.flags.writeable = False  # raises if the set is empty

    @classmethod
    def within(cls, lower_D: ArrayLike, upper_D: ArrayLike) -> "FeasibleSet":
        """Return the mixtures within bounds of each weight."""
        bounds = CappedSimplex(np.asarray(lower_D, float), np.asarray(upper_D, float))
        return cls(bounds, np.empty((0, len(bounds.lower_D))), np.empty(0))

    @classmethod
    def full(cls, domains: int) -> "FeasibleSet":
        """Return all mixtures of `domains` domains."""
        return cls.within(np.zeros(domains), np.ones(domains))

    @property
    def has_only_bounds(self) -> bool:
        """Whether bounds of each weight are the only limits."""
        return not len(self.rows_RD) and not self.convex

    @property
    def lower_D(self) -> Array:
        """Lower bound of each weight."""
        return self.bounds.lower_D

    @property
    def upper_D(self) -> Array:
        """Upper bound of each weight."""
        return self.bounds.upper_D

    @property
    def dimensions(self) -> int:
        """Cube dimensions of `from_cube`; 0 if the set is a single mixture."""
        if self.has_only_bounds or len(self._directions_KD):
            return self.bounds.dimensions
        return 0

    def contains(self, weights_ND: ArrayLike, *, tolerance: float = 1e-9) -> BoolArray:
        """Return for each row, shape (N,), whether it is in the set, to `tolerance`."""
        weights = np.atleast_2d(np.asarray(weights_ND, float))
        in_bounds_N = self.bounds.contains(weights, tolerance=tolerance)
        if self.has_only_bounds:
            return in_bounds_N
        return in_bounds_N & ~self._outside(weights, tolerance)

    def project(self, points_ND: ArrayLike) -> Array:
        """Return the nearest point of the set to each row, in Euclidean distance."""
        if self.has_only_bounds:
            return self.bounds.project(points_ND)
        points = np.asarray(points_ND, float)
        near_ND = self.bounds.project(np.atleast_2d(points))
        for row in np.flatnonzero(self._outside(near_ND, EXACT)):
            start_D = self.inside(near_ND[row : row + 1])[0]
            point_D = np.atleast_2d(points)[row]
            near_ND[row] = self.polytope.nearest(point_D, start_D, self.convex)
        return self.inside(near_ND).reshape(points.shape)

    def inside(self, points_ND: Array) -> Array:
        """Return a point of the set for each row, shape (N, D); keep rows in the set."""
        near_ND = self.bounds.inside(points_ND)
        if self.has_only_bounds:
            return near_ND
        off_N = self._outside(near_ND, EXACT)
        moves_ND = self._project_moves(near_ND[off_N] - self.interior_point_D)
        near_ND[off_N] = self.step(np.broadcast_to(self.interior_point_D, moves_ND.shape), moves_ND)
        return near_ND

    def step(self, points_ND: Array, moves_ND: Array) -> Array:
        """Move points of the set along `moves_ND`, completely or as far as the set allows."""
        part_N = self._reach(points_ND, moves_ND, 1.0)
        return np.clip(points_ND + part_N[:, None] * moves_ND, self.lower_D, self.upper_D)

    def from_cube(self, cube_NK: ArrayLike) -> Array:
        """Map points of the unit cube onto the set, one to one; uniform with only bounds."""
        if self.has_only_bounds:
            return self.bounds.from_cube(cube_NK)
        cube = np.atleast_2d(np.asarray(cube_NK, float))
        if self.dimensions == 0:
            return np.tile(self.interior_point_D, (len(cube), 1))
        rays_ND = self._project_moves(self.bounds.from_cube(cube) - self.interior_point_D)
        middle_ND = np.broadcast_to(self.interior_point_D, rays_ND.shape)
        is_bound_R = np.arange(len(self._loose_R)) < 2 * len(self.lower_D)
        bounds_N = self._linear_reach(middle_ND, rays_ND, is_bound_R & self._loose_R)
        ends_N = np.where(np.isfinite(bounds_N), self._reach(middle_ND, rays_ND, np.inf), 0.0)
        return self.step(middle_ND, (ends_N / np.maximum(bounds_N, 1.0))[:, None] * rays_ND)

    def minimize(
        self,
        cost: DifferentiableFunction,
        start_X: Array,
        positive: Sequence[DifferentiableFunction] = (),
        *,
        accuracy: float = ACCURACY,
    ) -> Array:
        """Return the end of a descent within the set, up to the solver's error, shape (X,).

        Args:
            cost: The function to minimise.
            start_X: A mixture, then further variables.
            positive: Functions that must be >= 0.
            accuracy: Change of the cost at which the descent ends.
        """
        return minimize_slsqp(
            cost, start_X, self.polytope, self.convex, positive, accuracy=accuracy
        )

    @cached_property
    def polytope(self) -> Polytope:
        """The linear limits without redundant rows; rows that every mixture touches are ties."""
        from scipy.linalg import orth

        if self.has_only_bounds:
            return self._limits
        bounds = 2 * len(self.lower_D)
        fixed_D = ~self._loose_R[:bounds].reshape(2, -1).all(axis=0)
        loose_R = self._loose_R[bounds:]
        fixed_RD = np.vstack([np.ones_like(self.lower_D), self.rows_RD[~loose_R]])
        ties_ED = orth(np.where(fixed_D, 0.0, fixed_RD).T).T
        return Polytope(
            lower_D=np.where(fixed_D, self.interior_point_D, self.lower_D),
            upper_D=np.where(fixed_D, self.interior_point_D, self.upper_D),
            rows_RD=self.rows_RD[loose_R],
            upper_R=self.upper_R[loose_R],
            ties=Ties(ties_ED, ties_ED @ self.interior_point_D),
        )

    @cached_property
    def interior_point_D(self) -> Array:
        """A mixture that touches no limit with room, shape (D,)."""
        roomy_D = self._limits.middle()
        if roomy_D is None:
            raise InfeasibleError("no mixture satisfies these bounds of domains and groups")
        if not self.convex:
            return roomy_D
        near_D = self._limits.deepest(self.convex)
        if near_D is None or not all(limit.is_met(near_D) for limit in self.convex):
            limits = " and ".join(limit.describe() for limit in self.convex)
            raise InfeasibleError(f"no mixture within these bounds has {limits}")
        part = min(_half_way(limit, near_D, roomy_D) for limit in self.convex)
        return near_D + part * (roomy_D - near_D)

    def _outside(self, weights_ND: Array, tolerance: float) -> BoolArray:
        """Return for each row whether it violates a row's bound or a convex limit."""
        off_N = (weights_ND @ self.rows_RD.T - self.upper_R > tolerance).any(axis=1)
        return np.asarray(off_N | self._beyond(weights_ND, tolerance))

    def _beyond(self, weights_ND: Array, tolerance: float = 0.0) -> BoolArray:
        """Return for each row whether it violates a convex limit."""
        beyond_N = np.zeros(len(weights_ND), dtype=bool)
        for limit in self.convex:
            beyond_N |= limit.value(weights_ND) > limit.upper + tolerance
        return beyond_N

    def _project_moves(self, moves_ND: Array) -> Array:
        """Project moves onto the directions of the set."""
        return moves_ND @ self._directions_KD.T @ self._directions_KD

    def _reach(self, points_ND: Array, moves_ND: Array, limit: float) -> Array:
        """Return the multiple of each move that stays in the set, <= `limit`, shape (N,)."""
        reach_N = np.minimum(self._linear_reach(points_ND, moves_ND, self._loose_R), limit)
        if not self.convex:
            return reach_N
        finite_N = np.where(np.isfinite(reach_N), reach_N, 0.0)
        far_N = self._beyond(points_ND + finite_N[:, None] * moves_ND)
        low_N = np.zeros(int(far_N.sum()))
        high_N = reach_N[far_N]
        for _ in range(HALVINGS):
            half_N = (low_N + high_N) / 2
            beyond_N = self._beyond(points_ND[far_N] + half_N[:, None] * moves_ND[far_N])
            low_N = np.where(beyond_N, low_N, half_N)
            high_N = np.where(beyond_N, half_N, high_N)
        reach_N[far_N] = low_N
        return reach_N

    def _linear_reach(self, points_ND: Array, moves_ND: Array, which_R: BoolArray) -> Array:
        rows_RD = self._limits.all_rows_RD[which_R]
        upper_R = self._limits.all_upper_R[which_R]
        rates_NR = moves_ND @ rows_RD.T
        room_NR = np.maximum(upper_R - points_ND @ rows_RD.T, 0.0)
        no_end_NR = np.full_like(room_NR, np.inf)
        ends_NR = np.divide(room_NR, rates_NR, out=no_end_NR, where=rates_NR > MIN_MOVE)
        reach_N: Array = ends_NR.min(axis=1, initial=np.inf)
        return reach_N

    @cached_property
    def _limits(self) -> Polytope:
        """All linear limits, redundant ones too."""
        return Polytope(self.lower_D, self.upper_D, self.rows_RD, self.upper_R)

    @cached_property
    def _loose_R(self) -> BoolArray:
        """Rows with room at the interior point; the others are equalities on the set."""
        shares_R = self._limits.all_rows_RD @ self.interior_point_D
        return np.asarray(self._limits.all_upper_R - shares_R > ROOM)

    @cached_property
    def _directions_KD(self) -> Array:
        """Orthonormal directions of the set; none if a convex limit leaves no room."""
        from scipy.linalg import null_space

        for limit in self.convex:
            if limit.value_at(self.interior_point_D) >= limit.upper - ROOM * abs(limit.upper):
                return np.empty((0, len(self.lower_D)))
        fixed_RD = np.vstack([np.ones_like(self.lower_D), self._limits.all_rows_RD[~self._loose_R]])
        directions_DK: Array = null_space(fixed_RD)
        return directions_DK.T


def _half_way(limit: ConvexLimit, near_D: Array, far_D: Array) -> float:
    """Return a part of the way to a mixture that uses at most half of a convex limit's room."""
    near, far = limit.value(np.stack([near_D, far_D]))
    room = 0.5 * max(limit.upper - near, 0.0)
    return 1.0 if far - near <= room else float(room / (far - near))
