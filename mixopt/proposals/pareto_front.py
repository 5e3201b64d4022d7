"""Pareto front of several objectives.

Each point minimises a weighted mean of the targets, each divided by its spread over the trials,
under the same constraints. For convex laws this finds every point of the front; the concave parts
of other fronts are missed. Dominated and equal points are left out.

Shapes: M targets, P points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mixopt.errors import ConfigError, did_you_mean
from mixopt.fitting import select_targets
from mixopt.objective import Objective, Unit
from mixopt.proposals.best_mixture import best_proposal
from mixopt.proposals.proposal import Proposal
from mixopt.proposals.request import ProposalRequest
from mixopt.system import Array, steady_progress, write_text
from mixopt.trials import WEIGHT, loss_column, settled

SAME = 1e-3  # total variation below which two points count as one


@dataclass(frozen=True)
class Front:
    """Proposals along a Pareto front.

    Attributes:
        targets: The targets.
        points: The proposals, by the first target's predicted loss, best first.
        unit: Unit of the losses.
        higher: Targets of which higher is better.
    """

    targets: tuple[str, ...]
    points: tuple[Proposal, ...]
    unit: Unit
    higher: tuple[str, ...] = ()

    def to_folder(self, folder: str | Path) -> None:
        """Write a proposal for each point, point-01.yaml ..., and front.csv to the folder."""
        rows = []
        for number, point in enumerate(self.points, start=1):
            point.to_file(Path(folder) / f"point-{number:02d}.yaml")
            losses = {loss_column(n, "nats_per_token"): point.losses[n].value for n in self.targets}
            weights = {WEIGHT + name: weight for name, weight in point.mixture.items()}
            rows.append({"point": number, **losses, **weights})
        write_text(Path(folder) / "front.csv", pl.DataFrame(rows).write_csv())

    def to_json(self) -> dict[str, Any]:
        """Return the points as JSON values."""
        points = [point.to_json() for point in self.points]
        return {"targets": list(self.targets), "unit": self.unit, "points": points}


def propose_front(request: ProposalRequest, targets: Sequence[str], *, points: int = 9) -> Front:
    """Find mixtures along the Pareto front of two or more targets.

    Raises:
        ConfigError: Fewer than two targets, or an unknown one.
    """
    fit, search = request.fit, request.search
    if len(set(targets)) < 2:
        raise ConfigError(
            f"a Pareto front needs two different targets or more; got {list(targets)}"
        )
    for name in targets:
        if name not in fit.targets:
            near = did_you_mean(name, fit.targets)
            raise ConfigError(f"unknown evaluation domain {name!r}{near}")

    def goal(weights_M: Array) -> Objective:
        weights = {n: float(w) for n, w in zip(targets, weights_M, strict=True) if w > 0}
        return settled(fit.objective.of("mean", weights, "spread"), fit.trials)

    columns = replace(request, goal=goal(np.ones(len(targets)))).needed_columns
    rng = np.random.default_rng([request.seed, 1])
    refits = fit.resampled(columns, count=search.bootstrap, rng=rng)
    proposals = []
    with steady_progress("front", points) as update:
        for weights_M in _lattice(len(targets), points):
            aimed = replace(request, goal=goal(weights_M))
            places = [columns.index(column) for column in aimed.needed_columns]
            aimed_refits = [select_targets(refit, places) for refit in refits]
            proposals.append(best_proposal(aimed, refits=aimed_refits))
            update(len(proposals), "points")
    front = _undominated(proposals, targets, fit.objective.higher)
    higher = tuple(name for name in targets if name in fit.objective.higher)
    return Front(tuple(targets), tuple(front), fit.objective.unit, higher)


def _lattice(targets: int, points: int) -> Array:
    """Return evenly spread weights of the targets, corners included, shape (P, M)."""
    steps = points - 1
    while targets > 2 and math.comb(steps + targets - 1, targets - 1) > points and steps > 1:
        steps -= 1
    places = combinations(range(steps + targets - 1), targets - 1)
    bars_PM = np.array([(-1, *place, steps + targets - 1) for place in places])
    return (np.diff(bars_PM, axis=1) - 1) / steps


def _undominated(
    points: Sequence[Proposal], targets: Sequence[str], higher: Sequence[str]
) -> list[Proposal]:
    """Return the undominated points, by the first target's loss."""
    signs_M = np.array([-1.0 if name in higher else 1.0 for name in targets])
    losses_PM = signs_M * np.array([[p.losses[n].value for n in targets] for p in points])
    undominated: list[Proposal] = []
    for place in np.lexsort(losses_PM.T[::-1]):
        no_worse_P = (losses_PM <= losses_PM[place]).all(axis=1)
        is_beaten = (no_worse_P & (losses_PM < losses_PM[place]).any(axis=1)).any()
        mixture = points[place].mixture
        if not is_beaten and all(
            mixture.total_variation(point.mixture) >= SAME for point in undominated
        ):
            undominated.append(points[place])
    return undominated
