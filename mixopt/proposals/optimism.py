"""Optimism: how much better a proposal is predicted to be than it is, because it was selected.

The optimum of a fitted surface sits where its errors are lucky, and where a fit errs on the whole
among good mixtures, it errs at the optimum. Both are seen on trials that were held out: of those
that were predicted best, how much worse they turned out than predicted, on average. They are
chosen by what was predicted, not by what was observed, so the noise of a trial averages out.

Above 0 the prediction is optimistic, below 0 the proposal is better than predicted, as it is
where a fit shrinks towards the mean. In the objective's unit.

In known worlds it is right on average where a fit errs everywhere alike, and says no more of one
proposal than 0 does: it is a fact about held-out trials, not a
promise. Refits on resampled trials, each asked what it predicts at its own optimum, have the wrong
sign there.

Shapes: N trials.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from mixopt.system import Array

BEST = 0.1  # share of the held-out trials that count as predicted best
FEWEST = 3


@dataclass(frozen=True)
class Optimism:
    """By how much the predicted objective of an optimum is optimistic.

    None for a mixture without a search.
    """

    estimate: float | None

    def to_json(self) -> dict[str, float | None]:
        """Return the number as a plain value."""
        return asdict(self)


def estimate_optimism(predicted_N: Array, observed_N: Array) -> Optimism:
    """Estimate the optimism of a proposal.

    Args:
        predicted_N: Objective that was predicted for held-out trials.
        observed_N: Objective that they had.
    """
    count = max(FEWEST, int(np.ceil(BEST * len(predicted_N))))
    best = np.argsort(predicted_N, kind="stable")[:count]
    return Optimism(round(float((observed_N[best] - predicted_N[best]).mean()), 6))
