"""A user's own mixture in the form of a proposal: predicted, without a search.

Somebody who edits proposal.yaml has another mixture than the one that was searched for. Nothing
that was found out about the other one is said of it: its losses are predicted again, with intervals
from held-out errors alone, and there is neither stability nor optimism of a search that was not
made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals.best_mixture import compared_mixtures
from mixopt.proposals.evidence import Confidence, described
from mixopt.proposals.proposal import EDITED_BY_HAND, Proposal
from mixopt.proposals.proposal_warnings import proposal_warnings
from mixopt.system import __version__

if TYPE_CHECKING:
    from mixopt.constraints import Constraints
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
