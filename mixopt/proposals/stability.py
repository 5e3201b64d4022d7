"""How much a proposal moves when the trials are resampled.

Mixtures are drawn with replacement, each with all its replicates; the regressor is fitted again
with what it chose before (so that a refit is cheap), and the search runs again on fewer draws. The
total variation between each optimum and the proposal says how far the trials determine it. The
spread of the refits' predictions is the part of the uncertainty that comes from which mixtures
were tried.

Shapes: B refits, N trials, D domains, K compared mixtures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.fitting import fit_regressor, make_regressor, select_targets
from mixopt.mixture import total_variation
from mixopt.proposals.mixture_search import search
from mixopt.proposals.problem import Problem
from mixopt.system import Array, Update, no_progress

if TYPE_CHECKING:
    from mixopt.config import ProposeConfig
    from mixopt.fitting import Fit

SAMPLES = 2_000


@dataclass(frozen=True, eq=False)
class ResampledFits:
    """Regressors fitted on resampled trials.

    Attributes:
        columns: Positions of the losses that they predict, among the fit's.
        regressors: The B regressors.
    """

    columns: tuple[int, ...]
    regressors: tuple[Any, ...]

    def of(self, columns: Sequence[int]) -> tuple[Any, ...]:
        """Return the regressors of some of the losses, by position among the fit's."""
        places = [self.columns.index(column) for column in columns]
        if places == list(range(len(self.columns))):
            return self.regressors
        return tuple(select_targets(one, places) for one in self.regressors)


@dataclass(frozen=True, eq=False)
class Refits:
    """What the refits say.

    Attributes:
        optima_BD: The best mixture of each refit.
        own_B: The objective that each refit predicts for its own best mixture.
        values_BK: The objective that each refit predicts for the compared mixtures.
    """

    optima_BD: Array
    own_B: Array
    values_BK: Array

    def movement(self, proposal_D: Array) -> Array:
        """Return the total variation between the proposal and each optimum, shape (B,)."""
        return total_variation(self.optima_BD, proposal_D)


def resampled_fits(
    fit: Fit,
    columns: Sequence[int],
    *,
    count: int,
    seed: int,
    update: Update = no_progress,
) -> ResampledFits:
    """Fit the chosen regressor again on resampled mixtures.

    Args:
        fit: What is fitted again.
        columns: Positions of the losses that are wanted.
        count: How many refits, B.
        seed: Of the resampling.
        update: Receives how many refits are done.
    """
    rng = np.random.default_rng([seed, 1])
    weights_ND = fit.rows()
    losses_NM = fit.trials.losses(fit.objective.unit)[:, list(columns)]
    selected = select_targets(fit.regressor, columns)
    fits: list[Any] = []
    for _ in range(count):
        rows = _resampled(fit.trials.mixtures, rng)
        again = _unfitted(fit, selected)
        fits.append(fit_regressor(fit.name, again, weights_ND[rows], losses_NM[rows]))
        update(len(fits), "refits")
    return ResampledFits(tuple(columns), tuple(fits))


def search_again(
    fits: Sequence[Any],
    problem: Problem,
    compared_KD: Array,
    *,
    config: ProposeConfig,
    seed: int,
) -> Refits:
    """Search with each refit as the proposal was searched, on fewer draws.

    Args:
        fits: Refits of the losses of the search.
        problem: The search that the proposal came from.
        compared_KD: Mixtures of which the predictions are wanted.
        config: The search of the proposal; a refit draws at most `SAMPLES` mixtures.
        seed: Of the draws.
    """
    few = min(config.samples, SAMPLES)
    kept = max(config.average * few // config.samples, 1)
    optima, own, values = [], [], []
    for regressor in fits:
        again = replace(problem, regressor=regressor, risk=None)
        found = search(again, config.method, samples=few, average=kept, seed=seed)
        optima.append(found.weights_D)
        own.append(float(again.value(found.weights_D[None])[0]))
        values.append(again.value(compared_KD))
    return Refits(np.array(optima), np.array(own), np.array(values))


def _unfitted(fit: Fit, regressor: Any) -> Any:
    if hasattr(regressor, "tuned"):
        return regressor.tuned()
    return make_regressor(fit.name, fit.seed)


def _resampled(mixtures: list[str], rng: np.random.Generator) -> list[int]:
    """Draw as many mixtures as there are, with replacement; return the rows of all of them."""
    rows: dict[str, list[int]] = {}
    for row, mixture in enumerate(mixtures):
        rows.setdefault(mixture, []).append(row)
    names = list(rows)
    drawn = rng.integers(len(names), size=len(names))
    return [row for place in drawn for row in rows[names[place]]]
