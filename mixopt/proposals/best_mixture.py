"""Propose a mixture, or predict any mixture: losses, differences, and their intervals.

Intervals are 90% intervals from errors on held-out mixtures (mixopt.fitting.intervals). A gain is
measured against the mean of the baseline's own trials, or against its prediction if it was not
trained; then the half widths of both are added in quadrature. The best trial was also lucky, so its
prediction counts. Predictions are for trials like the fitted ones, not for another size or length;
beyond the trials intervals are wider, with a warning. Limits that a given mixture breaks are
reported but refuse nothing.

A domain that no loss measures keeps a share of its natural weight unless configured otherwise: no
regressor can see a benefit of it, though there may be one.

Shapes: D domains, B refits, K compared mixtures.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.constraints import BROKEN, Constraints, LinearLimit, floor
from mixopt.difference import Difference, unit_text
from mixopt.errors import ConfigError, InfeasibleError, MixtureError
from mixopt.fitting import SAME, Fit, Predictor, objective_noise
from mixopt.mixture import Mixture, Phases, total_variation
from mixopt.objective import Objective
from mixopt.proposals.proposal import (
    EDITED_BY_HAND,
    Interval,
    Proposal,
    Region,
    Stability,
    differences_content,
    worst_first,
)
from mixopt.proposals.proposal_warnings import prediction_warnings, proposal_warnings
from mixopt.proposals.request import EXPERTS, NEAR, ProposalRequest
from mixopt.proposals.search import (
    Problem,
    SearchResult,
    least_broken,
    near_best,
    search,
    search_again,
)
from mixopt.system import Array, Update, __version__, no_progress, one_blas_thread, steady_progress

ROUNDING = 1e-13  # smaller weights are rounding errors
KEEP_SOURCE = "propose.keep_unmeasured"
SEARCHING_AGAIN = "searching with refits"
EDITED = (
    "these weights were edited by hand and are not a proposal of mixopt: their losses are "
    "predicted again"
)
GIVEN = "given by hand"


def propose_mixture(request: ProposalRequest) -> Proposal:
    """Find the allowed mixture with the best predicted objective."""
    # Steps: refits, the search, and a search with each refit.
    with steady_progress("propose", 2 * request.search.bootstrap + 1) as update:
        return best_proposal(request, update=update)


def best_proposal(
    request: ProposalRequest,
    *,
    refits: Sequence[Predictor] | None = None,
    update: Update = no_progress,
) -> Proposal:
    """Find the best mixture, with refits of the needed losses if they exist already."""
    fit = request.fit
    config = request.search
    _check_same_fit(request)
    constraints, unmeasured = keeping_unmeasured(
        request.constraints, request.compared["natural"], fit.targets, config.keep_unmeasured
    )
    request = replace(request, constraints=constraints)
    if refits is None:
        rng = np.random.default_rng([request.seed, 1])
        refits = fit.resampled(
            request.needed_columns, count=config.bootstrap, rng=rng, update=update
        )
    update(config.bootstrap, "searching")
    problem = Problem.of(request)
    rows = len(fit.data.losses_NM)
    steps = config.bootstrap + 1
    with one_blas_thread(rows):
        result = search(problem)
        notes: list[str] = []
        if request.phases is not None:
            result = _untied_if_better(problem, result, request, request.phases, notes)
    _check_guardrails(problem, result, constraints)
    mixture = _stable(fit.domains, result.weights_D)
    update(steps, SEARCHING_AGAIN)
    stability = None
    with one_blas_thread(rows):
        if refits:
            optima_BD = search_again(
                problem,
                refits,
                mixture.array,
                lambda searched, _: update(steps + searched, SEARCHING_AGAIN),
            )
            stability = Stability.of(total_variation(optima_BD, mixture.array))
        region = region_around(problem, request, mixture)
    origin = _origin(request, result.method, samples=config.samples)
    proposal = replace(
        predicted_proposal(request, mixture),
        binding=(*constraints.binding(mixture), *_active_guardrails(problem, mixture)),
        stability=stability,
        region=region,
        provenance={**origin, "seed": request.seed},
    )
    return replace(proposal, warnings=(*notes, *proposal_warnings(proposal, request, unmeasured)))


def _untied_if_better(
    problem: Problem,
    untied: SearchResult,
    request: ProposalRequest,
    phases: Phases,
    notes: list[str],
) -> SearchResult:
    """Return a mixture for each phase, or one for all if separate ones gain nothing significant."""
    tied = search(replace(problem, allowed=request.constraints.tied(phases).allowed))
    fit = request.fit
    objective = request.objective
    untied_mixture = _stable(fit.domains, untied.weights_D)
    tied_mixture = _stable(fit.domains, tied.weights_D)
    values_2 = fit.predict_turned([untied_mixture, tied_mixture], objective).objective_N
    # Both are predicted by one fit, so their errors are correlated.
    half = fit.gain_half(untied_mixture, objective)
    gain = Difference.around(values_2[1] - values_2[0], half, objective.value_unit)
    text = f"{gain.mean_text} {unit_text(gain.unit)} ({gain.ends_text})"
    if gain.verdict == "better":
        notes.append(f"phases: different mixtures are predicted better than one by {text}")
        return untied
    notes.append(
        f"phases: the predicted gain of different mixtures over one, {text}, includes 0: one"
        " mixture is proposed for all phases"
    )
    return tied


def region_around(problem: Problem, request: ProposalRequest, mixture: Mixture) -> Region:
    """Return the region of mixtures predicted as good up to the noise of a trial, or its error."""
    noise = objective_noise(request.fit, request.objective)
    std = float(noise.stds_M[0])
    low_D, high_D = near_best(problem, mixture.array, std)
    ends = zip(low_D.round(4).tolist(), high_D.round(4).tolist(), strict=True)
    return Region(
        round(std, 6),
        "seeds" if noise.freedom else "held-out error",
        dict(zip(mixture.domains, ends, strict=True)),
    )


def predicted_proposal(request: ProposalRequest, mixture: Mixture) -> Proposal:
    """Return a fit's prediction of a given mixture as a proposal without a search."""
    fit = request.fit
    compared = request.compared
    objective = request.objective
    losses = fit.predict(mixture, objective)
    value = losses.objective_N[0]
    high = losses.objective_high_N[0]
    ends = zip(losses.losses_NM[0], losses.high_NM[0], strict=True)
    return Proposal(
        mixture=mixture,
        natural=compared["natural"],
        objective=objective.describe(),
        unit=objective.value_unit,
        predicted_objective=Interval.around(value, high - value),
        gains=predicted_gains(fit, objective, mixture, compared),
        best_trial=request.best_trial[0],
        best_observed=round(float(objective.turned_value(fit.observed(objective).min())), 6),
        losses={
            name: Interval.around(loss, high - loss)
            for name, (loss, high) in zip(fit.targets, ends, strict=True)
        },
        epochs=epochs_of(mixture, request.inventory, request.search.target_tokens),
        phases=request.phases,
    )


def predicted_gains(
    fit: Fit, objective: Objective, mixture: Mixture, compared: Mapping[str, Mixture]
) -> dict[str, Difference]:
    """Return how much better a mixture is predicted to be than each of the others."""
    value = fit.value(mixture, objective)
    half = fit.gain_half(mixture, objective)
    size = fit.predicted_size
    gains = {}
    for name, other in compared.items():
        is_same = bool(total_variation(mixture.array, other.array) < SAME)
        mean = 0.0
        half_width = 0.0
        if not is_same:
            base, error = fit.baseline(other, objective)
            mean = base - value
            half_width = float(np.hypot(half, error))
        gains[name] = Difference.around(
            mean,
            half_width,
            objective.value_unit,
            tokens=size["tokens"],
            parameters=size["parameters"],
            is_same=is_same,
        )
    return gains


def keeping_unmeasured(
    constraints: Constraints, natural: Mixture, targets: Sequence[str], share: float
) -> tuple[Constraints, tuple[str, ...]]:
    """Return the constraints with a floor for each unmeasured domain, and the names of these.

    If the losses are not those of domains, no domain counts as unmeasured.
    """
    domains = constraints.domains
    if not set(domains) & set(targets):
        return constraints, ()
    floors: dict[str, LinearLimit] = {}
    for name, upper in zip(domains, constraints.upper_D.tolist(), strict=True):
        least = min(share * natural[name], upper)
        if name not in targets and least > 0:
            floors[name] = floor(name, least, KEEP_SOURCE, setting=share)
    try:
        return constraints.with_limits(floors.values()), tuple(floors)
    except InfeasibleError:
        return constraints, ()


def epochs_of(
    mixture: Mixture, inventory: Mapping[str, int] | None, target_tokens: int | None
) -> dict[str, float] | None:
    """Return the epochs of each domain in the full run; None if unknown."""
    if inventory is None or target_tokens is None:
        return None
    epochs: dict[str, float] = {}
    for name, weight in mixture.items():
        # A cell such as `2/web` has the epochs of its domain's text.
        text = name if name in inventory else name.partition("/")[2]
        epochs[name] = round(weight * target_tokens / inventory[text], 4) if weight else 0.0
    return epochs


def _origin(request: ProposalRequest, method: str, **search: Any) -> dict[str, Any]:
    """Return a proposal's `provenance`."""
    return {
        "mixopt": __version__,
        "regressor": request.fit.name,
        "method": method,
        **search,
        "target_tokens": request.search.target_tokens,
        "trials": request.fit.fingerprint,
        "finished_trials": len(request.fit.trials),
    }


def _check_same_fit(request: ProposalRequest) -> None:
    fit = request.fit
    unit = request.objective.unit
    if unit != fit.objective.unit:
        raise ConfigError(
            f"objective.unit is {unit}, but the fit was made in {fit.objective.unit}: "
            "fit again, or use that unit"
        )
    domains = tuple(request.constraints.domains)
    if domains != fit.domains:
        raise ConfigError(
            f"the constraints are on domains {', '.join(domains)}; the fit has"
            f" {', '.join(fit.domains)}"
        )


def _check_guardrails(problem: Problem, result: SearchResult, constraints: Constraints) -> None:
    """Raise InfeasibleError if the search found no mixture that keeps the guardrails."""
    avoided = problem.avoided
    if avoided is not None and avoided.excess(result.weights_D[None])[0] > BROKEN:
        raise InfeasibleError(
            "every allowed mixture that was found is closest to one of the "
            f"{len(avoided.collapsed_KD)} trials whose experts collapsed: widen the other limits, "
            f"or leave {EXPERTS} out"
        )
    if problem.guards is None or (problem.excess(result.weights_D[None]) <= BROKEN).all():
        return
    nearest_D = result.weights_D
    if problem.has_gradient:
        nearest_D = least_broken(problem, nearest_D)
    binding = constraints.binding(Mixture.from_array(constraints.domains, nearest_D))
    raise InfeasibleError(problem.guards.conflict(problem.excess(nearest_D[None])[0], binding))


def _active_guardrails(problem: Problem, mixture: Mixture) -> list[str]:
    """Name the guardrails that are active at a mixture, collapsed experts included."""
    weights_1D = mixture.array[None]
    binding: list[str] = []
    if problem.guards is not None:
        binding = problem.guards.binding(problem.excess(weights_1D)[0])
    if problem.avoided is not None and problem.avoided.excess(weights_1D)[0] >= -NEAR:
        binding.append(f"a trial whose experts collapsed is as near as any other ({EXPERTS})")
    return binding


def _stable(domains: tuple[str, ...], weights_D: Array) -> Mixture:
    """Return a mixture with rounding errors set to 0."""
    return Mixture.from_array(domains, np.where(weights_D < ROUNDING, 0.0, weights_D))


def predict_own_mixture(request: ProposalRequest, mixture: Mixture) -> Proposal:
    """Predict the losses of an edited proposal, without a search."""
    mixture = mixture.over(request.fit.domains)
    proposal = replace(
        predicted_proposal(request, mixture),
        binding=tuple(request.constraints.binding(mixture)),
        provenance=_origin(request, EDITED_BY_HAND),
    )
    broken = request.constraints.violations(mixture)
    return replace(proposal, warnings=(EDITED, *broken, *proposal_warnings(proposal, request)))


@dataclass(frozen=True)
class Forecast:
    """The prediction of a mixture, and the limits that it breaks.

    Attributes:
        predicted: Losses, objective, gains and epochs, in the form of a proposal.
        limits: Limits in force, by their fields.
        broken: Limits that the mixture breaks, by how much, and what would allow it; a line each.
        other_losses: How much better than natural it is predicted to be on each loss outside the
            objective, worst first; below 0 it costs.
        shares: Metrics that are shares of right answers, shown in points.
    """

    predicted: Proposal
    limits: tuple[str, ...]
    broken: tuple[str, ...]
    other_losses: Mapping[str, Difference]
    shares: Collection[str] = ()

    @property
    def mixture(self) -> Mixture:
        """The mixture."""
        return self.predicted.mixture

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        content = self.predicted.to_json()
        del content["stability"]
        del content["region"]
        return {
            **content,
            "limits": list(self.limits),
            "broken": list(self.broken),
            "other_losses": differences_content(self.other_losses),
        }


def predict_mixture(
    request: ProposalRequest, weights: Mapping[str, float] | str | Path
) -> Forecast:
    """Predict a mixture or the mixture of a file; with phases, also one mixture for all of them."""
    fit = request.fit
    domains = fit.domains
    phases = request.phases
    mixture = Mixture.from_file(weights) if isinstance(weights, str | Path) else Mixture(weights)
    if phases is not None and set(mixture) == set(phases.names(domains)):
        mixture = phases.tied(mixture)
    missing = [name for name in domains if name not in mixture]
    if missing and all(name in domains for name in mixture):
        raise MixtureError(
            f"no weight for {', '.join(map(repr, missing))}: the fit has domains "
            f"{', '.join(domains)}; give 0 to leave one out"
        )
    mixture = mixture.over(domains)
    limits = request.constraints
    forecast = replace(
        predicted_proposal(request, mixture),
        binding=tuple(limits.binding(mixture)),
        warnings=prediction_warnings(fit, mixture, request.collapsed or ()),
        provenance=_origin(request, GIVEN),
    )
    others = predicted_other_losses(mixture, request.compared["natural"], fit, request.objective)
    broken = (*limits.violations(mixture), *_broken_guardrails(request, mixture))
    return Forecast(forecast, limits.in_force, broken, others, tuple(fit.objective.items))


def _broken_guardrails(request: ProposalRequest, mixture: Mixture) -> list[str]:
    """Return one line for each guardrail that a mixture violates."""
    guards = request.guards(request.objective)
    if guards is None:
        return []
    fit = request.fit
    compared_G = guards.compared(lambda weights_ND: fit.predict_turned(weights_ND).losses_NM)
    losses_1M = fit.predict_turned(mixture).losses_NM
    return guards.refusals(guards.excess(losses_1M, compared_G)[0])


def predicted_other_losses(
    mixture: Mixture, natural: Mixture, fit: Fit, objective: Objective
) -> dict[str, Difference]:
    """Return how much better than natural a mixture is predicted on losses outside the objective.

    The worst comes first.
    """
    mixtures = [mixture.over(fit.domains), natural.over(fit.domains)]
    prediction = fit.predict_turned(mixtures, objective)
    own_M, natural_M = prediction.losses_NM
    better_M = natural_M - own_M
    halves_M = np.hypot(*(prediction.high_NM - prediction.losses_NM))
    size = fit.predicted_size
    others = {}
    for column, name in enumerate(fit.targets):
        if name not in objective.measured:
            others[name] = Difference.around(
                better_M[column],
                halves_M[column],
                objective.unit_of(name),
                tokens=size["tokens"],
                parameters=size["parameters"],
            )
    return worst_first(others)
