"""Programs over mixtures: the lowest point, the nearest to a reference, the least change, descent.

All are over weights within bounds that add up to 1 and meet rows of `row . w <= most`. They are
linear programs, solved to a vertex by HiGHS, also with total variation, which is linear once how
far each weight is from its reference has a variable of its own. The least KL divergence is smooth
and convex, and sequential quadratic programming finds its one minimum.

`minimize_slsqp` is that programming for any smooth cost. Bounds, rows and the KL divergence enter
as they are. Total variation has kinks; with variables for how far each weight is from the reference
it is linear.

Shapes: D domains, R rows, X variables: the weights, then those that the caller adds; P values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixopt.constraints.limits import Radius
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
    """Weights within bounds that add up to 1 and meet rows."""

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

    def closest(self, radius: Radius) -> tuple[float, Array] | None:
        """Return the least distance from the reference of `radius`, and a mixture that has it."""
        if radius.kind == "tv":
            within = replace(self, gives_R=None)._solve(self._change, radius, size=None)
            return None if within is None else (within[1], within[0])
        inside = replace(self, upper_D=np.where(radius.reference_D > 0, self.upper_D, 0.0))
        start_D = inside.lowest(-radius.reference_D)
        if start_D is None:
            return None
        near_D = inside._least_divergence(radius, start_D)
        return float(radius.distance(near_D[None])[0]), near_D

    def least_change(self, radius: Radius | None = None) -> float | None:
        """Return the least change, >= 0, at which a mixture meets everything; None for none."""
        if radius is None or radius.kind == "tv":
            solved = self._solve(self._change, radius, None if radius is None else radius.size)
            return None if solved is None else solved[1]
        first = self.least_change()
        return None if first is None else self._least_change_within(radius, first)

    def changed(self, change: float) -> LinearConstraints:
        """Return the rows after a change."""
        gives_R = np.zeros_like(self.most_R) if self.gives_R is None else self.gives_R
        return replace(self, most_R=self.most_R + change * gives_R, gives_R=None)

    @property
    def _change(self) -> Array:
        """The cost that is the change alone, shape (D + 1,)."""
        return np.append(np.zeros(len(self.lower_D)), 1.0)

    def _solve(
        self, cost: Array, radius: Radius | None = None, size: float | None = None
    ) -> tuple[Array, float] | None:
        """Minimise a cost of weights and change; without a size, the change is the radius."""
        from scipy.optimize import linprog

        domains = len(self.lower_D)
        gives_R = np.zeros_like(self.most_R) if self.gives_R is None else self.gives_R
        rows, most = np.column_stack([self.rows_RD, -gives_R]), self.most_R
        if radius is not None:
            away, limits = _variation(radius, size)
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

    def nearest(self, point_D: Array, start_D: Array, radius: Radius | None) -> Array:
        """Return the mixture nearest to a point, from one that is allowed; shape (D,)."""
        half = DifferentiableFunction(
            lambda w: 0.5 * ((w - point_D) ** 2).sum(keepdims=True), lambda w: (w - point_D)[None]
        )
        return minimize_slsqp(half, start_D, self, radius, accuracy=FINE)

    def _least_divergence(self, radius: Radius, start_D: Array) -> Array:
        divergence = DifferentiableFunction(
            lambda w: radius.distance(np.clip(w, 0.0, self.upper_D)[None]),
            lambda w: radius.slope(w)[None],
        )
        end_D = minimize_slsqp(divergence, start_D, self, accuracy=FINE)
        near_D = np.clip(end_D, self.lower_D, self.upper_D)
        return near_D if self._meets(near_D) else start_D

    def _meets(self, weights_D: Array) -> bool:
        over = (self.rows_RD @ weights_D - self.most_R).max(initial=0.0)
        return bool(over <= 1e-8 and abs(weights_D.sum() - 1.0) <= 1e-8)

    def _least_change_within(self, radius: Radius, first: float) -> float | None:
        """Halve the interval in which the closest mixture comes within the radius."""

        def enough(change: float) -> bool:
            found = self.changed(change).closest(radius)
            return found is not None and found[0] <= radius.size

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


def _variation(radius: Radius, size: float | None) -> tuple[Array, Array]:
    """Return rows over (w, change, u) and their bounds: |w - reference| <= u, sum u <= 2 size."""
    domains = len(radius.reference_D)
    eye_DD, none_D1 = np.eye(domains), np.zeros((domains, 1))
    total = np.concatenate([np.zeros(domains), [-2.0 if size is None else 0.0], np.ones(domains)])
    away = np.vstack(
        [
            np.hstack([eye_DD, none_D1, -eye_DD]),
            np.hstack([-eye_DD, none_D1, -eye_DD]),
            total,
        ]
    )
    limits = np.concatenate([radius.reference_D, -radius.reference_D, [2.0 * (size or 0.0)]])
    return away, limits


def minimize_slsqp(
    cost: DifferentiableFunction,
    start_X: Array,
    rows: LinearConstraints,
    radius: Radius | None = None,
    positive: Sequence[DifferentiableFunction] = (),
    *,
    accuracy: float = 1e-10,
) -> Array:
    """Return where the descent ends, shape (X,)."""
    from scipy.optimize import minimize

    own = len(start_X)
    apart = radius if radius is not None and radius.kind == "tv" else None
    found = minimize(
        lambda x: float(cost.values(x[:own])[0]),
        start_X if apart is None else np.append(start_X, np.abs(_away(apart, start_X))),
        jac=lambda x: np.pad(cost.slopes(x[:own])[0], (0, len(x) - own)),
        bounds=_bounds(rows, own, apart),
        constraints=_conditions(rows, radius, positive, own),
        method="SLSQP",
        options={"maxiter": STEPS, "ftol": accuracy},
    )
    end_X = np.asarray(found.x, dtype=np.float64)[:own]
    return end_X if np.isfinite(end_X).all() else start_X


def _away(radius: Radius, variables: Array) -> Array:
    away_D: Array = variables[: len(radius.reference_D)] - radius.reference_D
    return away_D


def _bounds(
    rows: LinearConstraints, own: int, apart: Radius | None
) -> list[tuple[float | None, float | None]]:
    domains = len(rows.lower_D)
    free: list[tuple[float | None, float | None]] = [(None, None)] * (own - domains)
    lifted: list[tuple[float | None, float | None]] = [(0.0, 1.0)] * domains if apart else []
    return [*zip(rows.lower_D.tolist(), rows.upper_D.tolist(), strict=True), *free, *lifted]


def _conditions(
    rows: LinearConstraints,
    radius: Radius | None,
    positive: Sequence[DifferentiableFunction],
    own: int,
) -> list[dict[str, Any]]:
    domains = len(rows.lower_D)
    ties_ED, values_E = (np.ones((1, domains)), np.ones(1)) if rows.ties is None else rows.ties
    tied = DifferentiableFunction(lambda x: ties_ED @ x[:domains] - values_E, lambda _: ties_ED)
    met = DifferentiableFunction(
        lambda x: rows.most_R - rows.rows_RD @ x[:domains], lambda _: -rows.rows_RD
    )
    conditions = [_condition("ineq", _of_first(one, own)) for one in positive]
    if len(values_E):
        conditions.append(_condition("eq", tied))
    if len(rows.most_R):
        conditions.append(_condition("ineq", met))
    if radius is not None and radius.kind == "kl":
        near = DifferentiableFunction(
            lambda x: radius.size - radius.distance(x[None, :domains]),
            lambda x: -radius.slope(x[:domains])[None],
        )
        conditions.append(_condition("ineq", near))
    elif radius is not None:
        conditions.append(_condition("ineq", _lifted(radius, own)))
    return conditions


def _of_first(smooth: DifferentiableFunction, own: int) -> DifferentiableFunction:
    """Return a function of the variables before those that lift a radius."""
    return DifferentiableFunction(
        lambda x: smooth.values(x[:own]), lambda x: smooth.slopes(x[:own])
    )


def _condition(kind: str, smooth: DifferentiableFunction) -> dict[str, Any]:
    """Return a condition of SLSQP; slopes are 0 for the variables that they do not mention."""

    def slopes(x: Array) -> Array:
        known = smooth.slopes(x)
        return np.pad(known, ((0, 0), (0, len(x) - known.shape[1])))

    return {"type": kind, "fun": smooth.values, "jac": slopes}


def _lifted(radius: Radius, own: int) -> DifferentiableFunction:
    """Return the rows u >= w - reference, u >= reference - w and sum u <= 2 size."""
    domains = len(radius.reference_D)
    eye_DD, between = np.eye(domains), np.zeros((domains, own - domains))
    slopes = np.vstack(
        [
            np.hstack([-eye_DD, between, eye_DD]),
            np.hstack([eye_DD, between, eye_DD]),
            np.concatenate([np.zeros(own), -np.ones(domains)]),
        ]
    )

    def values(x: Array) -> Array:
        away_D, apart_D = _away(radius, x), x[own:]
        return np.concatenate(
            [apart_D - away_D, apart_D + away_D, [2.0 * radius.size - apart_D.sum()]]
        )

    return DifferentiableFunction(values, lambda _: slopes)
