"""How much better a proposal looks than it is, because it was chosen for looking good.

The optimum of a fitted surface sits where its errors are lucky. Two estimates say by how much:

- refits: each regressor fitted on resampled trials is asked what it predicts at its own optimum,
  and the fit on all trials what it predicts there. The mean difference is the optimism of
  choosing by a fit of so many trials (Efron's bootstrap estimate, with the full fit as truth).
- held_out: of the trials that were predicted best while they were held out, how much worse they
  turned out than predicted, on average.

Both are in the objective's unit, above 0 where the promise is too good.

Shapes: N trials, B refits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from mixopt.system import Array

BEST = 0.1  # share of the held-out trials that count as predicted best
FEWEST = 3


@dataclass(frozen=True)
class Optimism:
    """By how much the predicted objective of an optimum is too good, by two estimates.

    Both are None for a mixture that nobody searched for.
    """

    refits: float | None
    held_out: float | None

    def to_json(self) -> dict[str, float | None]:
        """Return the numbers as plain values."""
        return asdict(self)


def estimate_optimism(
    predicted_N: Array, observed_N: Array, own_B: Array | None, full_B: Array | None
) -> Optimism:
    """Estimate the optimism of a proposal.

    Args:
        predicted_N: Objective that was predicted for held-out trials.
        observed_N: Objective that they had.
        own_B: Objective that each refit predicts at its own optimum; None without refits.
        full_B: Objective that the fit on all trials predicts at these optima.
    """
    count = max(FEWEST, int(np.ceil(BEST * len(predicted_N))))
    best = np.argsort(predicted_N, kind="stable")[:count]
    held_out = float((observed_N[best] - predicted_N[best]).mean())
    moved = None if own_B is None or full_B is None else round(float((full_B - own_B).mean()), 6)
    return Optimism(moved, round(held_out, 6))
