"""What a diagnosis of experts would change in the mixture, were it taken for advice.

Arithmetic on the counts, with the routers as they are; expert_advice.py trains it, and mixopt does
not suggest it. Of a collapse: the share of the domain that loads the busiest expert most at which
the load would be half as far above the even one. Of a degradation: the middle between the domain's
share and an even one. Of underfitting: half of an even share.

Shapes: D domains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixopt.routing import (
    Assignments,
    Diagnosis,
    LayerAssignments,
    expert_profiles,
    load_shares,
)

MOST = 0.5  # of a share that is taken away at once


@dataclass(frozen=True)
class Change:
    """A change of the mixture.

    Attributes:
        domain: Whose share it is.
        share: Of the tokens that were counted.
        proposed: What to try instead, the others in proportion.
    """

    domain: str
    share: float
    proposed: float

    def __str__(self) -> str:
        """Return it as words."""
        verb = "lower" if self.proposed < self.share else "raise"
        return f"{verb} '{self.domain}' from {100 * self.share:.1f}% to {100 * self.proposed:.1f}%"


def proposed_change(found: Diagnosis, train: Assignments) -> Change | None:
    """Return the change that a diagnosis would propose; None where the mixture is not the cause.

    Args:
        found: In a layer of these assignments.
        train: Of training.
    """
    if found.domain is None:
        return None
    layer = next(one for one in train.layers if one.key == found.key)
    d = train.domains.index(found.domain)
    share, even = float(load_shares(layer.tokens_D)[d]), 1 / len(train.domains)
    if found.kind == "underfitting":
        return Change(found.domain, share, found.alarms["rare"])
    if found.kind == "degradation":
        return Change(found.domain, share, (share + even) / 2) if share > even else None
    return Change(found.domain, share, _half_the_excess(layer, d))


def _half_the_excess(layer: LayerAssignments, d: int) -> float:
    """Return the share of a domain at which half the excess of the busiest expert is gone."""
    shares_D = load_shares(layer.tokens_D)
    expert = int(layer.counts_DE.sum(0).argmax())
    on_D = np.nan_to_num(expert_profiles(layer.counts_DE)[:, expert])
    load, share, own = float(shares_D @ on_D), float(shares_D[d]), float(on_D[d])
    rest = (load - share * own) / (1 - share)
    wanted = ((load + 1 / layer.experts) / 2 - rest) / (own - rest)
    return float(np.clip(wanted, MOST * share, share))
