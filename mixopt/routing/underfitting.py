"""Expert underfitting: a domain with few tokens has no experts of its own, where others have.

An expert is a domain's own where it gets much more of it than of all domains. A layer that does
not tell domains apart is not underfitted: the other domains have no experts of their own either.

Shapes: D domains, E experts.
"""

from __future__ import annotations

import numpy as np

from mixopt.routing import measures
from mixopt.routing.assignments import LayerAssignments
from mixopt.routing.diagnosis import Change, Diagnosis, Thresholds


def underfitting(
    layer: LayerAssignments, domains: tuple[str, ...], limits: Thresholds
) -> list[Diagnosis]:
    """Return a diagnosis of each rare domain that goes to experts of all kinds.

    Args:
        layer: Assignments of training.
        domains: Names of the domains.
        limits: From where on.
    """
    shares_D = measures.load_shares(layer.tokens_D)
    floor = limits.rare / len(domains)
    profile_DE = measures.expert_profiles(layer.counts_DE)
    lift_DE = np.nan_to_num(measures.lift(layer.counts_DE))
    own_D = np.where(lift_DE >= limits.lift, np.nan_to_num(profile_DE), 0).sum(1)
    distance_DD = measures.profile_distances(profile_DE)
    found = []
    for d in np.flatnonzero((shares_D > 0) & (shares_D < floor) & (own_D < limits.own)):
        seen_D = shares_D > 0
        seen_D[d] = False
        others = float(np.median(own_D[seen_D])) if seen_D.any() else 0.0
        if others < limits.others:
            continue
        nearest = int(np.where(seen_D, np.nan_to_num(distance_DD[d], nan=1.0), 2.0).argmin())
        change = Change(domains[d], float(shares_D[d]), floor)
        found.append(
            Diagnosis(
                kind="underfitting",
                layer=layer.layer,
                what=f"{domains[d]!r} sends {100 * own_D[d]:.0f}% of its tokens to experts of its"
                f" own, other domains {100 * others:.0f}%",
                domain=domains[d],
                experts=(int(lift_DE[d].argmax()),),
                numbers={
                    "own": float(own_D[d]),
                    "others": others,
                    "share": float(shares_D[d]),
                    "distance": float(distance_DD[d, nearest]),
                },
                alarms={"own": limits.own, "others": limits.others, "rare": floor},
                change=change,
                advice=f"{change}, or join it with {domains[nearest]!r}, whose experts it uses"
                f" (distance {distance_DD[d, nearest]:.2f})",
            )
        )
    return found
