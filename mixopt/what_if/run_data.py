"""All that a page needs to predict any mixture of a run, and to say which limits it breaks.

Shapes: N trials, D domains, M losses, G guarded losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.what_if.fitted_law import as_in_law, law_data
from mixopt.what_if.proposal_inputs import ProposalInputs

if TYPE_CHECKING:
    from mixopt.config import ConstraintsConfig
    from mixopt.mixture import Mixture
    from mixopt.objective import Objective
    from mixopt.proposals import Question
    from mixopt.run_directory import Run


def what_if_data(run: Run) -> dict[str, Any]:
    """Return plain values and arrays, for `packed_json` and `makeLaw`.

    Args:
        run: With a proposal at least.

    Returns:
        `domains`, `targets`; `natural`, `proposal` and `recommended` (that is None before
        validation), shape (D,) each; `law` and `objective` (mixopt.what_if.fitted_law);
        `constraints`; `trials`: `names`, `weights` (N, D), `losses` (N, M) at the size that is
        predicted, and whether that is another than the trials' own (`carried`).

    Raises:
        PluginError: The fit's regressor has no plain law.
        RunError: The run has no proposal.
    """
    inputs = ProposalInputs.of_run(run)
    recommended = run.recommendation.mixture if run.is_done("validate") else None
    return asked_data(inputs.question(), inputs.limits, run.proposal.mixture, recommended)


def asked_data(
    question: Question,
    limits: ConstraintsConfig,
    proposal: Mixture,
    recommended: Mixture | None,
    *,
    objective: Objective | None = None,
) -> dict[str, Any]:
    """Return what `what_if_data` does, of a question that need not be a run's.

    Args:
        question: The fit, what is allowed, inventory and length.
        limits: The constraints as they are stated.
        proposal: The mixture that is proposed, or where to start.
        recommended: The mixture that validation recommends, if any.
        objective: What is minimised; the fit's own objective when None.

    Raises:
        PluginError: The fit's regressor has no plain law.
    """
    fit = question.fit
    return {
        "domains": list(fit.domains),
        "targets": list(fit.targets),
        "natural": question.natural.over(fit.domains).array,
        "proposal": proposal.over(fit.domains).array,
        "recommended": None if recommended is None else recommended.over(fit.domains).array,
        **law_data(fit, objective),
        "constraints": _constraints(question, limits, objective or fit.objective),
        "trials": {
            "names": fit.trials.table["trial"].to_list(),
            "weights": as_in_law(fit.data.weights_ND),
            "losses": fit.known_losses().astype(np.float32),
            "carried": fit.is_carried,
        },
    }


def _constraints(
    question: Question, stated: ConstraintsConfig, objective: Objective
) -> dict[str, Any]:
    limits, domains = question.constraints, question.fit.domains
    places = [limits.domains.index(name) for name in domains]
    radius, inventory = limits.radius, question.inventory
    epochs = dict.fromkeys(domains, stated.max_epochs) | (stated.max_epochs_of or {})
    return {
        "low": limits.lower_D[places],
        "high": limits.upper_D[places],
        "groups": [
            {
                "name": group.name,
                "members": [domains.index(name) for name in group.domains],
                "low": group.least,
                "high": group.most,
            }
            for group in limits.groups
        ],
        "inventory": np.array([float((inventory or {}).get(name, 1)) for name in domains]),
        # Without an inventory nothing is known of epochs, whatever the length.
        "target_tokens": None if inventory is None else question.search.target_tokens,
        "max_epochs": [epochs[name] for name in domains],
        "radius": None
        if radius is None
        else {
            "kind": radius.kind,
            "size": radius.size,
            "reference": radius.name,
            "weights": radius.reference.over(domains).array,
        },
        "guardrails": _guardrails(question, objective),
    }


def _guardrails(question: Question, objective: Objective) -> dict[str, Any] | None:
    """Return by how much which losses may be predicted worse than those of a reference."""
    from mixopt.constraints import Guards

    limits = question.constraints.guardrails
    if limits is None:
        return None
    reference = _references(question, objective)[limits.mixture].array
    guards = Guards.on(objective, limits, reference)
    return {
        "reference": guards.reference,
        "weights": guards.reference_D,
        "base": None if guards.base_M is None else np.nan_to_num(guards.base_M),
        "targets": list(guards.columns),
        "signs": guards.signs_G,
        "margins": guards.margins_G,
    }


def _references(question: Question, objective: Objective) -> Mapping[str, Mixture]:
    """Return the mixtures that losses are compared with, in the order of the fit's domains."""
    from mixopt.proposals import compared_mixtures

    domains = question.fit.domains
    natural = question.natural.over(domains)
    compared = compared_mixtures(natural, question.fit.trials, objective)
    return {name: mixture.over(domains) for name, mixture in compared.items()}
