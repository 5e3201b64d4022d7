"""Propose a mixture: search with the fitted regressor, then say how sure the answer is.

What is searched is in mixopt.proposals.problem, the search in mixopt.proposals.mixture_search, how
sure the answer is in mixopt.proposals.evidence.

Shapes: D domains, K compared mixtures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mixopt.constraints import MISSED
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.fitting import ResampledFits, aimed, resampled_fits
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals.collapsed_experts import SOURCE
from mixopt.proposals.evidence import (
    Confidence,
    described,
    optimism_of,
    origin_of,
    stability_of,
)
from mixopt.proposals.gradient_search import least_broken
from mixopt.proposals.mixture_search import search
from mixopt.proposals.problem import Found, Problem, needed_columns
from mixopt.proposals.proposal import Proposal
from mixopt.proposals.proposal_warnings import proposal_warnings
from mixopt.proposals.risk import Risk
from mixopt.proposals.stability import search_again
from mixopt.proposals.unmeasured_domains import keeping_unmeasured
from mixopt.system import Array, Update, no_progress, one_blas_thread
from mixopt.trials import best_trial

if TYPE_CHECKING:
    from mixopt.config import ProposeConfig
    from mixopt.constraints import Constraints
    from mixopt.fitting import Fit
    from mixopt.trials import Trials

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
