"""Predict any mixture with a fit: the user's own, an older run's, a hand mix.

Everything that a proposal says is predicted, with intervals from held-out errors alone, since
nobody searched for the mixture. Limits that it breaks are shown with the number, and refuse
nothing: the caller wants to know what it would give.

Shapes: D domains, G guarded evaluation domains.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.constraints import MISSED, Guards
from mixopt.errors import MixtureError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals.best_mixture import Confidence, compared_mixtures, described
from mixopt.proposals.proposal import EDITED_BY_HAND, Interval, Proposal
from mixopt.proposals.proposal_warnings import prediction_warnings, proposal_warnings
from mixopt.system import Array, __version__

if TYPE_CHECKING:
    from mixopt.constraints import Constraints, Guardrails
    from mixopt.fitting import Fit
    from mixopt.trials import Trials

EDITED = (
    "these weights were edited by hand and are not a proposal of mixopt: their losses are "
    "predicted again"
)


def predict_own_mixture(
    mixture: Mixture,
    fit: Fit,
    objective: Objective,
    constraints: Constraints,
    natural: Mixture,
    trials: Trials,
    *,
    inventory: Mapping[str, int] | None = None,
    target_tokens: int | None = None,
    collapsed: Collection[str] | None = None,
) -> Proposal:
    """Predict the losses of a given mixture, without a search.

    Args:
        mixture: The weights, of the fit's domains.
        fit: What predicts.
        objective: What is minimised, in the unit of the fit.
        constraints: What is allowed; limits that it breaks are warnings.
        natural: Each domain's share of the available tokens.
        trials: The trials, among which the best observed one is found.
        inventory: Distinct tokens of each domain, for epochs.
        target_tokens: Length of the full run, for epochs.
        collapsed: Trials whose experts collapsed; None where trials have no experts.

    Raises:
        MixtureError: It is of other domains than the fit.
    """
    mixture = mixture.over(fit.domains)
    compared = compared_mixtures(natural.over(fit.domains), trials, objective)
    points_KD = np.stack([mixture.array, *(one.array for one in compared.values())])
    confidence = Confidence.of(fit, objective, points_KD, None)
    said = described(
        mixture, compared, confidence, trials, inventory=inventory, target_tokens=target_tokens
    )
    found = replace(
        said,
        binding=tuple(constraints.binding(mixture)),
        provenance={
            "mixopt": __version__,
            "regressor": fit.name,
            "method": EDITED_BY_HAND,
            "target_tokens": target_tokens,
            "trials": fit.fingerprint,
            "finished_trials": len(fit.trials),
        },
    )
    told = proposal_warnings(found, fit, objective, constraints, (), collapsed or ())
    return replace(found, warnings=(EDITED, *constraints.violations(mixture), *told))


GIVEN = "given by hand"


@dataclass(frozen=True)
class Forecast:
    """What a mixture is predicted to give, and which limits it breaks.

    Attributes:
        predicted: Losses, objective, gains and epochs, in a proposal's words.
        broken: Limits that the mixture breaks, a line each.
        costs: Predicted change against the natural mixture of each loss that the objective does
            not measure, above 0 where it gets worse, the largest first.
    """

    predicted: Proposal
    broken: tuple[str, ...]
    costs: Mapping[str, Interval]

    @property
    def mixture(self) -> Mixture:
        """The mixture."""
        return self.predicted.mixture

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        content = self.predicted.to_json()
        del content["stability"], content["optimism"]
        costs = {name: cost.to_json() for name, cost in self.costs.items()}
        return {**content, "broken": list(self.broken), "costs": costs}


def predict_mixture(
    mixture: Mixture,
    fit: Fit,
    objective: Objective,
    constraints: Constraints,
    natural: Mixture,
    *,
    inventory: Mapping[str, int] | None = None,
    target_tokens: int | None = None,
    collapsed: Collection[str] | None = None,
) -> Forecast:
    """Predict what a mixture gives.

    Args:
        mixture: The weights, of the fit's domains.
        fit: What predicts.
        objective: What is minimised, in the unit of the fit.
        constraints: The limits that it may break.
        natural: Each domain's share of the available tokens.
        inventory: Distinct tokens of each domain, for epochs.
        target_tokens: Length of the full run, for epochs.
        collapsed: Trials whose experts collapsed; None where trials have no experts.

    Raises:
        MixtureError: It is of other domains than the fit.
    """
    mixture = _of_fit(mixture, fit.domains)
    found = predict_own_mixture(
        mixture,
        fit,
        objective,
        constraints,
        natural,
        fit.trials,
        inventory=inventory,
        target_tokens=target_tokens,
        collapsed=collapsed,
    )
    compared = compared_mixtures(natural.over(fit.domains), fit.trials, objective)
    guarded = _guardrails(mixture, fit, objective, constraints.guardrails, compared)
    provenance = {**found.provenance, "method": GIVEN}
    warnings = prediction_warnings(fit, mixture, collapsed or ())
    said = replace(found, warnings=warnings, provenance=provenance)
    costs = predicted_costs(mixture, compared["natural"], fit, objective)
    return Forecast(said, (*constraints.violations(mixture), *guarded), costs)


def predicted_costs(
    mixture: Mixture, natural: Mixture, fit: Fit, objective: Objective
) -> dict[str, Interval]:
    """Return what a mixture is predicted to cost losses that the objective does not measure.

    Args:
        mixture: Weights of the fit's domains.
        natural: What it is compared with.
        fit: What predicts.
        objective: Its losses are left out; it knows which are better higher.

    Returns:
        Change against the natural mixture with a 90% interval, above 0 where it gets worse, the
        largest first. Half-widths of both are added in quadrature.
    """
    found = fit.predict([mixture.over(fit.domains), natural.over(fit.domains)])
    changes_M = objective.signs * (found.losses_NM[0] - found.losses_NM[1])
    halves_M = np.hypot(*(found.high_NM - found.losses_NM))
    costs = {
        name: Interval.around(change, half)
        for name, change, half in zip(fit.targets, changes_M, halves_M, strict=True)
        if name not in objective.measured
    }
    return dict(sorted(costs.items(), key=lambda item: -item[1].value))


def _of_fit(mixture: Mixture, domains: tuple[str, ...]) -> Mixture:
    """Return the mixture in the order of the fit's domains.

    Raises:
        MixtureError: It has a domain that the fit does not have, or lacks one.
    """
    missing = [name for name in domains if name not in mixture]
    if missing and all(name in domains for name in mixture):
        raise MixtureError(
            f"no weight for {', '.join(map(repr, missing))}: the fit has domains "
            f"{', '.join(domains)}; give 0 to leave one out"
        )
    return mixture.over(domains)


def _guardrails(
    mixture: Mixture,
    fit: Fit,
    objective: Objective,
    rails: Guardrails | None,
    compared: Mapping[str, Mixture],
) -> list[str]:
    """Say by how much each guardrail is broken that the mixture breaks."""
    if rails is None or not rails.margins(objective.evaluation):
        return []
    guards = Guards.on(objective, rails, compared[rails.mixture].array)

    def predicted(weights_ND: Array) -> Array:
        return fit.predict(weights_ND).losses_NM

    excess_NG = guards.excess(predicted(mixture.array[None]), guards.compared(predicted))
    return guards.refusals(excess_NG[0], MISSED)
