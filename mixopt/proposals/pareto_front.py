"""Several objectives at once: the Pareto front, where improving one target costs another.

Each point minimises a weighted mean of the targets, each loss divided by its spread over the
trials, under the same constraints. On convex laws every point of the front is found that way; where
a law is not convex the dents of its front are missed. Points that another one beats on every
target, and points that say the same, are left out.

Shapes: M targets, P points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from mixopt.errors import ConfigError, did_you_mean
from mixopt.mixture import total_variation
from mixopt.objective import Objective, Unit
from mixopt.proposals.best_mixture import propose_mixture
from mixopt.proposals.proposal import Interval, Proposal
from mixopt.proposals.request import ProposalRequest
from mixopt.system import Array, Update, no_progress, write_text
from mixopt.trials import WEIGHT, loss_column, settled

if TYPE_CHECKING:
    from mixopt.fitting import Fit

SAME = 1e-3  # total variation below which two points are one


@dataclass(frozen=True)
class FrontPoint:
    """A proposal, and how much each target counted in what it minimises."""

    importance: Mapping[str, float]
    proposal: Proposal

    @property
    def losses(self) -> Mapping[str, Interval]:
        """Predicted losses with their intervals."""
        return self.proposal.losses


@dataclass(frozen=True)
class Front:
    """Proposals that trade targets against each other.

    Attributes:
        targets: What is traded.
        points: The proposals, by the first target's predicted loss, the best first.
        unit: Unit of the losses.
    """

    targets: tuple[str, ...]
    points: tuple[FrontPoint, ...]
    unit: Unit

    def table(self) -> pl.DataFrame:
        """Return a row a point: its number, its targets' predicted losses, its weights."""
        rows = []
        for number, point in enumerate(self.points, start=1):
            losses = {
                loss_column(name, "nats_per_token"): point.losses[name].value
                for name in self.targets
            }
            weights = {WEIGHT + name: w for name, w in point.proposal.mixture.items()}
            rows.append({"point": number, **losses, **weights})
        return pl.DataFrame(rows)

    def to_folder(self, folder: str | Path) -> None:
        """Write a proposal a point, point-01.yaml ..., and front.csv into the folder."""
        folder = Path(folder)
        for number, point in enumerate(self.points, start=1):
            point.proposal.to_file(folder / f"point-{number:02d}.yaml")
        write_text(folder / "front.csv", self.table().write_csv())

    def to_json(self) -> dict[str, Any]:
        """Return the points as plain values."""
        points = [{"importance": dict(p.importance), **p.proposal.to_json()} for p in self.points]
        return {"targets": list(self.targets), "unit": self.unit, "points": points}


def propose_front(
    request: ProposalRequest,
    targets: Sequence[str],
    *,
    points: int = 9,
    update: Update = no_progress,
) -> Front:
    """Find mixtures along the front of two or more targets."""
    fit, search = request.fit, request.search
    _check(targets, fit)
    every = replace(request, goal=_objective(fit, targets, np.ones(len(targets))))
    fits = fit.resampled(every.needed_columns, count=search.bootstrap, seed=request.seed)
    found = []
    for weights_M in _lattice(len(targets), points):
        goal = _objective(fit, targets, weights_M)
        proposal = propose_mixture(replace(request, goal=goal), fits=fits)
        found.append(FrontPoint(dict(zip(targets, weights_M.tolist(), strict=True)), proposal))
        update(len(found), "points")
    kept = _undominated(found, targets, fit.objective.higher)
    return Front(tuple(targets), tuple(kept), fit.objective.unit)


def _check(targets: Sequence[str], fit: Fit) -> None:
    if len(set(targets)) < 2:
        raise ConfigError(
            f"a Pareto front needs two different targets or more; got {list(targets)}"
        )
    for name in targets:
        if name not in fit.targets:
            near = did_you_mean(name, fit.targets)
            raise ConfigError(f"unknown evaluation domain {name!r}{near}")


def _objective(fit: Fit, targets: Sequence[str], weights_M: Array) -> Objective:
    weights = {n: float(w) for n, w in zip(targets, weights_M, strict=True) if w > 0}
    return settled(fit.objective.of("mean", weights, "spread"), fit.trials)


def _lattice(targets: int, points: int) -> Array:
    """Return weights of the targets, evenly spread, corners included, shape (P, M)."""
    steps = points - 1
    while targets > 2 and math.comb(steps + targets - 1, targets - 1) > points and steps > 1:
        steps -= 1
    places = combinations(range(steps + targets - 1), targets - 1)
    bars_PM = np.array([(-1, *place, steps + targets - 1) for place in places])
    lattice: Array = (np.diff(bars_PM, axis=1) - 1) / steps
    return lattice


def _undominated(
    points: Sequence[FrontPoint], targets: Sequence[str], higher: Sequence[str]
) -> list[FrontPoint]:
    """Return the points that no other beats on all targets, by the first target's loss."""
    signs_M = np.array([-1.0 if name in higher else 1.0 for name in targets])
    losses_PM = signs_M * np.array([[p.losses[n].value for n in targets] for p in points])
    kept: list[int] = []
    for place in np.lexsort(losses_PM.T[::-1]):
        others_PM = np.delete(losses_PM, place, axis=0)
        beaten = (others_PM <= losses_PM[place]).all(axis=1) & (others_PM < losses_PM[place]).any(
            axis=1
        )
        same = any(_apart(points[place], points[other]) < SAME for other in kept)
        if not beaten.any() and not same:
            kept.append(int(place))
    return [points[place] for place in kept]


def _apart(one: FrontPoint, other: FrontPoint) -> float:
    return float(total_variation(one.proposal.mixture.array, other.proposal.mixture.array))
