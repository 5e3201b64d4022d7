"""Go downhill inside limits, by sequential quadratic programming (SLSQP).

Bounds, rows and the KL divergence enter as they are. Total variation has kinks; with variables for
how far each weight is from the reference it is linear.

Shapes: D domains, R rows, X variables: the weights, then those that the caller adds; P values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.constraints.radius import Radius
from mixopt.system import Array

if TYPE_CHECKING:
    from mixopt.constraints.solvers import Rows

STEPS = 300


@dataclass(frozen=True, eq=False)
class Smooth:
    """A smooth function of the variables: its values, shape (P,), and slopes, shape (P, X)."""

    values: Callable[[Array], Array]
    slopes: Callable[[Array], Array]


def downhill(
    cost: Smooth,
    start_X: Array,
    rows: Rows,
    radius: Radius | None = None,
    positive: Sequence[Smooth] = (),
    *,
    accuracy: float = 1e-10,
) -> Array:
    """Return where the descent ends, shape (X,).

    Args:
        cost: What is minimised; P is 1.
        start_X: Weights, then further variables, which have no bounds.
        rows: Limits of the weights.
        radius: Most distance from a reference.
        positive: Functions that are to be >= 0 besides.
        accuracy: Change of the cost at which the descent stops.

    Returns:
        Variables that meet the limits about to the accuracy.
    """
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


def _bounds(rows: Rows, own: int, apart: Radius | None) -> list[tuple[float | None, float | None]]:
    domains = len(rows.lower_D)
    free: list[tuple[float | None, float | None]] = [(None, None)] * (own - domains)
    lifted: list[tuple[float | None, float | None]] = [(0.0, 1.0)] * domains if apart else []
    return [*zip(rows.lower_D.tolist(), rows.upper_D.tolist(), strict=True), *free, *lifted]


def _conditions(
    rows: Rows, radius: Radius | None, positive: Sequence[Smooth], own: int
) -> list[dict[str, Any]]:
    domains = len(rows.lower_D)
    ties_ED, values_E = (np.ones((1, domains)), np.ones(1)) if rows.ties is None else rows.ties
    tied = Smooth(lambda x: ties_ED @ x[:domains] - values_E, lambda _: ties_ED)
    met = Smooth(lambda x: rows.most_R - rows.rows_RD @ x[:domains], lambda _: -rows.rows_RD)
    conditions = [_condition("ineq", _of_first(one, own)) for one in positive]
    if len(values_E):
        conditions.append(_condition("eq", tied))
    if len(rows.most_R):
        conditions.append(_condition("ineq", met))
    if radius is not None and radius.kind == "kl":
        near = Smooth(
            lambda x: radius.size - radius.distance(x[None, :domains]),
            lambda x: -radius.slope(x[:domains])[None],
        )
        conditions.append(_condition("ineq", near))
    elif radius is not None:
        conditions.append(_condition("ineq", _lifted(radius, own)))
    return conditions


def _of_first(smooth: Smooth, own: int) -> Smooth:
    """Return a function of the variables before those that lift a radius."""
    return Smooth(lambda x: smooth.values(x[:own]), lambda x: smooth.slopes(x[:own]))


def _condition(kind: str, smooth: Smooth) -> dict[str, Any]:
    """Return a condition of SLSQP; slopes are 0 for the variables that they do not mention."""

    def slopes(x: Array) -> Array:
        known = smooth.slopes(x)
        return np.pad(known, ((0, 0), (0, len(x) - known.shape[1])))

    return {"type": kind, "fun": smooth.values, "jac": slopes}


def _lifted(radius: Radius, own: int) -> Smooth:
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

    return Smooth(values, lambda _: slopes)
