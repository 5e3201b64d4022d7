"""Programs over mixtures: lowest cost, nearest to a reference, least change, and conflicts.

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

from mixopt.constraints.limits import RADIUS, LinearLimit, Radius
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

    def least_change(self, radius: Radius | None = None) -> float | None:
        """Return the least change, >= 0, that makes the limits feasible; None: there is none."""
        solved = self._solve(self._last, radius)
        if solved is None:
            return None
        if radius is None or radius.kind == "tv":
            return solved[1]
        within = replace(self, upper_D=radius.within(self.upper_D))
        last = DifferentiableFunction(lambda x: x[-1:], lambda _: self._last[None])
        end_X = minimize_slsqp(last, np.append(*solved), within, radius, accuracy=FINE)
        end_D, change = np.clip(end_X[:-1], 0.0, within.upper_D), float(end_X[-1])
        if not change < MAX_CHANGE or within._violation(end_D, change) > MISSED:
            return None
        return max(change, 0.0) if radius.allows(end_D) else None

    def nearest(self, point_D: Array, start_D: Array, radius: Radius | None) -> Array:
        """Return the mixture nearest to a point, shape (D,); `start_D` is an allowed mixture."""
        half = DifferentiableFunction(
            lambda w: 0.5 * ((w - point_D) ** 2).sum(keepdims=True), lambda w: (w - point_D)[None]
        )
        return minimize_slsqp(half, start_D, self, radius, accuracy=FINE)

    def over(
        self, further: int, radius: Radius | None, *, giving: bool = False
    ) -> tuple[Array, Array]:
        """Return all rows over weights, further variables and distances u, and their bounds.

        A total variation is u >= w - reference, u >= reference - w and sum u <= 2 size; if it is
        `giving`, the first further variable relaxes the sum.
        """
        domains = len(self.lower_D)
        change = np.zeros((len(self.rows_RD), further))
        if self.gives_R is not None and further:
            change[:, 0] = -self.gives_R
        rows = np.hstack([self.rows_RD, change])
        if radius is None or radius.kind == "kl":
            return rows, self.upper_R
        eye_DD, none = np.eye(domains), np.zeros((domains, further))
        total = np.concatenate([np.zeros(domains + further), np.ones(domains)])
        total[domains : domains + giving] = -2.0
        all_rows = [
            np.pad(rows, ((0, 0), (0, domains))),
            np.hstack([eye_DD, none, -eye_DD]),
            np.hstack([-eye_DD, none, -eye_DD]),
            total,
        ]
        upper = [self.upper_R, radius.center_D, -radius.center_D, np.array([2.0 * radius.size])]
        return np.vstack(all_rows), np.concatenate(upper)

    @property
    def _last(self) -> Array:
        """The cost vector of the last variable, shape (D + 1,)."""
        return np.append(np.zeros(len(self.lower_D)), 1.0)

    def _solve(
        self, cost: Array, radius: Radius | None = None, *, giving: bool = False
    ) -> tuple[Array, float] | None:
        """Minimise a cost of weights and change by linear programming."""
        from scipy.optimize import linprog

        domains = len(self.lower_D)
        rows, upper = self.over(1, radius, giving=giving)
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

    def nearest_to(self, radius: Radius) -> Array | None:
        """Return the mixture nearest to the reference of a radius; None: infeasible."""
        if radius.kind == "tv":
            solved = self._solve(self._last, replace(radius, size=0.0), giving=True)
            return None if solved is None else solved[0]
        inside = replace(self, upper_D=radius.within(self.upper_D))
        start_D = inside.lowest(-radius.center_D)
        if start_D is None:
            return None
        value = DifferentiableFunction(
            lambda w: radius.value(np.clip(w, 0.0, inside.upper_D)[None]),
            lambda w: radius.slope(w)[None],
        )
        end_D = minimize_slsqp(value, start_D, inside, accuracy=FINE)
        near_D = np.clip(end_D, inside.lower_D, inside.upper_D)
        return near_D if inside._violation(near_D) <= MISSED else start_D

    def _violation(self, weights_D: Array, change: float = 0.0) -> float:
        """Return the largest violation of the rows and of the sum of 1."""
        gives_R = 0.0 if self.gives_R is None else self.gives_R
        over_R = self.rows_RD @ weights_D - self.upper_R - change * gives_R
        return max(float(over_R.max(initial=0.0)), abs(float(weights_D.sum()) - 1.0))


MISSED = 1e-8  # tolerance of a row after a descent


def minimize_slsqp(
    cost: DifferentiableFunction,
    start_X: Array,
    rows: LinearConstraints,
    radius: Radius | None = None,
    positive: Sequence[DifferentiableFunction] = (),
    *,
    accuracy: float = 1e-10,
) -> Array:
    """Return the end of a descent over weights and further variables, shape (X,).

    Args:
        cost: The function to minimise.
        start_X: The weights, then further variables.
        rows: Linear constraints on the weights.
        radius: Maximum distance of the weights from a reference.
        positive: Functions that must be >= 0.
        accuracy: Change of the cost at which the descent ends.
    """
    from scipy.optimize import minimize

    count, domains = len(start_X), len(rows.lower_D)
    rows_RX, upper_R = rows.over(count - domains, radius)
    ties_ED, values_E = (np.ones((1, domains)), np.ones(1)) if rows.ties is None else rows.ties
    inequalities = DifferentiableFunction(lambda x: upper_R - rows_RX @ x, lambda _: -rows_RX)
    equalities = DifferentiableFunction(
        lambda x: ties_ED @ x[:domains] - values_E, lambda _: ties_ED
    )
    conditions = [_condition("ineq", function, count) for function in positive]
    if len(values_E):
        conditions.append(_condition("eq", equalities, domains))
    if len(upper_R):
        conditions.append(_condition("ineq", inequalities, rows_RX.shape[1]))
    distances = np.empty(0)
    if radius is not None and radius.kind == "tv":
        distances = np.abs(start_X[:domains] - radius.center_D)
    elif radius is not None:
        room = DifferentiableFunction(
            lambda w: radius.size - radius.value(w[None]), lambda w: -radius.slope(w)[None]
        )
        conditions.append(_condition("ineq", room, domains))
    solution = minimize(
        lambda x: float(cost.values(x[:count])[0]),
        np.concatenate([start_X, distances]),
        jac=lambda x: np.append(cost.slopes(x[:count])[0], np.zeros(len(x) - count)),
        bounds=[
            *zip(rows.lower_D.tolist(), rows.upper_D.tolist(), strict=True),
            *[(None, None)] * (count - domains),
            *[(0.0, 1.0)] * len(distances),
        ],
        constraints=conditions,
        method="SLSQP",
        options={"maxiter": STEPS, "ftol": accuracy},
    )
    end_X = np.asarray(solution.x)[:count]
    return end_X if np.isfinite(end_X).all() else start_X


def _condition(kind: str, smooth: DifferentiableFunction, first: int) -> dict[str, Any]:
    """Return a condition of SLSQP on the first variables, with slope 0 in all others."""

    def slopes(x: Array) -> Array:
        slopes = smooth.slopes(x[:first])
        return np.hstack([slopes, np.zeros((len(slopes), len(x) - slopes.shape[1]))])

    return {"type": kind, "fun": lambda x: smooth.values(x[:first]), "jac": slopes}


@dataclass(frozen=True, eq=False)
class LimitSystem:
    """Limits that a mixture must meet together."""

    domains: tuple[str, ...]
    limits: list[LinearLimit]
    radius: Radius | None

    @property
    def is_possible(self) -> bool:
        """Whether some mixture meets all limits."""
        if self.radius is None:
            return self.rows().least_change() is not None
        nearest_D = self.rows().nearest_to(self.radius)
        return nearest_D is not None and self.radius.allows(nearest_D)

    def smallest(self) -> LimitSystem:
        """Return a minimal conflict: remove all limits without which it stays infeasible."""
        fewer = replace(self, radius=None)
        system = self if fewer.is_possible else fewer
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
        if self.radius is not None:
            texts[RADIUS] = [self.radius.text]
            nearest_D = system.rows().nearest_to(self.radius)
            enough = None if nearest_D is None else self.radius.enough(nearest_D)
            hints[RADIUS] = enough and f"allow {enough}"
        conflict = "; ".join(f"{source}: {', '.join(limits)}" for source, limits in texts.items())
        changes = [hint for hint in hints.values() if hint]
        return (
            f"no mixture satisfies all of these limits{self._gap()} ({conflict}); "
            f"{', or '.join(changes[:MAX_HINTS]) or 'change several of them'}"
        )

    def hint(self, setting: str) -> str | None:
        """Return the least sufficient change of one setting; None: no change suffices."""
        moving = [limit for limit in self.limits if limit.moves_with == setting]
        change = self.rows(moving).least_change(self.radius)
        return None if change is None else moving[0].hint(change)

    def _gap(self) -> str:
        """Return the least change of a single bound that resolves it, as a share of tokens."""
        if self.radius is not None and self.radius.kind == "kl":
            return ""
        systems = [self.rows([limit], scaled=False) for limit in self.limits]
        gaps = [gap for s in systems if (gap := s.least_change(self.radius)) is not None]
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
