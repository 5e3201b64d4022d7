"""Propose a mixture: search with the fitted regressor, then say how sure the answer is.

Intervals hold 90%, by errors on held-out mixtures (mixopt.fitting.intervals). For a gain,
half-widths of both mixtures are added in quadrature, since both are predicted. To the objective and
the gains, the spread over refits on resampled trials is added in quadrature. They speak of trials
like those that were fitted, one seed each, not of another size or length; beyond the trials they
are wider, which is a warning.

A domain that no loss measures is kept at a share of its natural weight, unless it is told not to:
any regressor sees no benefit in it, though there may be one.

Shapes: D domains, B refits, K compared mixtures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.constraints import MISSED, floor
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.fitting import ResampledFits, aimed, resampled_fits
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals.mixture_search import Refits, least_broken, search, search_again
from mixopt.proposals.problem import SOURCE, Problem, Risk, SearchResult, needed_columns
from mixopt.proposals.proposal import Interval, Optimism, Proposal, Stability, estimate_optimism
from mixopt.proposals.proposal_warnings import proposal_warnings
from mixopt.proposals.request import ProposalRequest
from mixopt.system import Array, Update, __version__, no_progress, one_blas_thread

if TYPE_CHECKING:
    from mixopt.config import ProposeConfig
    from mixopt.constraints import Constraints
    from mixopt.fitting import Fit

LEVEL = 0.9
NOTHING = 1e-13  # a weight below is what rounding leaves of 0
KEEP_SOURCE = "propose.keep_unmeasured"
SEARCHING_AGAIN = "searching with refits"


def propose_mixture(
    request: ProposalRequest,
    objective: Objective,
    *,
    fits: ResampledFits | None = None,
    update: Update = no_progress,
) -> Proposal:
    """Find the allowed mixture with the best predicted objective."""
    fit, config, seed = request.fit, request.search, request.seed
    _check_same_fit(fit, objective, request.constraints)
    compared = request.compared(objective)
    constraints, kept = keeping_unmeasured(
        request.constraints, compared["natural"], fit.targets, config.keep_unmeasured
    )
    request = replace(request, constraints=constraints)
    needed = needed_columns(objective, constraints)
    if fits is None:
        fits = resampled_fits(fit, needed, count=config.bootstrap, seed=seed, update=update)
    update(config.bootstrap, "searching")
    over = objective.over([fit.targets[column] for column in needed])
    again = [aimed(one, over)[0] for one in fits.of(needed)]
    problem = Problem.of(request, objective, Risk.from_config(config.risk, fit, again))
    rows, done, refits = len(fit.data.losses_NM), config.bootstrap + 1, None
    with one_blas_thread(rows):
        found = search(
            problem, config.method, samples=config.samples, average=config.average, seed=seed
        )
    _check_guardrails(problem, found, constraints, fit.domains)
    mixture = _stable(fit.domains, found.weights_D)
    update(done, SEARCHING_AGAIN)
    if again:
        points_KD = np.stack([mixture.array, *(one.array for one in compared.values())])
        with one_blas_thread(rows):
            refits = search_again(
                again,
                problem,
                points_KD,
                config=config,
                seed=seed,
                update=lambda searched, _: update(done + searched, SEARCHING_AGAIN),
            )
    proposal = replace(
        predicted_proposal(request, mixture, objective, refits),
        binding=(*constraints.binding(mixture), *_guarding(problem, mixture)),
        stability=_stability(mixture, refits),
        optimism=_optimism(fit, objective),
        provenance=_origin(request, found),
    )
    return replace(proposal, warnings=proposal_warnings(proposal, request, objective, kept))


def search_steps(config: ProposeConfig) -> int:
    """Count the steps of a search: refits, the search itself, and a search with each refit."""
    return 2 * config.bootstrap + 1


def predicted_proposal(
    request: ProposalRequest,
    mixture: Mixture,
    objective: Objective,
    refits: Refits | None = None,
) -> Proposal:
    """Return what a fit says of any mixture; of how it was found, nothing."""
    fit, compared = request.fit, request.compared(objective)
    points_KD = np.stack([mixture.array, *(one.array for one in compared.values())])
    value, gains = predicted_gains(fit, objective, points_KD, refits)
    losses = fit.predict(mixture, objective)
    ends = zip(losses.losses_NM[0], losses.high_NM[0], strict=True)
    return Proposal(
        mixture=mixture,
        natural=compared["natural"],
        objective=objective.describe(),
        unit=objective.value_unit,
        predicted_objective=value,
        gains=dict(zip(compared, gains, strict=True)),
        best_trial=request.best_trial(objective)[0],
        best_observed=round(float(_observed(fit, objective).min()), 6),
        losses={
            name: Interval.around(loss, high - loss)
            for name, (loss, high) in zip(fit.targets, ends, strict=True)
        },
        epochs=epochs_of(mixture, request.inventory, request.search.target_tokens),
        binding=(),
        stability=None,
        optimism=Optimism(None),
        warnings=(),
        provenance={},
    )


def predicted_gains(
    fit: Fit, objective: Objective, points_KD: Array, refits: Refits | None = None
) -> tuple[Interval, list[Interval]]:
    """Return the objective of the first mixture, and its gain over each of the others."""
    predicted = fit.predict(points_KD, objective)
    values_K, halves_K = predicted.objective_N, predicted.objective_high_N - predicted.objective_N
    values_BK = np.zeros((1, len(points_KD))) if refits is None else refits.values_BK
    gains = []
    for place in range(1, len(points_KD)):
        error = float(np.hypot(halves_K[0], halves_K[place]))
        moved = _spread(values_BK[:, place] - values_BK[:, 0])
        gain = values_K[place] - values_K[0]
        gains.append(Interval.around(gain, float(np.hypot(error, moved))))
    moved = _spread(values_BK[:, 0])
    return Interval.around(values_K[0], float(np.hypot(halves_K[0], moved))), gains


def unmeasured(domains: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
    """Return the domains without a loss; none where the losses are not of domains at all."""
    if not set(domains) & set(targets):
        return ()
    return tuple(name for name in domains if name not in targets)


def keeping_unmeasured(
    constraints: Constraints, natural: Mixture, targets: Sequence[str], share: float
) -> tuple[Constraints, tuple[str, ...]]:
    """Return the constraints with a floor under each unmeasured domain, and their names."""
    most = dict(zip(constraints.domains, constraints.upper_D.tolist(), strict=True))
    names = unmeasured(constraints.domains, targets) if share > 0 else ()
    floors = [floor(n, min(share * natural[n], most[n]), KEEP_SOURCE, setting=share) for n in names]
    floors = [one for one in floors if one.value > 0]
    if not floors:
        return constraints, ()
    try:
        return constraints.with_limits(floors), tuple(one.domains[0] for one in floors)
    except InfeasibleError:
        return constraints, ()


def _observed(fit: Fit, objective: Objective) -> Array:
    return fit.carried_values(fit.trials.losses(objective.unit), objective)


def _stability(mixture: Mixture, refits: Refits | None) -> Stability | None:
    if refits is None:
        return None
    moved_B = refits.movement(mixture.array)
    high = float(np.quantile(moved_B, LEVEL))
    return Stability(len(moved_B), round(float(moved_B.mean()), 4), round(high, 4))


def _optimism(fit: Fit, objective: Objective) -> Optimism:
    predicted_N = fit.carried_values(fit.held_out_losses(), objective)
    return estimate_optimism(predicted_N, _observed(fit, objective))


def epochs_of(
    mixture: Mixture, inventory: Mapping[str, int] | None, target_tokens: int | None
) -> dict[str, float] | None:
    """Return the passes over each domain's tokens in the full run; None where not known."""
    if inventory is None or target_tokens is None:
        return None
    passes = {n: w * target_tokens / inventory[n] if w else 0.0 for n, w in mixture.items()}
    return {name: round(value, 4) for name, value in passes.items()}


def _origin(request: ProposalRequest, found: SearchResult) -> dict[str, Any]:
    """Return what a proposal was made from: its `provenance`."""
    fit, config = request.fit, request.search
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
        "seed": request.seed,
    }


def _spread(values_B: Array) -> float:
    """Return how far from their median 90% of the refits' predictions are."""
    return float(np.quantile(np.abs(values_B - np.median(values_B)), LEVEL))


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
    problem: Problem, found: SearchResult, constraints: Constraints, domains: tuple[str, ...]
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


def _stable(domains: tuple[str, ...], weights_D: Array) -> Mixture:
    """Return a mixture that is the same when it is written and read: rescaling changes nothing."""
    mixture = Mixture.from_array(domains, np.where(weights_D < NOTHING, 0.0, weights_D))
    for _ in range(8):
        again = Mixture(dict(mixture))
        if again == mixture:
            break
        mixture = again
    return mixture
