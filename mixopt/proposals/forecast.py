"""Predict any mixture with a fit: the user's own, an older run's, a hand mix.

Everything that a proposal says is predicted, with intervals from held-out errors alone, since
nobody searched for the mixture. Limits that it breaks are shown with the number, and refuse
nothing: the caller wants to know what it would give.

Shapes: D domains, G guarded evaluation domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.constraints import MISSED, Guards
from mixopt.errors import MixtureError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals.best_mixture import predicted_proposal
from mixopt.proposals.proposal import EDITED_BY_HAND, Interval, Proposal
from mixopt.proposals.proposal_warnings import prediction_warnings, proposal_warnings
from mixopt.proposals.request import ProposalRequest
from mixopt.system import Array, __version__

if TYPE_CHECKING:
    from mixopt.constraints import Guardrails
    from mixopt.fitting import Fit

EDITED = (
    "these weights were edited by hand and are not a proposal of mixopt: their losses are "
    "predicted again"
)


def predict_own_mixture(
    request: ProposalRequest, mixture: Mixture, objective: Objective
) -> Proposal:
    """Predict the losses of a proposal that somebody edited, without a search."""
    fit = request.fit
    mixture = mixture.over(fit.domains)
    found = replace(
        predicted_proposal(request, mixture, objective),
        binding=tuple(request.constraints.binding(mixture)),
        provenance={
            "mixopt": __version__,
            "regressor": fit.name,
            "method": EDITED_BY_HAND,
            "target_tokens": request.search.target_tokens,
            "trials": fit.fingerprint,
            "finished_trials": len(fit.trials),
        },
    )
    warnings = proposal_warnings(found, request, objective)
    broken = request.constraints.violations(mixture)
    return replace(found, warnings=(EDITED, *broken, *warnings))


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


def predict_mixture(request: ProposalRequest, mixture: Mixture, objective: Objective) -> Forecast:
    """Predict what a mixture gives."""
    fit, constraints = request.fit, request.constraints
    mixture = _of_fit(mixture, fit.domains)
    found = predict_own_mixture(request, mixture, objective)
    compared = request.compared(objective)
    guarded = _guardrails(mixture, fit, objective, constraints.guardrails, compared)
    forecast = replace(
        found,
        warnings=prediction_warnings(fit, mixture, request.collapsed or ()),
        provenance={**found.provenance, "method": GIVEN},
    )
    costs = predicted_costs(mixture, compared["natural"], fit, objective)
    return Forecast(forecast, (*constraints.violations(mixture), *guarded), costs)


def predicted_costs(
    mixture: Mixture, natural: Mixture, fit: Fit, objective: Objective
) -> dict[str, Interval]:
    """Return what a mixture is predicted to cost losses that the objective does not measure."""
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
    """Return the mixture in the order of the fit's domains."""
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
