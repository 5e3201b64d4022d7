"""Warnings to read before training on a proposal, one line each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from mixopt.mixture import Mixture, pairwise_total_variation
from mixopt.objective import Objective, grouped_names
from mixopt.proposals.proposal import Proposal
from mixopt.proposals.request import ProposalRequest
from mixopt.proposals.validation_plan import listed

if TYPE_CHECKING:
    from mixopt.constraints import Constraints
    from mixopt.fitting import Fit

AT_BOUND = 1e-4
NAMED = 6  # domains that a warning names one by one
MIN_EXPLAINED = 0.1  # of the variance on held-out folds


def proposal_warnings(
    proposal: Proposal, request: ProposalRequest, objective: Objective, kept: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the warnings about a proposal."""
    fit, collapsed = request.fit, request.collapsed or ()
    found = [
        _uninformed(fit),
        _no_gain(proposal),
        _beaten(proposal),
        _kept(kept),
        _unmeasured(objective, request.constraints, proposal.mixture, kept),
        _optimistic(proposal),
        _far(fit, proposal.mixture),
        _collapsed(fit, proposal.mixture, collapsed),
    ]
    return tuple(line for line in found if line)


def prediction_warnings(
    fit: Fit, mixture: Mixture, collapsed: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the warnings about a prediction for a given mixture."""
    whose = "the mixture"
    found = [
        _uninformed(fit, "the prediction"),
        _far(fit, mixture, whose),
        _collapsed(fit, mixture, collapsed, whose),
    ]
    return tuple(line for line in found if line)


def _uninformed(fit: Fit, what: str = "the proposal") -> str | None:
    from mixopt.fitting import OBJECTIVE

    rows = fit.report.filter(fit.report["target"] == OBJECTIVE)
    error = dict(zip(rows["predictor"], rows["rmse"], strict=True))
    explained = 1.0 - (error[fit.name] / error["mean"]) ** 2
    if explained >= MIN_EXPLAINED:
        return None
    return (
        f"{fit.name} explains {100 * max(explained, 0.0):.0f}% of the differences of the "
        f"objective between held-out trials: {what} has little support; run more or longer trials"
    )


def _no_gain(proposal: Proposal) -> str | None:
    unsure = [name for name, gain in proposal.gains.items() if gain.low <= 0]
    if not unsure:
        return None
    return (
        f"the 90% interval of the predicted gain over {listed(unsure)} includes 0: judged by the"
        " fit alone, it may be no better"
    )


def _beaten(proposal: Proposal) -> str | None:
    value, observed = proposal.predicted_objective.value, proposal.best_observed
    if value < observed:
        return None
    return (
        f"the proposal (predicted {value:.4f}) is not predicted to beat the best trial"
        f" ({proposal.best_trial}, observed {observed:.4f})"
    )


def _kept(kept: Sequence[str]) -> str | None:
    if not kept:
        return None
    return (
        f"no loss measures {', '.join(kept)}, so no fit can tell what "
        f"{'it is' if len(kept) == 1 else 'they are'} good for: kept at propose.keep_unmeasured "
        "of the natural weight (set to 0 to disable)"
    )


def _unmeasured(
    objective: Objective, constraints: Constraints, mixture: Mixture, kept: Sequence[str]
) -> str | None:
    least = dict(zip(constraints.domains, constraints.lower_D, strict=True))
    dropped = [
        name
        for name, weight in mixture.items()
        if name not in (*objective.measured, *kept) and weight <= least[name] + AT_BOUND
    ]
    if not dropped:
        return None
    named = ", ".join(dropped) if len(dropped) <= NAMED else grouped_names(dropped)
    return (
        f"no part of the objective measures {named}, and the proposal leaves"
        f" {'it' if len(dropped) == 1 else 'each'} at the minimum weight allowed; set a floor in"
        " constraints.bounds, or add an objective, for a domain that the model needs"
    )


def _optimistic(proposal: Proposal) -> str | None:
    gain, optimism = proposal.gains["best_trial"].value, proposal.optimism.estimate
    if optimism is None or optimism <= 0 or optimism <= gain:
        return None
    return (
        f"the prediction is optimistic by about {optimism:.4f}, and the predicted gain over the "
        f"best trial is {gain:.4f}, which is smaller than the optimism: no gain is expected"
    )


def _far(fit: Fit, mixture: Mixture, what: str = "the proposal") -> str | None:
    nearest = float(fit.reach.nearest(mixture.array[None])[0])
    if nearest <= fit.reach.reach:
        return None
    return (
        f"{what} is {nearest:.2f} (total variation) from the nearest trial, farther than any trial"
        f" is from its nearest neighbour ({fit.reach.reach:.2f}): the prediction is an"
        " extrapolation"
    )


def _collapsed(
    fit: Fit, mixture: Mixture, collapsed: Collection[str], what: str = "the proposal"
) -> str | None:
    names, weights_ND = fit.trials.table["trial"].to_list(), fit.trials.weights()
    apart_N = pairwise_total_variation(mixture.array[None], weights_ND)[0]
    nearest = names[int(apart_N.argmin())]
    if nearest not in collapsed:
        return None
    return (
        f"the experts of trial {nearest!r}, the nearest to {what}, collapsed: mixopt experts"
        " DIR says how; constraints.guardrails.experts: true keeps away from such trials"
    )
