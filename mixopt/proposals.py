"""Propose a mixture: search with the fitted regressor, then say how sure the answer is.

Intervals hold 90%. For a loss they are the quantile of the chosen regressor's errors on held-out
mixtures. For a gain it is the quantile of the difference of two such errors, since both mixtures
are predicted. To the objective and the gains, the spread over refits on resampled trials is added
in quadrature. They speak of trials like those that were fitted, one seed each, not of another
size or length; far from all trials they are too narrow, which is a warning.

Shapes: N trials, D domains, M evaluation domains, B refits, K compared mixtures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.errors import ConfigError
from mixopt.mixture import Mixture
from mixopt.objective import Array, Objective
from mixopt.progress import Update, no_progress
from mixopt.proposal_file import Interval, Proposal, Stability
from mixopt.proposal_warnings import proposal_warnings
from mixopt.regressor import select_targets
from mixopt.search import Found, Problem, search
from mixopt.stability import Refits, refit

if TYPE_CHECKING:
    from mixopt.config import ProposeConfig
    from mixopt.constraints import Constraints
    from mixopt.fitting import Fit
    from mixopt.trials import Trials

__all__ = ["Interval", "Proposal", "Stability", "propose_mixture"]

LEVEL = 0.9
NOTHING = 1e-13  # a weight below is what rounding leaves of 0
KNOWN = 8  # best trials that the search scores too


def propose_mixture(
    fit: Fit,
    objective: Objective,
    constraints: Constraints,
    natural: Mixture,
    trials: Trials,
    config: ProposeConfig,
    *,
    inventory: Mapping[str, int] | None = None,
    seed: int = 0,
    update: Update = no_progress,
) -> Proposal:
    """Find the allowed mixture with the best predicted objective.

    Args:
        fit: The chosen regressor.
        objective: What to minimise, in the unit of the fit.
        constraints: What is allowed.
        natural: Each domain's share of the tokens that there are.
        trials: The trials, among which the best observed one is found.
        config: How to search.
        inventory: Distinct tokens of each domain; epochs need it and `config.target_tokens`.
        seed: Of the draws.
        update: Receives how many refits on resampled trials are done.

    Raises:
        ConfigError: The gradient method with a regressor that has none, another unit than the
            fit's, or constraints on other domains.
    """
    from mixopt.validation import best_trial

    _check_same_fit(fit, objective, constraints)
    compared = _compared(natural.over(fit.domains), trials, objective)
    problem = _problem(fit, objective, constraints, compared["natural"], trials)
    found = search(
        problem, config.method, samples=config.samples, average=config.average, seed=seed
    )
    mixture = _settled(fit.domains, found.weights_D)
    points_KD = np.stack([mixture.array, *(one.array for one in compared.values())])
    refits = None
    if config.bootstrap:
        refits = refit(fit, objective, problem, points_KD, config=config, seed=seed, update=update)
    confidence = _Confidence(fit, objective, problem.value(points_KD), refits)
    proposal = Proposal(
        mixture=mixture,
        natural=compared["natural"],
        objective=objective.describe(),
        unit=objective.unit,
        predicted_objective=confidence.proposal(),
        gains={name: confidence.gain(place) for place, name in enumerate(compared, start=1)},
        best_trial=best_trial(trials, objective)[0],
        best_observed=_best_observed(trials, objective),
        losses=confidence.losses(mixture),
        epochs=_epochs(mixture, inventory, config.target_tokens),
        binding=tuple(constraints.binding(mixture)),
        stability=_stability(refits, mixture),
        warnings=(),
        provenance=_provenance(fit, found, config, seed),
    )
    return replace(proposal, warnings=proposal_warnings(proposal, fit, objective, constraints))


@dataclass(frozen=True)
class _Confidence:
    """Intervals around predictions, from held-out errors and refits.

    `values_K` is the predicted objective of the proposal, then of what it is compared with.
    """

    fit: Fit
    objective: Objective
    values_K: Array
    refits: Refits | None

    def losses(self, mixture: Mixture) -> dict[str, Interval]:
        """Return the predicted losses of one mixture with their intervals."""
        losses_M = self.fit.predict(mixture).losses_NM[0]
        halves_M = [_quantile(np.abs(errors_N)) for errors_N in self.fit.held_out_errors().T]
        both = zip(self.fit.targets, losses_M, halves_M, strict=True)
        return {name: Interval.around(loss, half) for name, loss, half in both}

    def proposal(self) -> Interval:
        """Return the predicted objective of the proposal with its interval."""
        error = _quantile(np.abs(self.fit.objective_errors(self.objective)))
        moved = 0.0 if self.refits is None else _spread(self.refits.values_BK[:, 0])
        return Interval.around(self.values_K[0], float(np.hypot(error, moved)))

    def gain(self, place: int) -> Interval:
        """Return how much lower the proposal's objective is than that of another mixture."""
        errors_N = self.fit.objective_errors(self.objective)
        pairs = np.triu_indices(len(errors_N), 1)
        error = _quantile(np.abs(errors_N[:, None] - errors_N[None])[pairs])
        moved = 0.0
        if self.refits is not None:
            values_BK = self.refits.values_BK
            moved = _spread(values_BK[:, place] - values_BK[:, 0])
        gain = self.values_K[place] - self.values_K[0]
        return Interval.around(gain, float(np.hypot(error, moved)))


def _spread(values_B: Array) -> float:
    """Return how far from their median 90% of the refits' predictions are."""
    return float(np.quantile(np.abs(values_B - np.median(values_B)), LEVEL))


def _quantile(sizes_N: Array) -> float:
    """Return the size that a new error stays below with probability `LEVEL` (split conformal)."""
    count = len(sizes_N)
    rank = min(int(np.ceil((count + 1) * LEVEL)), count)
    return float(np.sort(sizes_N)[rank - 1])


def _check_same_fit(fit: Fit, objective: Objective, constraints: Constraints) -> None:
    if objective.unit != fit.objective.unit:
        raise ConfigError(
            f"objective.unit is {objective.unit}, and the fit was made in {fit.objective.unit}:"
            " fit again, or use that unit"
        )
    if tuple(constraints.domains) != fit.domains:
        raise ConfigError(
            f"the constraints are on domains {', '.join(constraints.domains)}; the fit has"
            f" {', '.join(fit.domains)}"
        )


def _best_observed(trials: Trials, objective: Objective) -> float:
    values_N = objective.value(trials.finished.losses(objective.unit))
    return round(float(values_N.min()), 6)


def _compared(natural: Mixture, trials: Trials, objective: Objective) -> dict[str, Mixture]:
    from mixopt.validation import best_trial

    return {
        "natural": natural,
        "uniform": Mixture.uniform(natural.domains),
        "best_trial": best_trial(trials, objective)[1].over(natural.domains),
    }


def _problem(
    fit: Fit, objective: Objective, constraints: Constraints, natural: Mixture, trials: Trials
) -> Problem:
    done = trials.finished
    order = np.argsort(objective.value(done.losses(objective.unit)), kind="stable")[:KNOWN]
    regressor = select_targets(fit.regressor, objective.columns)
    known_ND = done.weights()[order]
    return Problem(
        regressor, objective.only_measured(), constraints.simplex, natural.array, known_ND
    )


def _settled(domains: tuple[str, ...], weights_D: Array) -> Mixture:
    """Return a mixture that is the same when it is written and read: rescaling changes nothing."""
    mixture = Mixture.from_array(domains, np.where(weights_D < NOTHING, 0.0, weights_D))
    for _ in range(8):
        again = Mixture(dict(mixture))
        if again == mixture:
            break
        mixture = again
    return mixture


def _stability(refits: Refits | None, mixture: Mixture) -> Stability | None:
    if refits is None:
        return None
    moved_B = refits.movement(mixture.array)
    high = float(np.quantile(moved_B, LEVEL))
    return Stability(len(moved_B), round(float(moved_B.mean()), 4), round(high, 4))


def _epochs(
    mixture: Mixture, inventory: Mapping[str, int] | None, target_tokens: int | None
) -> dict[str, float] | None:
    if inventory is None or target_tokens is None:
        return None
    passes = {n: w * target_tokens / inventory[n] if w else 0.0 for n, w in mixture.items()}
    return {name: round(value, 4) for name, value in passes.items()}


def _provenance(fit: Fit, found: Found, config: ProposeConfig, seed: int) -> dict[str, Any]:
    from mixopt import __version__

    return {
        "mixopt": __version__,
        "regressor": fit.name,
        "method": found.method,
        "samples": config.samples,
        "average": config.average,
        "target_tokens": config.target_tokens,
        "trials": fit.fingerprint,
        "finished_trials": len(fit.trials),
        "seed": seed,
    }
