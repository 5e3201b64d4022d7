"""How much a proposal moves when the trials are resampled.

The regressor is fitted again on resampled mixtures (mixopt.fitting.refits), and the search runs
again on fewer draws. The total variation between each optimum and the proposal says how far the
trials determine it. The spread of the refits' predictions is the part of the uncertainty that comes
from which mixtures were tried.

Shapes: B refits, D domains, K compared mixtures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mixopt.fitting import Predictor
from mixopt.mixture import total_variation
from mixopt.proposals.mixture_search import search
from mixopt.proposals.problem import Problem
from mixopt.system import Array, Update, no_progress

if TYPE_CHECKING:
    from mixopt.config import ProposeConfig

SAMPLES = 2_000
FEWER = 400  # where a descent goes on from them
DESCENTS = 2


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
        return total_variation(self.optima_BD, proposal_D)


def search_again(
    fits: Sequence[Predictor],
    problem: Problem,
    compared_KD: Array,
    *,
    config: ProposeConfig,
    seed: int,
    update: Update = no_progress,
) -> Refits:
    """Search with each refit as the proposal was searched, on fewer draws.

    Args:
        fits: Refits of the losses of the search.
        problem: The search that the proposal came from.
        compared_KD: Mixtures of which the predictions are wanted, the proposal first.
        config: The search of the proposal; a refit draws fewer mixtures, `SAMPLES` at most.
        seed: Of the draws.
        update: Receives how many refits were searched.
    """
    optima, values = [], []
    for regressor in fits:
        again = replace(problem, regressor=regressor, risk=None)
        if again.has_gradient:
            # From the proposal too, near which the optimum of a refit often is.
            known_KD = np.vstack([compared_KD[:1], problem.known_ND])
            again = replace(again, known_ND=known_KD)
        most = FEWER if again.has_gradient and config.method != "simulation" else SAMPLES
        few = min(config.samples, most)
        kept = max(config.average * few // config.samples, 1)
        found = search(
            again, config.method, samples=few, average=kept, seed=seed, descents=DESCENTS
        )
        optima.append(found.weights_D)
        values.append(again.value(compared_KD))
        update(len(optima), "")
    return Refits(np.array(optima), np.array(values))
