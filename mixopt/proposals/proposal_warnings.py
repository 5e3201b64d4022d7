"""Warnings about a proposal or a prediction: weak support, unmeasured domains, extrapolation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from mixopt.difference import value_text
from mixopt.mixture import Mixture, pairwise_total_variation
from mixopt.objective import grouped_names
from mixopt.proposals.proposal import Proposal, listed
from mixopt.system import first_few, share_text

if TYPE_CHECKING:
    from mixopt.fitting import Fit
    from mixopt.proposals.request import ProposalRequest

AT_BOUND = 1e-4
MAX_OUTSIDE = 0.01  # share by which a domain may leave the tried range without a warning
MAX_NAMED = 6  # domains named in a warning
MIN_EXPLAINED = 0.1  # share of the held-out variance below which a warning is given


def proposal_warnings(
    proposal: Proposal, request: ProposalRequest, unmeasured: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the warnings about a proposal."""
    subject = "the proposal"
    warnings = [
        *_support(request.fit, subject),
        "; ".join(_against_others(proposal)),
        *_without_loss(request, proposal.mixture, unmeasured),
        *_distance(request.fit, proposal.mixture, request.collapsed or (), subject),
    ]
    return tuple(line for line in warnings if line)


def prediction_warnings(
    fit: Fit, mixture: Mixture, collapsed: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the warnings about a prediction for a given mixture."""
    where = _distance(fit, mixture, collapsed, "the mixture")
    return (*_support(fit, "the prediction"), *where)


def _support(fit: Fit, subject: str) -> Iterator[str]:
    """Yield warnings about weak held-out accuracy or few mixtures."""
    error = fit.scores[fit.name]["rmse"]
    mean_error = fit.scores["mean"]["rmse"]
    explained = 1.0 - (error / mean_error) ** 2
    if explained < MIN_EXPLAINED:
        yield (
            f"{fit.name} explains {100 * max(explained, 0.0):.0f}% of the differences of the"
            f" objective between held-out trials: {subject} has little support; run more or longer"
            " trials"
        )
    thin = fit.thin_evidence()
    if thin is not None:
        yield thin


def _against_others(proposal: Proposal) -> Iterator[str]:
    """Yield warnings about mixtures that the proposal may not beat."""
    value = proposal.predicted_objective.value
    observed = proposal.best_observed
    if not (value > observed if proposal.better == "higher" else value < observed):
        yield (
            f"the proposal (predicted {value_text(value, proposal.unit)}) is not predicted to beat"
            f" the best trial ({proposal.best_trial}, observed"
            f" {value_text(observed, proposal.unit)})"
        )
    unsure = [name for name, gain in proposal.gains.items() if gain.low <= 0]
    if unsure:
        yield (
            f"the 90% interval of the predicted gain over {listed(unsure)} includes 0: judged by"
            " the fit alone, it may be no better"
        )


def _without_loss(
    request: ProposalRequest, mixture: Mixture, unmeasured: Sequence[str]
) -> Iterator[str]:
    """Yield warnings about domains that no loss measures."""
    if unmeasured:
        yield (
            f"no loss measures {', '.join(unmeasured)}, so no fit can tell what "
            f"{'it is' if len(unmeasured) == 1 else 'they are'} good for: kept at"
            " propose.keep_unmeasured of the natural weight (set to 0 to disable)"
        )
    dropped = _dropped(request, mixture, unmeasured)
    if dropped:
        names = ", ".join(dropped) if len(dropped) <= MAX_NAMED else grouped_names(dropped)
        yield (
            f"no part of the objective measures {names}, and the proposal leaves"
            f" {'it' if len(dropped) == 1 else 'each'} without any; set a floor in"
            " constraints.bounds, or add an objective, for a domain that the model needs"
        )


def _dropped(request: ProposalRequest, mixture: Mixture, unmeasured: Sequence[str]) -> list[str]:
    """Return the domains without weight, floor or loss."""
    limits = request.constraints
    floors = dict(zip(limits.domains, limits.lower_D.tolist(), strict=True))
    measured = (*request.objective.measured, *unmeasured)
    dropped = []
    for name, weight in mixture.items():
        if name not in measured and floors[name] == 0 and weight <= AT_BOUND:
            dropped.append(name)
    return dropped


def _distance(
    fit: Fit, mixture: Mixture, collapsed: Collection[str], subject: str
) -> Iterator[str]:
    """Yield warnings about mixtures beyond the trials, or near one with collapsed experts."""
    names = fit.trials.table["trial"].to_list()
    distance_N = pairwise_total_variation(mixture.array[None], fit.trials.weights())[0]
    untried = _untried(fit, mixture)
    beyond = f"beyond the tried range of {first_few(untried, MAX_NAMED)}" if untried else ""
    if distance_N.min() > fit.reach.reach:
        and_beyond = f", and {beyond}" if beyond else ""
        yield (
            f"{subject} is {distance_N.min():.2f} (total variation) from the nearest trial, farther"
            f" than any trial is from its nearest neighbour ({fit.reach.reach:.2f}){and_beyond}:"
            " the prediction is an extrapolation"
        )
    elif beyond:
        yield f"{subject} is {beyond}: no trial was there"
    nearest = names[int(distance_N.argmin())]
    if nearest in collapsed:
        yield (
            f"the experts of trial {nearest!r}, the nearest to {subject}, collapsed: mixopt experts"
            " DIR says how; constraints.guardrails.experts: true keeps away from such trials"
        )


def _untried(fit: Fit, mixture: Mixture) -> list[str]:
    """Return the domains whose shares are outside the tried range, with share and range."""
    weights_ND = fit.trials.weights()
    low_D = weights_ND.min(axis=0)
    high_D = weights_ND.max(axis=0)
    untried = []
    for (name, share), low, high in zip(mixture.items(), low_D, high_D, strict=True):
        if not low - MAX_OUTSIDE <= share <= high + MAX_OUTSIDE:
            tried = f"{share_text(low)} to {share_text(high)} tried"
            untried.append(f"{name} ({share_text(share)}; {tried})")
    return untried
