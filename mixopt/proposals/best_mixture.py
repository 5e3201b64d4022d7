"""Propose a mixture: search with the fitted regressor, then say how sure the answer is.

Intervals hold 90%, by errors on held-out mixtures (mixopt.fitting.intervals). For a gain,
half-widths of both mixtures are added in quadrature, since both are predicted. To the objective and
the gains, the spread over refits on resampled trials is added in quadrature. They speak of trials
like those that were fitted, one seed each, not of another size or length; far from all trials they
are too narrow, which is a warning.

Shapes: N trials, D domains, M evaluation domains, B refits, K compared mixtures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.constraints import MISSED, Guards
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.fitting import select_targets
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals.collapsed_experts import SOURCE, Avoided
from mixopt.proposals.gradient_search import least_broken
from mixopt.proposals.mixture_search import search
from mixopt.proposals.optimism import Optimism, optimism
from mixopt.proposals.problem import Found, Problem
from mixopt.proposals.proposal import Interval, Proposal, Stability
from mixopt.proposals.proposal_warnings import proposal_warnings
from mixopt.proposals.risk import Risk
from mixopt.proposals.stability import Refits, ResampledFits, resampled_fits, search_again
from mixopt.proposals.unmeasured_domains import keeping_unmeasured
from mixopt.system import Array, Update, no_progress

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
    fits: ResampledFits | None = None,
    collapsed: Collection[str] | None = None,
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
        fits: Refits on resampled trials of all losses that objective and guardrails need; they
            are made here when None.
        collapsed: Names of the trials whose experts collapsed; None where trials have no experts.
        update: Receives how many refits on resampled trials are done.

    Raises:
        ConfigError: The gradient method with a regressor that has none, another unit than the
            fit's, constraints on other domains, or a risk that this fit cannot tell.
        InfeasibleError: No mixture is found that keeps the guardrails.
    """
    from mixopt.proposals.validation import best_trial

    _check_same_fit(fit, objective, constraints)
    compared = _compared(natural.over(fit.domains), trials, objective)
    constraints, kept = keeping_unmeasured(
        constraints, compared["natural"], fit.targets, config.keep_unmeasured
    )
    needed = needed_columns(objective, constraints)
    if fits is None:
        fits = resampled_fits(fit, needed, count=config.bootstrap, seed=seed, update=update)
    again = fits.of(needed)
    problem = _problem(fit, objective, constraints, compared, trials, _risk(config, fit, again))
    if constraints.guardrails is not None and constraints.guardrails.experts:
        problem = replace(problem, avoided=Avoided.of(trials, collapsed))
    found = search(
        problem, config.method, samples=config.samples, average=config.average, seed=seed
    )
    _check_guardrails(problem, found, constraints, fit.domains)
    mixture = _settled(fit.domains, found.weights_D)
    points_KD = np.stack([mixture.array, *(one.array for one in compared.values())])
    refits = search_again(again, problem, points_KD, config=config, seed=seed) if again else None
    predicted = fit.predict(points_KD, objective)
    halves_K = predicted.objective_high_N - predicted.objective_N
    confidence = _Confidence(fit, objective, predicted.objective_N, halves_K, refits)
    proposal = Proposal(
        mixture=mixture,
        natural=compared["natural"],
        objective=objective.describe(),
        unit=objective.value_unit,
        predicted_objective=confidence.proposal(),
        gains={name: confidence.gain(place) for place, name in enumerate(compared, start=1)},
        best_trial=best_trial(trials, objective)[0],
        best_observed=_best_observed(fit, objective),
        losses=confidence.losses(mixture),
        epochs=_epochs(mixture, inventory, config.target_tokens),
        binding=(*constraints.binding(mixture), *_guarding(problem, mixture)),
        stability=_stability(refits, mixture),
        optimism=_optimism(fit, objective, problem, refits),
        warnings=(),
        provenance=_provenance(fit, found, config, seed),
    )
    warnings = proposal_warnings(proposal, fit, objective, constraints, kept, collapsed or ())
    return replace(proposal, warnings=warnings)


@dataclass(frozen=True)
class _Confidence:
    """Intervals around predictions, from held-out errors and refits.

    `values_K` is the predicted objective of the proposal, then of what it is compared with;
    `halves_K` half of the width of its interval.
    """

    fit: Fit
    objective: Objective
    values_K: Array
    halves_K: Array
    refits: Refits | None

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


def _spread(values_B: Array) -> float:
    """Return how far from their median 90% of the refits' predictions are."""
    return float(np.quantile(np.abs(values_B - np.median(values_B)), LEVEL))


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


def _best_observed(fit: Fit, objective: Objective) -> float:
    values_N = objective.value(fit.carried(fit.trials.losses(objective.unit)))
    return round(float(values_N.min()), 6)


def _compared(natural: Mixture, trials: Trials, objective: Objective) -> dict[str, Mixture]:
    from mixopt.proposals.validation import best_trial

    return {
        "natural": natural,
        "uniform": Mixture.uniform(natural.domains),
        "best_trial": best_trial(trials, objective)[1].over(natural.domains),
    }


def needed_columns(objective: Objective, constraints: Constraints) -> list[int]:
    """Return positions of the losses that an objective and guardrails depend on."""
    rails = constraints.guardrails
    guarded = [] if rails is None else rails.margins(objective.evaluation)
    names = dict.fromkeys([*objective.measured, *guarded])
    return [objective.evaluation.index(name) for name in names]


def _problem(
    fit: Fit,
    objective: Objective,
    constraints: Constraints,
    compared: Mapping[str, Mixture],
    trials: Trials,
    risk: Risk | None,
) -> Problem:
    done = trials.finished
    order = np.argsort(objective.value(done.losses(objective.unit)), kind="stable")[:KNOWN]
    needed = needed_columns(objective, constraints)
    rails, over = constraints.guardrails, objective.over([fit.targets[c] for c in needed])
    guarded = rails is not None and rails.margins(objective.evaluation)
    return Problem(
        select_targets(fit.regressor, needed),
        over,
        constraints.allowed,
        compared["natural"].array,
        done.weights()[order],
        Guards.on(over, rails, compared[rails.reference].array) if rails and guarded else None,
        risk,
    )


def _risk(config: ProposeConfig, fit: Fit, fits: Sequence[Any]) -> Risk | None:
    risk = config.risk
    if risk is None:
        return None
    if risk.quantile is not None:
        if not fits:
            raise ConfigError("propose.risk.quantile: needs propose.bootstrap of at least 1")
        return Risk(quantile=risk.quantile, refits=fits)
    assert risk.std is not None
    if not fit.held_out_stds().any():
        raise ConfigError(
            f"propose.risk.std: {fit.name} gives no standard deviations; use propose.risk.quantile,"
            " or a regressor that gives them, such as auto"
        )
    return Risk(deviations=risk.std)


def _check_guardrails(
    problem: Problem, found: Found, constraints: Constraints, domains: tuple[str, ...]
) -> None:
    """Refuse a search that found no mixture which keeps the guardrails."""
    avoided = problem.avoided
    if avoided is not None and avoided.excess(found.weights_D[None])[0] > MISSED:
        raise InfeasibleError(
            f"every allowed mixture that was found is nearest to one of the"
            f" {len(avoided.collapsed_KD)} trials whose experts collapsed: widen the other limits,"
            f" or leave {SOURCE} out"
        )
    if problem.guards is None or (problem.excess(found.weights_D[None]) <= MISSED).all():
        return
    nearest_D = found.weights_D
    if problem.has_gradient:
        nearest_D = least_broken(problem, nearest_D)
    held = constraints.binding(Mixture.from_array(domains, nearest_D))
    excess_G = problem.excess(nearest_D[None])[0]
    raise InfeasibleError(problem.guards.conflict(excess_G, held))


def _guarding(problem: Problem, mixture: Mixture) -> list[str]:
    held = [] if problem.avoided is None else problem.avoided.binding(mixture.array)
    if problem.guards is None:
        return held
    return [*problem.guards.binding(problem.excess(mixture.array[None])[0]), *held]


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


def _optimism(fit: Fit, objective: Objective, problem: Problem, refits: Refits | None) -> Optimism:
    observed_N = objective.value(fit.carried(fit.trials.losses(objective.unit)))
    predicted_N = objective.value(fit.carried(fit.held_out_losses()))
    if refits is None:
        return optimism(predicted_N, observed_N, None, None)
    return optimism(predicted_N, observed_N, refits.own_B, problem.value(refits.optima_BD))


def _epochs(
    mixture: Mixture, inventory: Mapping[str, int] | None, target_tokens: int | None
) -> dict[str, float] | None:
    if inventory is None or target_tokens is None:
        return None
    passes = {n: w * target_tokens / inventory[n] if w else 0.0 for n, w in mixture.items()}
    return {name: round(value, 4) for name, value in passes.items()}


def _provenance(fit: Fit, found: Found, config: ProposeConfig, seed: int) -> dict[str, Any]:
    from mixopt.system import __version__

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
