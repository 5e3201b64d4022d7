"""How much a proposal moves when the trials are resampled.

Mixtures are drawn with replacement, each with all its replicates; the regressor is fitted again
with what it chose before (so that a refit is cheap), and the search runs again on fewer draws. The
total variation between each optimum and the proposal says how far the trials determine it. The
spread of the refits' predictions is the part of the uncertainty that comes from which mixtures
were tried.

Shapes: B refits, N trials, D domains, K compared mixtures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.objective import Array, Objective
from mixopt.progress import Update, no_progress
from mixopt.regressor import fit_regressor, make_regressor
from mixopt.search import Problem, search

if TYPE_CHECKING:
    from mixopt.config import ProposeConfig
    from mixopt.fitting import Fit

SAMPLES = 2_000


@dataclass(frozen=True, eq=False)
class Refits:
    """What the refits say.

    Attributes:
        optima_BD: The best mixture of each refit.
        values_BK: The objective that each refit predicts for the compared mixtures.
    """

    optima_BD: Array
    values_BK: Array

    def movement(self, proposal_D: Array) -> Array:
        """Return the total variation between the proposal and each optimum, shape (B,)."""
        moved: Array = 0.5 * np.abs(self.optima_BD - proposal_D).sum(axis=1)
        return moved


def refit(
    fit: Fit,
    objective: Objective,
    problem: Problem,
    compared_KD: Array,
    *,
    config: ProposeConfig,
    seed: int,
    update: Update = no_progress,
) -> Refits:
    """Fit and search again on resampled mixtures.

    Args:
        fit: What the proposal came from.
        objective: What was minimised, over all evaluation domains.
        problem: The search that the proposal came from.
        compared_KD: Mixtures of which the predictions are wanted.
        config: The search of the proposal; a refit draws at most `SAMPLES` mixtures.
        seed: Of the resampling and of the draws.
        update: Receives how many refits are done.
    """
    rng = np.random.default_rng([seed, 1])
    weights_ND = fit.trials.weights()
    losses_NM = fit.trials.losses(objective.unit)[:, objective.columns]
    few = min(config.samples, SAMPLES)
    kept = max(config.average * few // config.samples, 1)
    optima, values = [], []
    for _ in range(config.bootstrap):
        rows = _resampled(fit.trials.mixtures, rng)
        regressor = fit_regressor(
            fit.name, _unfitted(fit, problem), weights_ND[rows], losses_NM[rows]
        )
        again = replace(problem, regressor=regressor)
        found = search(again, config.method, samples=few, average=kept, seed=seed)
        optima.append(found.weights_D)
        values.append(again.value(compared_KD))
        update(len(values), "refits")
    return Refits(np.array(optima), np.array(values))


def _unfitted(fit: Fit, problem: Problem) -> Any:
    if hasattr(problem.regressor, "tuned"):
        return problem.regressor.tuned()
    return make_regressor(fit.name, fit.seed)


def _resampled(mixtures: list[str], rng: np.random.Generator) -> list[int]:
    """Draw as many mixtures as there are, with replacement; return the rows of all of them."""
    rows: dict[str, list[int]] = {}
    for row, mixture in enumerate(mixtures):
        rows.setdefault(mixture, []).append(row)
    names = list(rows)
    drawn = rng.integers(len(names), size=len(names))
    return [row for place in drawn for row in rows[names[place]]]
