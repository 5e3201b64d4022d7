"""The what-if: any mixture of a run or a fit, predicted in the page, with the limits it breaks.

A page and a notebook carry the same data and the same scripts (assets/what_if.js and law*.js).

Shapes: N trials, D domains, M losses, G guarded losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from mixopt.errors import PluginError
from mixopt.reporting.law import law_data, packed_json
from mixopt.reporting.page import Section, asset, paragraph

if TYPE_CHECKING:
    from mixopt.config import ConstraintsConfig
    from mixopt.mixture import Mixture
    from mixopt.proposals import ProposalRequest
    from mixopt.run_directory import Run

MAX_BYTES = 2_500_000  # of data; a page with more is slow to open and to send
SCRIPTS = ("law.js", "law_gaussian.js", "law_curves.js", "law_pilots.js", "what_if.js")
START = """
renderWhatIf(document.getElementById("what-if-view"),
  readWhatIf(document.getElementById("what-if-data").textContent));
"""


def what_if_section(run: Run) -> Section:
    """Return the section of the page, or a line that says why there is none."""
    try:
        packed = packed_json(what_if_data(run))
        if len(packed) > MAX_BYTES:
            raise PluginError(
                f"the what-if is left out: the fitted law takes {len(packed) / 1e6:.1f} MB, more"
                f" than the {MAX_BYTES / 1e6:.1f} MB that a page may carry; regressor power has a"
                " small one"
            )
    except PluginError as error:
        why = str(error)
        return Section("what-if", "What if", paragraph(f"{why[:1].upper()}{why[1:]}."))
    body = Markup(
        '<div id="what-if-view"><noscript><p>Sliders need JavaScript.</p></noscript></div>\n'
        f'<script type="application/json" id="what-if-data">{packed}</script>\n'
    )
    script = f'(() => {{\n"use strict";\n{view_script()}{START}}})();\n'
    return Section("what-if", "What if", body, asset("what_if.css"), script)


def view_script() -> str:
    """Return what defines `readWhatIf(text)`, `makeLaw(data)` and `renderWhatIf(root, data)`."""
    return "\n".join(asset(name) for name in SCRIPTS)


def what_if_data(run: Run) -> dict[str, Any]:
    """Return plain values and arrays of a run with a proposal, for `packed_json`.

    Raises:
        PluginError: The fit's regressor has no plain law.
        RunError: The run has no proposal.
    """
    question = run.request(run.fit)
    starts = {"Recommended": run.recommendation.mixture} if run.is_done("validate") else {}
    starts |= {"Proposal": run.proposal.mixture, "Natural": question.natural}
    return question_data(question, run.config.constraints, starts)


def question_data(
    question: ProposalRequest, limits: ConstraintsConfig, starts: Mapping[str, Mixture]
) -> dict[str, Any]:
    """Return plain values and arrays, for `packed_json` and `renderWhatIf`.

    Args:
        question: The fit, what is allowed, inventory and length.
        limits: The constraints as they are stated.
        starts: Mixtures to start from, by what a button calls them; the first is shown.

    Returns:
        `domains`, `targets`; `natural`, shape (D,); `starts`; `law` and `objective`
        (mixopt.reporting.law); `constraints`; `trials`: `names` and `weights` (N, D).

    Raises:
        PluginError: The fit's regressor has no plain law.
    """
    fit = question.fit
    domains = fit.domains
    return {
        "domains": list(domains),
        "targets": list(fit.targets),
        "natural": question.natural.over(domains).array,
        "starts": [[name, mixture.over(domains).array] for name, mixture in starts.items()],
        **law_data(fit),
        "constraints": _constraints(question, limits),
        "trials": {"names": fit.trials.table["trial"].to_list(), "weights": fit.data.weights_ND},
    }


def _constraints(question: ProposalRequest, stated: ConstraintsConfig) -> dict[str, Any]:
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
        "guardrails": _guardrails(question),
    }


def _guardrails(question: ProposalRequest) -> dict[str, Any] | None:
    """Return by how much which losses may be predicted worse than those of a reference."""
    from mixopt.constraints import Guards

    limits, fit = question.constraints.guardrails, question.fit
    if limits is None:
        return None
    reference = question.compared(fit.objective)[limits.mixture].array
    guards = Guards.on(fit.objective, limits, reference)
    return {
        "reference": guards.reference,
        "weights": guards.reference_D,
        "base": None if guards.base_M is None else np.nan_to_num(guards.base_M),
        "targets": list(guards.columns),
        "signs": guards.signs_G,
        "margins": guards.margins_G,
    }
