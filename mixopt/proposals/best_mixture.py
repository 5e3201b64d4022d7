"""Propose a mixture: search with the fitted regressor, then say how sure the answer is.

What is searched is in mixopt.proposals.problem, the search in mixopt.proposals.mixture_search, how
sure the answer is in mixopt.proposals.best_mixture.

Shapes: D domains, K compared mixtures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mixopt.constraints import MISSED, Limit
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.fitting import ResampledFits, aimed, resampled_fits
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals.mixture_search import Refits, least_broken, search, search_again
from mixopt.proposals.problem import SOURCE, Found, Problem, Risk, needed_columns
from mixopt.proposals.proposal import Interval, Optimism, Proposal, Stability, estimate_optimism
from mixopt.proposals.proposal_warnings import proposal_warnings
from mixopt.system import Array, Update, __version__, no_progress, one_blas_thread
from mixopt.trials import best_trial

if TYPE_CHECKING:
    from mixopt.config import ProposeConfig
    from mixopt.constraints import Constraints
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


KEEP_SOURCE = "propose.keep_unmeasured"


def unmeasured(domains: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
    """Return the domains without a loss; none where the losses are not of domains at all."""
    if not set(domains) & set(targets):
        return ()
    return tuple(name for name in domains if name not in targets)


def keeping_unmeasured(
    constraints: Constraints, natural: Mixture, targets: Sequence[str], share: float
) -> tuple[Constraints, tuple[str, ...]]:
    """Return the constraints with a floor under each unmeasured domain, and their names.

    Args:
        constraints: What is allowed besides.
        natural: What the floors are shares of.
        targets: Names of all losses of the trials.
        share: Floor as a share of the natural weight; 0 sets none.

    A floor gives way to a cap of its domain. Floors that no allowed mixture meets are left out.
    """
    most = dict(zip(constraints.domains, constraints.upper_D.tolist(), strict=True))
    names = unmeasured(constraints.domains, targets) if share > 0 else ()
    floors = [Limit(n, min(share * natural[n], most[n]), KEEP_SOURCE, setting=share) for n in names]
    floors = [floor for floor in floors if floor.value > 0]
    if not floors:
        return constraints, ()
    try:
        return constraints.with_floors(floors), tuple(floor.domain for floor in floors)
    except InfeasibleError:
        return constraints, ()


NOTHING = 1e-13  # a weight below is what rounding leaves of 0


SEARCHING_AGAIN = "searching with refits"


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
        natural: Each domain's share of the available tokens.
        trials: The trials, among which the best observed one is found.
        config: How to search.
        inventory: Distinct tokens of each domain; epochs need it and `config.target_tokens`.
        seed: Of the draws.
        fits: Refits on resampled trials of all losses that objective and guardrails need; they
            are made here when None.
        collapsed: Names of the trials whose experts collapsed; None where trials have no experts.
        update: Receives how many of `search_steps` are done, and which one it is.

    Raises:
        ConfigError: The gradient method with a regressor that has none, another unit than the
            fit's, constraints on other domains, or a risk that this fit cannot tell.
        InfeasibleError: No mixture is found that keeps the guardrails.
    """
    _check_same_fit(fit, objective, constraints)
    compared = compared_mixtures(natural.over(fit.domains), trials, objective)
    constraints, kept = keeping_unmeasured(
        constraints, compared["natural"], fit.targets, config.keep_unmeasured
    )
    needed = needed_columns(objective, constraints)
    if fits is None:
        fits = resampled_fits(fit, needed, count=config.bootstrap, seed=seed, update=update)
    update(config.bootstrap, "searching")
    over = objective.over([fit.targets[column] for column in needed])
    again = [aimed(one, over)[0] for one in fits.of(needed)]
    risk = Risk.from_config(config.risk, fit, again)
    problem = Problem.of(fit, objective, constraints, compared, trials, risk, collapsed)
    rows = len(fit.data.losses_NM)
    with one_blas_thread(rows):
        found = search(
            problem, config.method, samples=config.samples, average=config.average, seed=seed
        )
    _check_guardrails(problem, found, constraints, fit.domains)
    mixture = _settled(fit.domains, found.weights_D)
    points_KD = np.stack([mixture.array, *(one.array for one in compared.values())])
    done = config.bootstrap + 1
    update(done, SEARCHING_AGAIN)
    refits = None
    if again:
        with one_blas_thread(rows):
            refits = search_again(
                again,
                problem,
                points_KD,
                config=config,
                seed=seed,
                update=lambda searched, _: update(done + searched, SEARCHING_AGAIN),
            )
    confidence = Confidence.of(fit, objective, points_KD, refits)
    said = described(
        mixture,
        compared,
        confidence,
        trials,
        inventory=inventory,
        target_tokens=config.target_tokens,
    )
    proposal = replace(
        said,
        binding=(*constraints.binding(mixture), *_guarding(problem, mixture)),
        stability=stability_of(mixture, refits),
        optimism=optimism_of(fit, objective),
        provenance=origin_of(fit, found, config, seed),
    )
    warnings = proposal_warnings(proposal, fit, objective, constraints, kept, collapsed or ())
    return replace(proposal, warnings=warnings)


def search_steps(config: ProposeConfig) -> int:
    """Count the steps of a search: refits, the search itself, and a search with each refit."""
    return 2 * config.bootstrap + 1


def compared_mixtures(natural: Mixture, trials: Trials, objective: Objective) -> dict[str, Mixture]:
    """Return what a proposal is compared with, by name."""
    return {
        "natural": natural,
        "uniform": Mixture.uniform(natural.domains),
        "best_trial": best_trial(trials, objective)[1].over(natural.domains),
    }


def _check_same_fit(fit: Fit, objective: Objective, constraints: Constraints) -> None:
    if objective.unit != fit.objective.unit:
        raise ConfigError(
            f"objective.unit is {objective.unit}, but the fit was made in {fit.objective.unit}: "
            "fit again, or use that unit"
        )
    if tuple(constraints.domains) != fit.domains:
        raise ConfigError(
            f"the constraints are on domains {', '.join(constraints.domains)}; the fit has"
            f" {', '.join(fit.domains)}"
        )


def _check_guardrails(
    problem: Problem, found: Found, constraints: Constraints, domains: tuple[str, ...]
) -> None:
    """Refuse a search that found no mixture which keeps the guardrails."""
    avoided = problem.avoided
    if avoided is not None and avoided.excess(found.weights_D[None])[0] > MISSED:
        raise InfeasibleError(
            "every allowed mixture that was found is closest to one of the "
            f"{len(avoided.collapsed_KD)} trials whose experts collapsed: widen the other limits, "
            f"or leave {SOURCE} out"
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
