"""Programs over mixtures: the lowest point, the deepest in convex limits, the least change.

All are over weights within bounds that add up to 1 and meet rows of `row . w <= most`. They are
linear programs, solved to a vertex by HiGHS, also with total variation, which is linear once how
far each weight is from its reference has a variable of its own. With smooth convex limits they are
convex, and sequential quadratic programming finds their one minimum.

Shapes: D domains, R rows, X variables: the weights, then those that the caller adds; P values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixopt.constraints.limits import ConvexLimit
from mixopt.system import Array

TOLERANCE = 1e-9
FINE = 1e-12
MAX_CHANGE = 2.0**40  # a change beyond which none is looked for
HALVINGS = 30
STEPS = 300  # of a descent


@dataclass(frozen=True, eq=False)
class DifferentiableFunction:
    """A smooth function of the variables: its values, shape (P,), and slopes, shape (P, X)."""

    values: Callable[[Array], Array]
    slopes: Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class LinearConstraints:
    """Weights within bounds that add up to 1 and meet rows.

    Attributes:
        rows_RD: The rows.
        most_R: What their products with a mixture may not exceed.
        lower_D: Least weights.
        upper_D: Most weights.
        gives_R: By how much each row gives way for a unit of change.
        ties: Equalities that descents keep to, in place of the sum of 1.
    """

    rows_RD: Array
    most_R: Array
    lower_D: Array
    upper_D: Array
    gives_R: Array | None = None
    ties: tuple[Array, Array] | None = None

    def lowest(self, cost_D: Array) -> Array | None:
        """Return a mixture with the least cost, shape (D,); None where there is no mixture."""
        solved = self._solve(np.append(cost_D, 0.0))
        return None if solved is None else solved[0]

    def deepest(self, convex: Sequence[ConvexLimit]) -> Array | None:
        """Return a mixture that is as far as possible within convex limits, or as little beyond."""
        points = [point for one in convex if (point := self._least(one)) is not None]
        if len(points) < len(convex):
            return None
        if len(points) == 1:
            return points[0]
        domains = len(points[0])
        start_D = np.mean(points, axis=0)
        level = max(float(one.value(start_D[None])[0]) - one.size for one in convex)
        top = DifferentiableFunction(
            lambda x: x[domains : domains + 1], lambda x: np.eye(domains + 1)[domains:]
        )
        start_X = np.append(start_D, level if np.isfinite(level) else 1.0)
        end_X = minimize_slsqp(top, start_X, self, convex, accuracy=FINE, level=domains)
        return self._inside(end_X[:domains], start_D)

    def least_change(self, convex: Sequence[ConvexLimit] = ()) -> float | None:
        """Return the least change, >= 0, at which a mixture meets everything; None for none."""
        if not convex or (len(convex) == 1 and convex[0].is_variation):
            one = convex[0] if convex else None
            solved = self._solve(self._change, one, None if one is None else one.size)
            return None if solved is None else solved[1]
        first = self.least_change()
        return None if first is None else self._least_change_within(convex, first)

    def changed(self, change: float) -> LinearConstraints:
        """Return the rows after a change."""
        gives_R = np.zeros_like(self.most_R) if self.gives_R is None else self.gives_R
        return replace(self, most_R=self.most_R + change * gives_R, gives_R=None)

    def nearest(self, point_D: Array, start_D: Array, convex: Sequence[ConvexLimit]) -> Array:
        """Return the mixture nearest to a point, from one that is allowed; shape (D,)."""
        half = DifferentiableFunction(
            lambda w: 0.5 * ((w - point_D) ** 2).sum(keepdims=True), lambda w: (w - point_D)[None]
        )
        return minimize_slsqp(half, start_D, self, convex, accuracy=FINE)

    @property
    def _change(self) -> Array:
        """The cost that is the change alone, shape (D + 1,)."""
        return np.append(np.zeros(len(self.lower_D)), 1.0)

    def _solve(
        self, cost: Array, variation: ConvexLimit | None = None, size: float | None = None
    ) -> tuple[Array, float] | None:
        """Minimise a cost of weights and change; without a size, the change is the variation's."""
        from scipy.optimize import linprog

        domains = len(self.lower_D)
        gives_R = np.zeros_like(self.most_R) if self.gives_R is None else self.gives_R
        rows, most = np.column_stack([self.rows_RD, -gives_R]), self.most_R
        if variation is not None:
            away, limits = _variation_rows(variation, size)
            rows = np.vstack([np.pad(rows, ((0, 0), (0, domains))), away])
            most = np.concatenate([most, limits])
        further = rows.shape[1] - domains
        found = linprog(
            np.pad(cost, (0, rows.shape[1] - len(cost))),
            A_ub=rows,
            b_ub=most,
            A_eq=np.pad(np.ones((1, domains)), ((0, 0), (0, further))),
            b_eq=[1.0],
            bounds=[*zip(self.lower_D, self.upper_D, strict=True), *[(0.0, None)] * further],
            method="highs",
            options={"primal_feasibility_tolerance": TOLERANCE},
        )
        return (found.x[:domains], float(found.x[domains])) if found.status == 0 else None

    def _least(self, limit: ConvexLimit) -> Array | None:
        """Return the mixture with the least value of a convex limit."""
        if limit.is_variation:
            within = replace(self, gives_R=None)._solve(self._change, limit)
            return None if within is None else within[0]
        possible_D = limit.possible_D
        inside = self
        if possible_D is not None:
            inside = replace(self, upper_D=np.where(possible_D, self.upper_D, 0.0))
        start_D = inside.lowest(-limit.center_D)
        if start_D is None:
            return None
        value = DifferentiableFunction(
            lambda w: limit.value(np.clip(w, 0.0, inside.upper_D)[None]),
            lambda w: limit.slope(w)[None],
        )
        return inside._inside(minimize_slsqp(value, start_D, inside, accuracy=FINE), start_D)

    def _inside(self, end_D: Array, start_D: Array) -> Array:
        """Return where a descent ended, or its start where that is not allowed."""
        near_D = np.clip(end_D, self.lower_D, self.upper_D)
        over = (self.rows_RD @ near_D - self.most_R).max(initial=0.0)
        return near_D if over <= 1e-8 and abs(near_D.sum() - 1.0) <= 1e-8 else start_D

    def _least_change_within(self, convex: Sequence[ConvexLimit], first: float) -> float | None:
        """Halve the interval in which the deepest mixture comes within the convex limits."""

        def enough(change: float) -> bool:
            found = self.changed(change).deepest(convex)
            return found is not None and all(
                float(one.value(found[None])[0]) <= one.size for one in convex
            )

        if enough(first):
            return first
        low, high = first, first + 1e-3
        while not enough(high):
            low, high = high, 2 * high
            if high > MAX_CHANGE:
                return None
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high


def _variation_rows(limit: ConvexLimit, size: float | None) -> tuple[Array, Array]:
    """Return rows over (w, change, u) and their bounds: |w - reference| <= u, sum u <= 2 size."""
    reference_D = limit.center_D
    domains = len(reference_D)
    eye_DD, none_D1 = np.eye(domains), np.zeros((domains, 1))
    total = np.concatenate([np.zeros(domains), [-2.0 if size is None else 0.0], np.ones(domains)])
    above, below = (np.hstack([sign * eye_DD, none_D1, -eye_DD]) for sign in (1.0, -1.0))
    limits = np.concatenate([reference_D, -reference_D, [2.0 * (size or 0.0)]])
    return np.vstack([above, below, total]), limits


def minimize_slsqp(
    cost: DifferentiableFunction,
    start_X: Array,
    rows: LinearConstraints,
    convex: Sequence[ConvexLimit] = (),
    positive: Sequence[DifferentiableFunction] = (),
    *,
    accuracy: float = 1e-10,
    level: int | None = None,
) -> Array:
    """Return where the descent ends, shape (X,).

    Args:
        cost: What is minimised.
        start_X: The weights, then further variables.
        rows: What the weights meet.
        convex: Further limits on them.
        positive: Functions that are to be >= 0.
        accuracy: Change of the cost at which it ends.
        level: Position of a variable that may go beyond each convex limit's size.
    """
    from scipy.optimize import minimize

    own, domains = len(start_X), len(rows.lower_D)
    kinked = [one for one in convex if one.is_variation]
    apart = [np.abs(start_X[:domains] - one.center_D) for one in kinked]
    free: list[tuple[float | None, float | None]] = [(None, None)] * (own - domains)
    found = minimize(
        lambda x: float(cost.values(x[:own])[0]),
        np.concatenate([start_X, *apart]),
        jac=lambda x: np.pad(cost.slopes(x[:own])[0], (0, len(x) - own)),
        bounds=[
            *zip(rows.lower_D.tolist(), rows.upper_D.tolist(), strict=True),
            *free,
            *[(0.0, 1.0)] * (domains * len(kinked)),
        ],
        constraints=[
            *(_condition("ineq", _of_first(one, own)) for one in positive),
            *_linear_conditions(rows),
            *(_smooth(one, domains, level) for one in convex if not one.is_variation),
            *(_lifted(one, own + domains * k, domains, level) for k, one in enumerate(kinked)),
        ],
        method="SLSQP",
        options={"maxiter": STEPS, "ftol": accuracy},
    )
    end_X = np.asarray(found.x, dtype=np.float64)[:own]
    return end_X if np.isfinite(end_X).all() else start_X


def _linear_conditions(rows: LinearConstraints) -> list[dict[str, Any]]:
    domains = len(rows.lower_D)
    ties_ED, values_E = (np.ones((1, domains)), np.ones(1)) if rows.ties is None else rows.ties
    tied = DifferentiableFunction(lambda x: ties_ED @ x[:domains] - values_E, lambda _: ties_ED)
    met = DifferentiableFunction(
        lambda x: rows.most_R - rows.rows_RD @ x[:domains], lambda _: -rows.rows_RD
    )
    conditions = [_condition("eq", tied)] if len(values_E) else []
    return [*conditions, _condition("ineq", met)] if len(rows.most_R) else conditions


def _of_first(smooth: DifferentiableFunction, own: int) -> DifferentiableFunction:
    """Return a function of the variables before those that make total variation linear."""
    return DifferentiableFunction(
        lambda x: smooth.values(x[:own]), lambda x: smooth.slopes(x[:own])
    )


def _condition(kind: str, smooth: DifferentiableFunction) -> dict[str, Any]:
    """Return a condition of SLSQP; slopes are 0 for the variables that they do not mention."""

    def slopes(x: Array) -> Array:
        known = smooth.slopes(x)
        return np.pad(known, ((0, 0), (0, len(x) - known.shape[1])))

    return {"type": kind, "fun": smooth.values, "jac": slopes}


def _smooth(limit: ConvexLimit, domains: int, level: int | None) -> dict[str, Any]:
    def values(x: Array) -> Array:
        beyond = 0.0 if level is None else x[level]
        return limit.size + beyond - limit.value(x[None, :domains])

    def slopes(x: Array) -> Array:
        own = np.zeros((1, len(x)))
        own[0, :domains] = -limit.slope(x[:domains])
        if level is not None:
            own[0, level] = 1.0
        return own

    return _condition("ineq", DifferentiableFunction(values, slopes))


def _lifted(limit: ConvexLimit, first: int, domains: int, level: int | None) -> dict[str, Any]:
    """Return the rows u >= w - reference, u >= reference - w and sum u <= 2 size."""
    last = first + domains
    slopes = np.zeros((2 * domains + 1, last))
    slopes[:domains, :domains], slopes[domains:-1, :domains] = -np.eye(domains), np.eye(domains)
    slopes[:domains, first:] = slopes[domains:-1, first:] = np.eye(domains)
    slopes[-1, first:] = -1.0
    if level is not None:
        slopes[-1, level] = 2.0

    def values(x: Array) -> Array:
        away_D, apart_D = x[:domains] - limit.center_D, x[first:last]
        most = 2.0 * (limit.size + (0.0 if level is None else x[level]))
        return np.concatenate([apart_D - away_D, apart_D + away_D, [most - apart_D.sum()]])

    return _condition("ineq", DifferentiableFunction(values, lambda _: slopes))
