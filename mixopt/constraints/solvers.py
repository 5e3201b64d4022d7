"""Programs over mixtures: lowest cost, lowest value of a convex limit, nearest point, least change.

All are over weights that add up to 1, within bounds, rows `row . w <= upper` and convex limits.
With limits that have a linear form (total variation has one), they are linear programs, solved to a
vertex by HiGHS. With others they are convex, and sequential quadratic programming finds their
minimum.

Shapes: D domains, R rows, X variables: the weights, then further variables of the caller, then
those of linear forms; E equalities, U further variables of a linear form, P values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from mixopt.constraints.convex_limits import ConvexLimit
from mixopt.system import Array

FEASIBILITY = 1e-9  # tolerance of a row in a linear program
RESIDUAL = 1e-8  # error of a row, or of the sum of 1, at the end of a descent that succeeded
ACCURACY = 1e-10  # change of the cost at which a descent ends
FINE = 1e-12  # the same where digits count
STEPS = 300  # maximum steps of a descent
MAX_CHANGE = 1e12  # larger changes count as none
PLENTY = 1e-3  # enough room of a row at the middle of a polytope


@dataclass(frozen=True, eq=False)
class DifferentiableFunction:
    """A smooth function of the variables: its values, shape (P,), and slopes, shape (P, X)."""

    values: Callable[[Array], Array]
    slopes: Callable[[Array], Array]


class Ties(NamedTuple):
    """Equalities of the weights: `rows_ED . w = values_E`."""

    rows_ED: Array
    values_E: Array


class Solution(NamedTuple):
    """The weights of a linear program's solution, and its first further variable."""

    weights_D: Array
    further: float


@dataclass(frozen=True, eq=False)
class Polytope:
    """Weights that add up to 1, within bounds and rows; there may be none.

    Attributes:
        lower_D: Lower bound of each weight.
        upper_D: Upper bound of each weight.
        rows_RD: Rows of the limits `row . w <= upper`.
        upper_R: Upper bound of each row.
        relief_R: Rise of each row's bound per unit of the first further variable; None: 0.
        ties: Equalities of descents; None: the weights add up to 1.
    """

    lower_D: Array
    upper_D: Array
    rows_RD: Array
    upper_R: Array
    relief_R: Array | None = None
    ties: Ties | None = None

    def lowest(self, cost_D: Array) -> Array | None:
        """Return a mixture with the lowest cost, shape (D,); None: there is no mixture."""
        return _weights(self._solve(np.append(cost_D, 0.0)))

    def least_change(self, convex: Sequence[ConvexLimit] = ()) -> float | None:
        """Return the least change, >= 0, that makes the limits feasible; None: there is none."""
        solution = self._solve(self._last, convex)
        if solution is None:
            return None
        if are_linear(convex):
            return solution.further
        within = self._within(convex)
        start_X = np.append(solution.weights_D, solution.further)
        cost = _last_variable(len(start_X) - 1)
        end_X = minimize_slsqp(cost, start_X, within, convex, accuracy=FINE)
        end_D = np.clip(end_X[:-1], 0.0, within.upper_D)
        change = float(end_X[-1])
        if not change < MAX_CHANGE or within._violation(end_D, change) > RESIDUAL:
            return None
        if not all(limit.is_met(end_D) for limit in convex):
            return None
        return max(change, 0.0)

    def nearest(self, point_D: Array, start_D: Array, convex: Sequence[ConvexLimit]) -> Array:
        """Return the mixture nearest to a point, shape (D,); `start_D` is an allowed mixture."""
        half = DifferentiableFunction(
            lambda w: 0.5 * ((w - point_D) ** 2).sum(keepdims=True), lambda w: (w - point_D)[None]
        )
        return minimize_slsqp(half, start_D, self, convex, accuracy=FINE)

    def deepest(self, convex: Sequence[ConvexLimit]) -> Array | None:
        """Return the mixture farthest within convex limits, shape (D,); None: there is none.

        It minimises the largest excess `value - upper`, whose unit differs between the limits.
        """
        if len(convex) == 1:
            return self.lowest_value(convex[0])
        if are_linear(convex):
            return _weights(self._solve(self._last, relaxed=convex, is_free=True))
        within = self._within(convex)
        start_D = within.middle()
        if start_D is None:
            return None
        excess = max(limit.value_at(start_D) - limit.upper for limit in convex)
        return within._descend_last(np.append(start_D, excess), relaxed=convex)

    def lowest_value(self, limit: ConvexLimit, others: Sequence[ConvexLimit] = ()) -> Array | None:
        """Return the mixture with the lowest value of a limit, within others, shape (D,).

        None: the solver finds none.
        """
        bounded = limit.with_upper(0.0)
        if are_linear([limit, *others]):
            return _weights(self._solve(self._last, others, relaxed=[bounded]))
        within = self._within([limit, *others])
        start_D = within._start_of(limit)
        if start_D is None:
            return None
        if limit.linear_form is not None:
            start_X = np.append(start_D, limit.value_at(start_D))
            return within._descend_last(start_X, others, relaxed=[bounded])
        value = DifferentiableFunction(
            lambda w: limit.value(np.clip(w, 0.0, within.upper_D)[None]),
            lambda w: limit.gradient(w)[None],
        )
        end_D = minimize_slsqp(value, start_D, within, others, accuracy=FINE)
        near_D = np.clip(end_D, within.lower_D, within.upper_D)
        return near_D if within._violation(near_D) <= RESIDUAL else start_D

    def middle(self) -> Array | None:
        """Return a mixture far from all limits, shape (D,); None: there is no mixture.

        Averages mixtures far from one limit each, until the mean is far from all limits.
        """
        extremes: list[Array] = []
        for row_D, upper in zip(self.all_rows_RD, self.all_upper_R, strict=True):
            if extremes and upper - row_D @ np.mean(extremes, axis=0) > PLENTY:
                continue
            far_D = self.lowest(row_D)
            if far_D is None:
                return None
            extremes.append(far_D)
        middle_D: Array = np.mean(extremes, axis=0)
        return middle_D

    @cached_property
    def all_rows_RD(self) -> Array:
        """The bounds of domains as rows, the upper ones first, then the other rows."""
        eye_DD = np.eye(len(self.lower_D))
        return np.vstack([eye_DD, -eye_DD, self.rows_RD])

    @cached_property
    def all_upper_R(self) -> Array:
        """The upper bounds of all rows."""
        return np.concatenate([self.upper_D, -self.lower_D, self.upper_R])

    def program_rows(
        self,
        further: int,
        convex: Sequence[ConvexLimit] = (),
        relaxed: Sequence[ConvexLimit] = (),
    ) -> tuple[Array, Array]:
        """Return all rows over weights, further variables and linear forms, and their bounds.

        The first further variable raises the bounds of `relaxed` limits.
        """
        domains = len(self.lower_D)
        change_RX = np.zeros((len(self.rows_RD), further))
        if self.relief_R is not None and further:
            change_RX[:, 0] = -self.relief_R
        rows = np.hstack([self.rows_RD, change_RX])
        uppers = [self.upper_R]
        for place, limit in enumerate([*convex, *relaxed]):
            form = limit.linear_form
            if form is None:
                continue
            middle = np.zeros((len(form.upper_R), rows.shape[1] - domains))
            if place >= len(convex):
                middle[:, 0] = -form.per_value_R
            rows = np.pad(rows, ((0, 0), (0, form.further_RU.shape[1])))
            rows = np.vstack([rows, np.hstack([form.weights_RD, middle, form.further_RU])])
            uppers.append(form.upper_R + limit.upper * form.per_value_R)
        return rows, np.concatenate(uppers)

    @property
    def _last(self) -> Array:
        """The cost vector of the first further variable, shape (D + 1,)."""
        return np.append(np.zeros(len(self.lower_D)), 1.0)

    def _within(self, convex: Sequence[ConvexLimit]) -> Polytope:
        """Return the polytope with the upper bounds that convex limits imply."""
        upper_D = self.upper_D
        for limit in convex:
            upper_D = limit.upper_bounds(upper_D)
        return replace(self, upper_D=upper_D)

    def _start_of(self, limit: ConvexLimit) -> Array | None:
        """Return a mixture near a limit's centre, or the middle if it has none."""
        if limit.center_D is None:
            return self.middle()
        return self.lowest(-limit.center_D)

    def _descend_last(
        self,
        start_X: Array,
        convex: Sequence[ConvexLimit] = (),
        relaxed: Sequence[ConvexLimit] = (),
    ) -> Array:
        """Minimise the last variable, which raises the bounds of `relaxed`; return the mixture."""
        cost = _last_variable(len(start_X) - 1)
        end_X = minimize_slsqp(cost, start_X, self, convex, relaxed=relaxed, accuracy=FINE)
        near_D = np.clip(end_X[:-1], self.lower_D, self.upper_D)
        return near_D if self._violation(near_D) <= RESIDUAL else start_X[:-1]

    def _solve(
        self,
        cost: Array,
        convex: Sequence[ConvexLimit] = (),
        relaxed: Sequence[ConvexLimit] = (),
        *,
        is_free: bool = False,
    ) -> Solution | None:
        """Minimise a cost of weights and one further variable by linear programming.

        Convex limits without a linear form are ignored. The further variable is >= 0 unless free.
        """
        from scipy.optimize import linprog

        domains = len(self.lower_D)
        rows, upper = self.program_rows(1, convex, relaxed)
        further = rows.shape[1] - domains
        bounds: list[Any] = [*zip(self.lower_D, self.upper_D, strict=True)]
        bounds.append((None if is_free else 0.0, None))
        bounds += [(0.0, None)] * (further - 1)
        solution = linprog(
            np.pad(cost, (0, rows.shape[1] - len(cost))),
            A_ub=rows,
            b_ub=upper,
            A_eq=np.pad(np.ones((1, domains)), ((0, 0), (0, further))),
            b_eq=[1.0],
            bounds=bounds,
            method="highs",
            options={"primal_feasibility_tolerance": FEASIBILITY},
        )
        if solution.status != 0:
            return None
        return Solution(solution.x[:domains], float(solution.x[domains]))

    def _violation(self, weights_D: Array, change: float = 0.0) -> float:
        """Return the largest violation of the rows and of the sum of 1."""
        over_R = self.rows_RD @ weights_D - self.upper_R
        if self.relief_R is not None:
            over_R = over_R - change * self.relief_R
        return max(float(over_R.max(initial=0.0)), abs(float(weights_D.sum()) - 1.0))


def are_linear(convex: Sequence[ConvexLimit]) -> bool:
    """Return whether all convex limits have a linear form."""
    return not _smooth(convex)


def _smooth(convex: Sequence[ConvexLimit]) -> list[ConvexLimit]:
    """Return the convex limits without a linear form, of which solvers use value and gradient."""
    return [limit for limit in convex if limit.linear_form is None]


def minimize_slsqp(
    cost: DifferentiableFunction,
    start_X: Array,
    polytope: Polytope,
    convex: Sequence[ConvexLimit] = (),
    positive: Sequence[DifferentiableFunction] = (),
    *,
    relaxed: Sequence[ConvexLimit] = (),
    accuracy: float = ACCURACY,
) -> Array:
    """Return the end of a descent over weights and further variables, shape (X,).

    Args:
        cost: The function to minimise.
        start_X: The weights, then further variables.
        polytope: Linear limits on the weights.
        convex: Convex limits on the weights.
        positive: Functions that must be >= 0.
        relaxed: Convex limits whose bounds the first further variable raises.
        accuracy: Change of the cost at which the descent ends.
    """
    from scipy.optimize import minimize

    count = len(start_X)
    domains = len(polytope.lower_D)
    rows_RX, upper_R = polytope.program_rows(count - domains, convex, relaxed)
    ties = polytope.ties or Ties(np.ones((1, domains)), np.ones(1))
    inequalities = DifferentiableFunction(lambda x: upper_R - rows_RX @ x, lambda _: -rows_RX)
    equalities = DifferentiableFunction(
        lambda x: ties.rows_ED @ x[:domains] - ties.values_E, lambda _: ties.rows_ED
    )
    conditions = [_condition("ineq", function, count) for function in positive]
    if len(ties.values_E):
        conditions.append(_condition("eq", equalities, domains))
    if len(upper_R):
        conditions.append(_condition("ineq", inequalities, rows_RX.shape[1]))
    rooms = [_room(limit) for limit in _smooth(convex)]
    conditions += [_condition("ineq", room, domains) for room in rooms]
    raised_rooms = [_raised_room(limit, domains) for limit in _smooth(relaxed)]
    conditions += [_condition("ineq", room, domains + 1) for room in raised_rooms]
    first_X = start_X
    for limit in [*convex, *relaxed]:
        if limit.linear_form is not None:
            further_U = limit.linear_form.further_at(start_X[:domains])
            first_X = np.concatenate([first_X, further_U])
    bounds: list[Any] = [*zip(polytope.lower_D.tolist(), polytope.upper_D.tolist(), strict=True)]
    bounds += [(None, None)] * (count - domains)
    bounds += [(0.0, 1.0)] * (len(first_X) - count)
    solution = minimize(
        lambda x: float(cost.values(x[:count])[0]),
        first_X,
        jac=lambda x: np.append(cost.slopes(x[:count])[0], np.zeros(len(x) - count)),
        bounds=bounds,
        constraints=conditions,
        method="SLSQP",
        options={"maxiter": STEPS, "ftol": accuracy},
    )
    end_X = np.asarray(solution.x)[:count]
    return end_X if np.isfinite(end_X).all() else start_X


def _weights(solution: Solution | None) -> Array | None:
    return None if solution is None else solution.weights_D


def _last_variable(domains: int) -> DifferentiableFunction:
    """Return the one variable after the weights, as a cost."""
    slopes_1X = np.append(np.zeros(domains), 1.0)[None]
    return DifferentiableFunction(lambda x: x[-1:], lambda _: slopes_1X)


def _room(limit: ConvexLimit) -> DifferentiableFunction:
    """Return how far the weights are within a convex limit."""
    return DifferentiableFunction(
        lambda w: limit.upper - limit.value(w[None]), lambda w: -limit.gradient(w)[None]
    )


def _raised_room(limit: ConvexLimit, domains: int) -> DifferentiableFunction:
    """Return how far the weights are within a limit that the variable after them raises."""
    return DifferentiableFunction(
        lambda x: limit.upper + x[domains:] - limit.value(x[None, :domains]),
        lambda x: np.append(-limit.gradient(x[:domains]), 1.0)[None],
    )


def _condition(kind: str, smooth: DifferentiableFunction, first: int) -> dict[str, Any]:
    """Return a condition of SLSQP on the first variables, with slope 0 in all others."""

    def slopes(x: Array) -> Array:
        slopes = smooth.slopes(x[:first])
        return np.hstack([slopes, np.zeros((len(slopes), len(x) - slopes.shape[1]))])

    return {"type": kind, "fun": lambda x: smooth.values(x[:first]), "jac": slopes}
