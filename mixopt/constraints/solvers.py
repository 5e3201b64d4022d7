"""Programs over mixtures: lowest cost, deepest point in radii, least change, and conflicts.

All are over weights that add up to 1, within bounds and rows `row . w <= upper`. They are linear
programs, solved to a vertex by HiGHS, also with total variation, which is linear with one extra
variable for the distance of each weight from its reference. With a divergence they are convex, and
sequential quadratic programming finds their unique minimum.

Shapes: D domains, R rows, X variables: the weights, then further variables of the caller, then the
distances that make total variation linear; P values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixopt.constraints.limits import ConvexLimit, LinearLimit
from mixopt.system import Array

TOLERANCE = 1e-9
FINE = 1e-12
STEPS = 300  # of a descent
MAX_HINTS = 5
MAX_CHANGE = 1e12  # larger changes count as none


@dataclass(frozen=True, eq=False)
class DifferentiableFunction:
    """A smooth function of the variables: its values, shape (P,), and slopes, shape (P, X)."""

    values: Callable[[Array], Array]
    slopes: Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class LinearConstraints:
    """Weights that add up to 1, within bounds and rows."""

    rows_RD: Array
    upper_R: Array
    lower_D: Array
    upper_D: Array
    gives_R: Array | None = None  # relaxation of each row per unit of change
    ties: tuple[Array, Array] | None = None  # equalities of descents, in place of the sum

    def lowest(self, cost_D: Array) -> Array | None:
        """Return a mixture with the lowest cost, shape (D,); None: infeasible."""
        solved = self._solve(np.append(cost_D, 0.0))
        return None if solved is None else solved[0]

    def deepest(self, radii: Sequence[ConvexLimit]) -> Array | None:
        """Return the mixture deepest inside the radii, or least outside; None: infeasible."""
        rigid = replace(self, gives_R=None)
        points = [point for radius in radii if (point := rigid._nearest_to(radius)) is not None]
        if len(points) < len(radii):
            return None
        if len(points) == 1:
            return points[0]
        start_D = np.mean(points, axis=0)
        excess = max(float(r.value(start_D[None])[0]) - r.size for r in radii)
        start_X = np.append(start_D, excess if np.isfinite(excess) else 1.0)
        return rigid._inside(rigid._minimize_last(start_X, radii, giving=True), start_D)

    def least_change(self, radii: Sequence[ConvexLimit] = ()) -> float | None:
        """Return the least change, >= 0, that makes the limits feasible; None: there is none."""
        kinked = [radius for radius in radii if radius.kind == "tv"]
        solved = self._solve(self._last, kinked)
        if solved is None or len(kinked) == len(radii):
            return None if solved is None else solved[1]
        within = replace(self, upper_D=_within(self.upper_D, radii))
        end_X = within._minimize_last(np.append(*solved), radii)
        end_D, change = np.clip(end_X[:-1], 0.0, within.upper_D), float(end_X[-1])
        if not change < MAX_CHANGE or within._violation(end_D, change) > MISSED:
            return None
        return max(change, 0.0) if all(radius.allows(end_D) for radius in radii) else None

    def nearest(self, point_D: Array, start_D: Array, radii: Sequence[ConvexLimit]) -> Array:
        """Return the mixture nearest to a point, shape (D,); `start_D` is an allowed mixture."""
        half = DifferentiableFunction(
            lambda w: 0.5 * ((w - point_D) ** 2).sum(keepdims=True), lambda w: (w - point_D)[None]
        )
        return minimize_slsqp(half, start_D, self, radii, accuracy=FINE)

    def over(
        self, further: int, kinked: Sequence[ConvexLimit], *, giving: bool = False
    ) -> tuple[Array, Array]:
        """Return all rows over weights, further variables and distances u, and their bounds.

        A total variation is u >= w - reference, u >= reference - w and sum u <= 2 size; if radii
        are `giving`, the first further variable relaxes the sum.
        """
        domains = len(self.lower_D)
        change = np.zeros((len(self.rows_RD), further))
        if self.gives_R is not None and further:
            change[:, 0] = -self.gives_R
        rows, upper = [np.hstack([self.rows_RD, change])], [self.upper_R]
        for radius in kinked:
            near = np.zeros((2 * domains + 1, domains + further))
            near[:domains, :domains], near[domains:-1, :domains] = np.eye(domains), -np.eye(domains)
            near[-1, domains : domains + giving] = -2.0
            rows.append(near)
            upper += [radius.center_D, -radius.center_D, np.array([2.0 * radius.size])]
        distances = np.zeros((sum(map(len, rows)), domains * len(kinked)))
        for k in range(len(kinked)):
            row, column = len(self.rows_RD) + k * (2 * domains + 1), k * domains
            u = distances[row : row + 2 * domains + 1, column : column + domains]
            u[:domains], u[domains:-1], u[-1] = -np.eye(domains), -np.eye(domains), 1.0
        return np.hstack([np.vstack(rows), distances]), np.concatenate(upper)

    @property
    def _last(self) -> Array:
        """The cost vector of the last variable, shape (D + 1,)."""
        return np.append(np.zeros(len(self.lower_D)), 1.0)

    def _solve(
        self, cost: Array, kinked: Sequence[ConvexLimit] = (), *, giving: bool = False
    ) -> tuple[Array, float] | None:
        """Minimise a cost of weights and change by linear programming."""
        from scipy.optimize import linprog

        domains = len(self.lower_D)
        rows, upper = self.over(1, kinked, giving=giving)
        further = rows.shape[1] - domains
        solution = linprog(
            np.pad(cost, (0, rows.shape[1] - len(cost))),
            A_ub=rows,
            b_ub=upper,
            A_eq=np.pad(np.ones((1, domains)), ((0, 0), (0, further))),
            b_eq=[1.0],
            bounds=[*zip(self.lower_D, self.upper_D, strict=True), *[(0.0, None)] * further],
            method="highs",
            options={"primal_feasibility_tolerance": TOLERANCE},
        )
        return (solution.x[:domains], float(solution.x[domains])) if solution.status == 0 else None

    def _minimize_last(
        self, start_X: Array, radii: Sequence[ConvexLimit], *, giving: bool = False
    ) -> Array:
        """Minimise the variable after the weights, which relaxes rows or radii."""
        last = DifferentiableFunction(lambda x: x[-1:], lambda _: self._last[None])
        return minimize_slsqp(last, start_X, self, radii, accuracy=FINE, giving=giving)

    def _nearest_to(self, radius: ConvexLimit) -> Array | None:
        """Return the mixture nearest to the reference of a radius; None: infeasible."""
        if radius.kind == "tv":
            solved = self._solve(self._last, [replace(radius, size=0.0)], giving=True)
            return None if solved is None else solved[0]
        inside = replace(self, upper_D=radius.within(self.upper_D))
        start_D = inside.lowest(-radius.center_D)
        if start_D is None:
            return None
        value = DifferentiableFunction(
            lambda w: radius.value(np.clip(w, 0.0, inside.upper_D)[None]),
            lambda w: radius.slope(w)[None],
        )
        return inside._inside(minimize_slsqp(value, start_D, inside, accuracy=FINE), start_D)

    def _inside(self, end_X: Array, start_D: Array) -> Array:
        """Return the end of a descent, or its start if the end is not allowed."""
        near_D = np.clip(end_X[: len(start_D)], self.lower_D, self.upper_D)
        return near_D if self._violation(near_D) <= MISSED else start_D

    def _violation(self, weights_D: Array, change: float = 0.0) -> float:
        """Return the largest violation of the rows and of the sum of 1."""
        gives_R = 0.0 if self.gives_R is None else self.gives_R
        over_R = self.rows_RD @ weights_D - self.upper_R - change * gives_R
        return max(float(over_R.max(initial=0.0)), abs(float(weights_D.sum()) - 1.0))


MISSED = 1e-8  # tolerance of a row after a descent


def _within(upper_D: Array, radii: Sequence[ConvexLimit]) -> Array:
    for radius in radii:
        upper_D = radius.within(upper_D)
    return upper_D


def minimize_slsqp(
    cost: DifferentiableFunction,
    start_X: Array,
    rows: LinearConstraints,
    radii: Sequence[ConvexLimit] = (),
    positive: Sequence[DifferentiableFunction] = (),
    *,
    accuracy: float = 1e-10,
    giving: bool = False,
) -> Array:
    """Return the end of a descent over weights and further variables, shape (X,).

    Args:
        cost: The function to minimise.
        start_X: The weights, then further variables.
        rows: Linear constraints on the weights.
        radii: Convex limits on the weights.
        positive: Functions that must be >= 0.
        accuracy: Change of the cost at which the descent ends.
        giving: Whether the first further variable relaxes the radii.
    """
    from scipy.optimize import minimize

    count, domains = len(start_X), len(rows.lower_D)
    kinked = [radius for radius in radii if radius.kind == "tv"]
    distances = [np.abs(start_X[:domains] - radius.center_D) for radius in kinked]
    free: list[tuple[float | None, float | None]] = [(None, None)] * (count - domains)
    rows_RX, upper_R = rows.over(count - domains, kinked, giving=giving)
    ties_ED, values_E = (np.ones((1, domains)), np.ones(1)) if rows.ties is None else rows.ties
    inequalities = DifferentiableFunction(lambda x: upper_R - rows_RX @ x, lambda _: -rows_RX)
    equalities = DifferentiableFunction(
        lambda x: ties_ED @ x[:domains] - values_E, lambda _: ties_ED
    )
    smooth = [_room(radius, domains, giving=giving) for radius in radii if radius.kind == "kl"]
    solution = minimize(
        lambda x: float(cost.values(x[:count])[0]),
        np.concatenate([start_X, *distances]),
        jac=lambda x: np.append(cost.slopes(x[:count])[0], np.zeros(len(x) - count)),
        bounds=[
            *zip(rows.lower_D.tolist(), rows.upper_D.tolist(), strict=True),
            *free,
            *[(0.0, 1.0)] * (domains * len(kinked)),
        ],
        constraints=[
            *(_condition("ineq", function, count) for function in positive),
            *([_condition("eq", equalities, domains)] if len(values_E) else []),
            *([_condition("ineq", inequalities, rows_RX.shape[1])] if len(upper_R) else []),
            *(_condition("ineq", room, count) for room in smooth),
        ],
        method="SLSQP",
        options={"maxiter": STEPS, "ftol": accuracy},
    )
    end_X = np.asarray(solution.x, dtype=np.float64)[:count]
    return end_X if np.isfinite(end_X).all() else start_X


def _condition(kind: str, smooth: DifferentiableFunction, first: int) -> dict[str, Any]:
    """Return a condition of SLSQP on the first variables, with slope 0 in all others."""

    def slopes(x: Array) -> Array:
        slopes = smooth.slopes(x[:first])
        return np.hstack([slopes, np.zeros((len(slopes), len(x) - slopes.shape[1]))])

    return {"type": kind, "fun": lambda x: smooth.values(x[:first]), "jac": slopes}


def _room(radius: ConvexLimit, domains: int, *, giving: bool) -> DifferentiableFunction:
    """Return the radius - the divergence, as a function of the variables."""

    def values(x: Array) -> Array:
        change = x[domains] if giving else 0.0
        return radius.size + change - radius.value(x[None, :domains])

    def slopes(x: Array) -> Array:
        slope = -radius.slope(x[:domains])
        return np.append(slope, 1.0)[None] if giving else slope[None]

    return DifferentiableFunction(values, slopes)


@dataclass(frozen=True, eq=False)
class LimitSystem:
    """Limits that a mixture must meet together."""

    domains: tuple[str, ...]
    limits: list[LinearLimit]
    convex: tuple[ConvexLimit, ...]

    @property
    def is_possible(self) -> bool:
        """Whether some mixture meets all limits."""
        if not self.convex:
            return self.rows().least_change() is not None
        deepest = self.rows().deepest(self.convex)
        return deepest is not None and all(limit.allows(deepest) for limit in self.convex)

    def smallest(self) -> LimitSystem:
        """Return a minimal conflict: remove all limits without which it stays infeasible."""
        system = self
        for removed in (self.convex, *((limit,) for limit in self.convex)):
            fewer = replace(system, convex=tuple(c for c in system.convex if c not in removed))
            system = system if fewer.is_possible else fewer
        for removed_limit in self.limits:
            fewer = replace(system, limits=[a for a in system.limits if a is not removed_limit])
            system = system if fewer.is_possible else fewer
        return system

    def explain(self, system: LimitSystem) -> str:
        """Return the message of a conflict: its limits, its size, and changes that resolve it."""
        texts: dict[str, list[str]] = {}
        hints: dict[str, str | None] = {}
        for limit in self.limits:
            texts.setdefault(limit.origin, []).append(limit.text)
            hints.setdefault(limit.moves_with, system.hint(limit.moves_with))
        for radius in self.convex:
            texts[radius.source] = [*texts.get(radius.source, ()), radius.text]
            hints[radius.text] = system.radius_hint(radius)
        conflict = "; ".join(f"{source}: {', '.join(limits)}" for source, limits in texts.items())
        changes = [hint for hint in hints.values() if hint]
        return (
            f"no mixture satisfies all of these limits{self._gap()} ({conflict}); "
            f"{', or '.join(changes[:MAX_HINTS]) or 'change several of them'}"
        )

    def hint(self, setting: str) -> str | None:
        """Return the least sufficient change of one setting; None: no change suffices."""
        moving = [limit for limit in self.limits if limit.moves_with == setting]
        change = self.rows(moving).least_change(self.convex)
        return None if change is None else moving[0].hint(change)

    def radius_hint(self, radius: ConvexLimit) -> str | None:
        """Return the least sufficient radius; None: no radius suffices."""
        deepest = self.rows().deepest([radius])
        other_radii = [limit for limit in self.convex if limit is not radius]
        if deepest is None or not all(limit.allows(deepest) for limit in other_radii):
            return None
        return f"allow {radius.enough(deepest)}"

    def _gap(self) -> str:
        """Return the least change of a single bound that resolves it, as a share of tokens."""
        if not all(limit.kind == "tv" for limit in self.convex):
            return ""
        systems = [self.rows([limit], scaled=False) for limit in self.limits]
        gaps = [gap for s in systems if (gap := s.least_change(self.convex)) is not None]
        return f", short by {min(gaps):.3g}" if gaps else ""

    def rows(
        self, moving: Collection[LinearLimit] = (), *, scaled: bool = True
    ) -> LinearConstraints:
        """Return the limits as rows; a change relaxes `moving` ones, scaled ones from 0."""
        upper, gives = [], []
        for limit in self.limits:
            from_0 = scaled and limit.rate > 0 and limit in moving
            upper.append(0.0 if from_0 else limit.sign * limit.value)
            rate = limit.rate * (limit.setting or 1.0) if from_0 else 1.0
            gives.append(rate if limit in moving else 0.0)
        domains = len(self.domains)
        rows_RD = np.array([limit.row(self.domains) for limit in self.limits]).reshape(-1, domains)
        ends = np.zeros(domains), np.ones(domains)
        return LinearConstraints(rows_RD, np.array(upper), *ends, np.array(gives))
