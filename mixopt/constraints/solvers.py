"""Programs over mixtures: the lowest point, the deepest in radii, the least change, and conflicts.

All are over weights within bounds that add up to 1 and meet rows of `row . w <= most`. They are
linear programs, solved to a vertex by HiGHS, also with total variation, which is linear once how
far each weight is from its reference has a variable of its own. With a divergence they are convex,
and sequential quadratic programming finds their one minimum.

Shapes: D domains, R rows, X variables: the weights, then those that the caller adds, then those
that make total variation linear; P values.
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
MAX_CHANGE = 1e12  # beyond which a change is none


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
    gives_R: Array | None = None  # by how much each row gives way for a unit of change
    ties: tuple[Array, Array] | None = None  # equalities of descents, in place of the sum

    def lowest(self, cost_D: Array) -> Array | None:
        """Return a mixture with the least cost, shape (D,); None where there is no mixture."""
        solved = self._solve(np.append(cost_D, 0.0))
        return None if solved is None else solved[0]

    def deepest(self, radii: Sequence[ConvexLimit]) -> Array | None:
        """Return a mixture that is as far as possible within radii, or as little beyond."""
        held = replace(self, gives_R=None)
        points = [point for one in radii if (point := held._nearest_to(one)) is not None]
        if len(points) < len(radii):
            return None
        if len(points) == 1:
            return points[0]
        start_D = np.mean(points, axis=0)
        beyond = max(float(one.value(start_D[None])[0]) - one.size for one in radii)
        start_X = np.append(start_D, beyond if np.isfinite(beyond) else 1.0)
        return held._inside(held._least_last(start_X, radii, giving=True), start_D)

    def least_change(self, radii: Sequence[ConvexLimit] = ()) -> float | None:
        """Return the least change, >= 0, at which a mixture meets everything; None for none."""
        kinked = [one for one in radii if one.kind == "tv"]
        solved = self._solve(self._last, kinked)
        if solved is None or len(kinked) == len(radii):
            return None if solved is None else solved[1]
        within = replace(self, upper_D=_within(self.upper_D, radii))
        end_X = within._least_last(np.append(*solved), radii)
        end_D, change = np.clip(end_X[:-1], 0.0, within.upper_D), float(end_X[-1])
        if not change < MAX_CHANGE or within._missed(end_D, change) > MISSED:
            return None
        return max(change, 0.0) if all(one.allows(end_D) for one in radii) else None

    def nearest(self, point_D: Array, start_D: Array, radii: Sequence[ConvexLimit]) -> Array:
        """Return the mixture nearest to a point, from one that is allowed; shape (D,)."""
        half = DifferentiableFunction(
            lambda w: 0.5 * ((w - point_D) ** 2).sum(keepdims=True), lambda w: (w - point_D)[None]
        )
        return minimize_slsqp(half, start_D, self, radii, accuracy=FINE)

    def over(
        self, further: int, kinked: Sequence[ConvexLimit], *, giving: bool = False
    ) -> tuple[Array, Array]:
        """Return all rows over weights, further variables and distances u, and their bounds.

        A total variation is u >= w - reference, u >= reference - w and sum u <= 2 size, which
        gives way with the first further variable where radii are `giving`.
        """
        domains = len(self.lower_D)
        own = np.zeros((len(self.rows_RD), further))
        if self.gives_R is not None and further:
            own[:, 0] = -self.gives_R
        rows, most = [np.hstack([self.rows_RD, own])], [self.most_R]
        for one in kinked:
            near = np.zeros((2 * domains + 1, domains + further))
            near[:domains, :domains], near[domains:-1, :domains] = np.eye(domains), -np.eye(domains)
            near[-1, domains : domains + giving] = -2.0
            rows.append(near)
            most += [one.center_D, -one.center_D, np.array([2.0 * one.size])]
        away = np.zeros((sum(map(len, rows)), domains * len(kinked)))
        for place in range(len(kinked)):
            at, column = len(self.rows_RD) + place * (2 * domains + 1), place * domains
            own_u = away[at : at + 2 * domains + 1, column : column + domains]
            own_u[:domains], own_u[domains:-1], own_u[-1] = -np.eye(domains), -np.eye(domains), 1.0
        return np.hstack([np.vstack(rows), away]), np.concatenate(most)

    @property
    def _last(self) -> Array:
        """The cost that is the last variable alone, shape (D + 1,)."""
        return np.append(np.zeros(len(self.lower_D)), 1.0)

    def _solve(
        self, cost: Array, kinked: Sequence[ConvexLimit] = (), *, giving: bool = False
    ) -> tuple[Array, float] | None:
        """Minimise a cost of weights and change by linear programming."""
        from scipy.optimize import linprog

        domains = len(self.lower_D)
        rows, most = self.over(1, kinked, giving=giving)
        further = rows.shape[1] - domains
        solution = linprog(
            np.pad(cost, (0, rows.shape[1] - len(cost))),
            A_ub=rows,
            b_ub=most,
            A_eq=np.pad(np.ones((1, domains)), ((0, 0), (0, further))),
            b_eq=[1.0],
            bounds=[*zip(self.lower_D, self.upper_D, strict=True), *[(0.0, None)] * further],
            method="highs",
            options={"primal_feasibility_tolerance": TOLERANCE},
        )
        return (solution.x[:domains], float(solution.x[domains])) if solution.status == 0 else None

    def _least_last(
        self, start_X: Array, radii: Sequence[ConvexLimit], *, giving: bool = False
    ) -> Array:
        """Minimise the variable after the weights, with which rows or radii give way."""
        last = DifferentiableFunction(lambda x: x[-1:], lambda _: self._last[None])
        return minimize_slsqp(last, start_X, self, radii, accuracy=FINE, giving=giving)

    def _nearest_to(self, radius: ConvexLimit) -> Array | None:
        """Return the mixture that is the least away from the reference of a radius."""
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
        """Return where a descent ended, or its start where that is not allowed."""
        near_D = np.clip(end_X[: len(start_D)], self.lower_D, self.upper_D)
        return near_D if self._missed(near_D) <= MISSED else start_D

    def _missed(self, weights_D: Array, change: float = 0.0) -> float:
        """Return by how much weights miss the rows and the sum of 1 at most."""
        gives_R = 0.0 if self.gives_R is None else self.gives_R
        over_R = self.rows_RD @ weights_D - self.most_R - change * gives_R
        return max(float(over_R.max(initial=0.0)), abs(float(weights_D.sum()) - 1.0))


MISSED = 1e-8  # by which a descent may miss a row


def _within(upper_D: Array, radii: Sequence[ConvexLimit]) -> Array:
    for one in radii:
        upper_D = one.within(upper_D)
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
    """Return where a descent of weights and further variables ends, shape (X,).

    Args:
        cost: What is minimised.
        start_X: The weights, then further variables.
        rows: What the weights meet.
        radii: Further limits on them.
        positive: Functions that are to be >= 0.
        accuracy: Change of the cost at which it ends.
        giving: Whether radii give way with the first further variable.
    """
    from scipy.optimize import minimize

    own, domains = len(start_X), len(rows.lower_D)
    kinked = [one for one in radii if one.kind == "tv"]
    apart = [np.abs(start_X[:domains] - one.center_D) for one in kinked]
    free: list[tuple[float | None, float | None]] = [(None, None)] * (own - domains)
    rows_RX, most_R = rows.over(own - domains, kinked, giving=giving)
    ties_ED, values_E = (np.ones((1, domains)), np.ones(1)) if rows.ties is None else rows.ties
    met = DifferentiableFunction(lambda x: most_R - rows_RX @ x, lambda _: -rows_RX)
    tied = DifferentiableFunction(lambda x: ties_ED @ x[:domains] - values_E, lambda _: ties_ED)
    smooth = [_room(one, domains, giving=giving) for one in radii if one.kind == "kl"]
    solution = minimize(
        lambda x: float(cost.values(x[:own])[0]),
        np.concatenate([start_X, *apart]),
        jac=lambda x: np.append(cost.slopes(x[:own])[0], np.zeros(len(x) - own)),
        bounds=[
            *zip(rows.lower_D.tolist(), rows.upper_D.tolist(), strict=True),
            *free,
            *[(0.0, 1.0)] * (domains * len(kinked)),
        ],
        constraints=[
            *(_condition("ineq", one, own) for one in positive),
            *([_condition("eq", tied, domains)] if len(values_E) else []),
            *([_condition("ineq", met, rows_RX.shape[1])] if len(most_R) else []),
            *(_condition("ineq", one, own) for one in smooth),
        ],
        method="SLSQP",
        options={"maxiter": STEPS, "ftol": accuracy},
    )
    end_X = np.asarray(solution.x, dtype=np.float64)[:own]
    return end_X if np.isfinite(end_X).all() else start_X


def _condition(kind: str, smooth: DifferentiableFunction, first: int) -> dict[str, Any]:
    """Return a condition of SLSQP on the first variables; the slopes of all others are 0."""

    def slopes(x: Array) -> Array:
        known = smooth.slopes(x[:first])
        return np.hstack([known, np.zeros((len(known), len(x) - known.shape[1]))])

    return {"type": kind, "fun": lambda x: smooth.values(x[:first]), "jac": slopes}


def _room(radius: ConvexLimit, domains: int, *, giving: bool) -> DifferentiableFunction:
    """Return how far weights are within a divergence."""

    def values(x: Array) -> Array:
        beyond = x[domains] if giving else 0.0
        return radius.size + beyond - radius.value(x[None, :domains])

    def slopes(x: Array) -> Array:
        own = -radius.slope(x[:domains])
        return np.append(own, 1.0)[None] if giving else own[None]

    return DifferentiableFunction(values, slopes)


@dataclass(frozen=True, eq=False)
class LimitSystem:
    """Limits that are to be met together."""

    domains: tuple[str, ...]
    limits: list[LinearLimit]
    convex: tuple[ConvexLimit, ...]

    @property
    def is_possible(self) -> bool:
        """Whether a mixture meets all of them."""
        if not self.convex:
            return self.rows().least_change() is not None
        deepest = self.rows().deepest(self.convex)
        return deepest is not None and all(one.allows(deepest) for one in self.convex)

    def smallest(self) -> LimitSystem:
        """Leave out what can be left out for the rest to be still in conflict."""
        system = self
        for gone in (self.convex, *((one,) for one in self.convex)):
            fewer = replace(system, convex=tuple(one for one in system.convex if one not in gone))
            system = system if fewer.is_possible else fewer
        for limit in self.limits:
            fewer = replace(system, limits=[one for one in system.limits if one is not limit])
            system = system if fewer.is_possible else fewer
        return system

    def explain(self, whole: LimitSystem) -> str:
        """Say what is in conflict, by how much, and the changes that resolve it."""
        texts: dict[str, list[str]] = {}
        hints: dict[str, str | None] = {}
        for one in self.limits:
            texts.setdefault(one.origin, []).append(one.text)
            hints.setdefault(one.moves_with, whole.hint(one.moves_with))
        for radius in self.convex:
            texts[radius.source] = [*texts.get(radius.source, ()), radius.text]
            hints[radius.text] = whole.radius_hint(radius)
        named = "; ".join(f"{source}: {', '.join(own)}" for source, own in texts.items())
        known = [hint for hint in hints.values() if hint]
        return (
            f"no mixture satisfies all of these limits{self._gap()} ({named}); "
            f"{', or '.join(known[:MAX_HINTS]) or 'change several of them'}"
        )

    def hint(self, setting: str) -> str | None:
        """Say the least change of one setting that is enough; None where none is."""
        own = [limit for limit in self.limits if limit.moves_with == setting]
        change = self.rows(own).least_change(self.convex)
        return None if change is None else own[0].hint(change)

    def radius_hint(self, radius: ConvexLimit) -> str | None:
        """Say the least radius that is enough; None where none is."""
        deepest = self.rows().deepest([radius])
        others = [one for one in self.convex if one is not radius]
        if deepest is None or not all(one.allows(deepest) for one in others):
            return None
        return f"allow {radius.enough(deepest)}"

    def _gap(self) -> str:
        """Say how far one bound would have to move at least, in shares of the tokens."""
        if not all(one.kind == "tv" for one in self.convex):
            return ""
        rows = [self.rows([limit], scaled=False) for limit in self.limits]
        gaps = [gap for one in rows if (gap := one.least_change(self.convex)) is not None]
        return f", short by {min(gaps):.3g}" if gaps else ""

    def rows(
        self, moving: Collection[LinearLimit] = (), *, scaled: bool = True
    ) -> LinearConstraints:
        """Return the limits as rows; those that move give way, from 0 where they scale."""
        most, gives = [], []
        for one in self.limits:
            from_0 = scaled and one.rate > 0 and one in moving
            most.append(0.0 if from_0 else one.sign * one.value)
            rate = one.rate * (one.setting or 1.0) if from_0 else 1.0
            gives.append(rate if one in moving else 0.0)
        domains = len(self.domains)
        rows_RD = np.array([one.row(self.domains) for one in self.limits]).reshape(-1, domains)
        ends = np.zeros(domains), np.ones(domains)
        return LinearConstraints(rows_RD, np.array(most), *ends, np.array(gives))
