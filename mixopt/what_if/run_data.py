"""All that a page needs to predict any mixture of a run, and to say which limits it breaks.

Shapes: N trials, D domains, M losses, G guarded losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixopt.what_if.fitted_law import law_data

LARGE = 2**12  # entries; above, tables of trials are in single precision

if TYPE_CHECKING:
    from mixopt.constraints import Constraints
    from mixopt.fitting import Fit
    from mixopt.mixture import Mixture
    from mixopt.run_directory import Run
    from mixopt.system import Array


def what_if_data(run: Run) -> dict[str, Any]:
    """Return plain values and arrays, for `packed_json` and `makeLaw`.

    Args:
        run: With a proposal at least.

    Returns:
        `domains`, `targets`; `natural`, `proposal` and `recommended` (that is None before
        validation), shape (D,) each; `law` and `objective` (mixopt.what_if.fitted_law);
        `constraints`; `trials`: `names`, `weights` (N, D), `losses` (N, M).

    Raises:
        PluginError: The fit's regressor has no plain law.
        RunError: The run has no proposal.
    """
    fit, domains = run.fit, run.fit.domains
    recommended = run.recommendation.mixture if run.is_done("validate") else None
    return {
        "domains": list(domains),
        "targets": list(fit.targets),
        "natural": run.natural.over(domains).array,
        "proposal": run.proposal.mixture.over(domains).array,
        "recommended": None if recommended is None else recommended.over(domains).array,
        **law_data(fit),
        "constraints": _constraints(run, fit),
        "trials": {
            "names": fit.trials.table["trial"].to_list(),
            "weights": _as_in_law(fit.data.weights_ND),
            "losses": fit.data.losses_NM.astype(np.float32),
        },
    }


def _as_in_law(weights_ND: Array) -> NDArray[np.floating[Any]]:
    """Return the trials as a law of many of them has them, so that both are one array."""
    return weights_ND.astype(np.float32) if weights_ND.size > LARGE else weights_ND


def _constraints(run: Run, fit: Fit) -> dict[str, Any]:
    limits, config, domains = run.constraints, run.config.constraints, fit.domains
    places = [limits.domains.index(name) for name in domains]
    radius = limits.radius
    epochs = dict.fromkeys(domains, config.max_epochs) | (config.max_epochs_of or {})
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
        "inventory": np.array([float(run.inventory[name]) for name in domains]),
        "target_tokens": run.config.propose.target_tokens,
        "max_epochs": [epochs[name] for name in domains],
        "radius": None
        if radius is None
        else {
            "kind": radius.kind,
            "size": radius.size,
            "reference": radius.name,
            "weights": radius.reference.over(domains).array,
        },
        "guardrails": _guardrails(run, fit, limits),
    }


def _guardrails(run: Run, fit: Fit, limits: Constraints) -> dict[str, Any] | None:
    """Return by how much which losses may be predicted worse than those of a reference."""
    from mixopt.constraints import Guards

    if limits.guardrails is None:
        return None
    reference = _references(run, fit)[limits.guardrails.reference].array
    guards = Guards.on(fit.objective, limits.guardrails, reference)
    return {
        "reference": guards.reference,
        "weights": guards.reference_D,
        "targets": list(guards.columns),
        "signs": guards.signs_G,
        "margins": guards.margins_G,
    }


def _references(run: Run, fit: Fit) -> Mapping[str, Mixture]:
    """Return the mixtures that losses are compared with, in the order of the fit's domains."""
    from mixopt.proposals import compared_mixtures

    compared = compared_mixtures(run.natural.over(fit.domains), run.trials, fit.objective)
    return {name: mixture.over(fit.domains) for name, mixture in compared.items()}
