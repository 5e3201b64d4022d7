"""Evidence for a proposal: intervals, stability, optimism, and provenance.

Intervals hold 90%, by errors on held-out mixtures (mixopt.fitting.intervals). For a gain,
half-widths of both mixtures are added in quadrature, since both are predicted. To the objective and
the gains, the spread over refits on resampled trials is added in quadrature. They speak of trials
like those that were fitted, one seed each, not of another size or length; beyond the trials they
are wider, which is a warning.

Shapes: D domains, B refits, K compared mixtures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals.optimism import Optimism, estimate_optimism
from mixopt.proposals.problem import Found
from mixopt.proposals.proposal import Interval, Proposal, Stability
from mixopt.proposals.stability import Refits
from mixopt.system import Array, __version__
from mixopt.trials import best_trial

if TYPE_CHECKING:
    from mixopt.config import ProposeConfig
    from mixopt.fitting import Fit
    from mixopt.trials import Trials

LEVEL = 0.9


@dataclass(frozen=True, eq=False)
class Confidence:
    """Intervals around predictions, from held-out errors and refits.

    Attributes:
        fit: What predicts.
        objective: What was minimised.
        values_K: The predicted objective of the proposal, then of what it is compared with.
        halves_K: Half of the width of its interval, by held-out errors alone.
        refits: What refits on resampled trials say of the same mixtures; None without refits.
    """

    fit: Fit
    objective: Objective
    values_K: Array
    halves_K: Array
    refits: Refits | None

    @classmethod
    def of(cls, fit: Fit, objective: Objective, points_KD: Array, refits: Refits | None) -> Self:
        """Predict the proposal, the first of the points, and what it is compared with."""
        predicted = fit.predict(points_KD, objective)
        halves_K = predicted.objective_high_N - predicted.objective_N
        return cls(fit, objective, predicted.objective_N, halves_K, refits)

    def losses(self, mixture: Mixture) -> dict[str, Interval]:
        """Return the predicted losses of one mixture with their intervals."""
        predicted = self.fit.predict(mixture, self.objective)
        ends = zip(predicted.losses_NM[0], predicted.high_NM[0], strict=True)
        both = zip(self.fit.targets, ends, strict=True)
        return {name: Interval.around(loss, high - loss) for name, (loss, high) in both}

    def proposal(self) -> Interval:
        """Return the predicted objective of the proposal with its interval."""
        moved = 0.0 if self.refits is None else _spread(self.refits.values_BK[:, 0])
        return Interval.around(self.values_K[0], float(np.hypot(self.halves_K[0], moved)))

    def gain(self, place: int) -> Interval:
        """Return how much lower the proposal's objective is than that of another mixture."""
        error = float(np.hypot(self.halves_K[0], self.halves_K[place]))
        moved = 0.0
        if self.refits is not None:
            values_BK = self.refits.values_BK
            moved = _spread(values_BK[:, place] - values_BK[:, 0])
        gain = self.values_K[place] - self.values_K[0]
        return Interval.around(gain, float(np.hypot(error, moved)))


def described(
    mixture: Mixture,
    compared: Mapping[str, Mixture],
    confidence: Confidence,
    trials: Trials,
    *,
    inventory: Mapping[str, int] | None,
    target_tokens: int | None,
) -> Proposal:
    """Return what a fit says of any mixture; of how it was found, nothing.

    Args:
        mixture: The mixture.
        compared: What its gains are over, by name, in the order of the confidence's points.
        confidence: Predictions of it, then of what it is compared with.
        trials: The trials, among which the best observed one is found.
        inventory: Distinct tokens of each domain, for epochs.
        target_tokens: Length of the full run, for epochs.
    """
    objective = confidence.objective
    return Proposal(
        mixture=mixture,
        natural=compared["natural"],
        objective=objective.describe(),
        unit=objective.value_unit,
        predicted_objective=confidence.proposal(),
        gains={name: confidence.gain(place) for place, name in enumerate(compared, start=1)},
        best_trial=best_trial(trials, objective)[0],
        best_observed=best_observed(confidence.fit, objective),
        losses=confidence.losses(mixture),
        epochs=epochs_of(mixture, inventory, target_tokens),
        binding=(),
        stability=None,
        optimism=Optimism(None),
        warnings=(),
        provenance={},
    )


def stability_of(mixture: Mixture, refits: Refits | None) -> Stability | None:
    """Return how far a proposal moves over the refits; None without refits."""
    if refits is None:
        return None
    moved_B = refits.movement(mixture.array)
    high = float(np.quantile(moved_B, LEVEL))
    return Stability(len(moved_B), round(float(moved_B.mean()), 4), round(high, 4))


def optimism_of(fit: Fit, objective: Objective) -> Optimism:
    """Return by how much the predicted objective of a proposal is optimistic."""
    observed_N = fit.carried_values(fit.trials.losses(objective.unit), objective)
    predicted_N = fit.carried_values(fit.held_out_losses(), objective)
    return estimate_optimism(predicted_N, observed_N)


def best_observed(fit: Fit, objective: Objective) -> float:
    """Return the lowest objective that a trial was observed at, to six decimals."""
    values_N = fit.carried_values(fit.trials.losses(objective.unit), objective)
    return round(float(values_N.min()), 6)


def epochs_of(
    mixture: Mixture, inventory: Mapping[str, int] | None, target_tokens: int | None
) -> dict[str, float] | None:
    """Return the passes over each domain's tokens in the full run; None where not known."""
    if inventory is None or target_tokens is None:
        return None
    passes = {n: w * target_tokens / inventory[n] if w else 0.0 for n, w in mixture.items()}
    return {name: round(value, 4) for name, value in passes.items()}


def origin_of(fit: Fit, found: Found, config: ProposeConfig, seed: int) -> dict[str, Any]:
    """Return what a proposal was made from: its `provenance`."""
    return {
        "mixopt": __version__,
        "regressor": fit.name,
        "method": found.method,
        "samples": config.samples,
        "average": config.average,
        "risk": None if config.risk is None else config.risk.model_dump(exclude_none=True),
        "target_tokens": config.target_tokens,
        "trials": fit.fingerprint,
        "finished_trials": len(fit.trials),
        "seed": seed,
    }


def _spread(values_B: Array) -> float:
    """Return how far from their median 90% of the refits' predictions are."""
    return float(np.quantile(np.abs(values_B - np.median(values_B)), LEVEL))
