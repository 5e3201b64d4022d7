"""Axial mixtures: a centre, and for each domain a mixture that goes from the centre towards it.

Few trials tell most where each of them moves one domain: its own loss falls by much, and what the
other losses pay is seen one domain at a time (an axial design of mixtures: Cornell, Experiments
with Mixtures). With a share s, the axial mixture of domain d has s + (1 - s) c_d of it and
(1 - s) c_j of every other domain j, where c is the centre.

Limits come first. A domain whose cap is lower takes its cap; what is then left over goes to the
other domains in proportion to the centre, each within its own limits. Where caps leave a domain
nearly at the centre, its mixture would tell nothing, and there is none.

Shapes: D domains, P mixtures (at most the centre and D axial ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.constraints import Allowed
from mixopt.system import Array, BoolArray

NEAR = 0.02  # total variation from the centre under which a mixture tells nothing of its own
SAME = 1e-5  # L1 distance under which two rows are one mixture
HALVINGS = 80
LEAST = 1e-12  # of the centre, so that a domain that the centre leaves out can be filled


@dataclass(frozen=True, eq=False)
class AxialMixtures:
    """The mixtures of an axial design.

    Attributes:
        weights_PD: The centre, then one mixture a domain; no two alike.
        left_out: Positions of the domains whose mixture is nearly the centre.
    """

    weights_PD: Array
    left_out: tuple[int, ...]


def axial_mixtures(
    center_D: Array, allowed: Allowed, share: float, *, taken: Sequence[Array] = ()
) -> AxialMixtures:
    """Return the centre, moved within the limits, and an axial mixture for each domain.

    Args:
        center_D: What every mixture is partly made of; >= 0, adding up to 1.
        allowed: Limits of the weights.
        share: How far each goes from the centre towards its domain, in (0, 1].
        taken: Mixtures that are trained anyway and are left out here.
    """
    domains = len(center_D)
    middle_D = _filled(center_D[None], center_D, allowed, np.zeros((1, domains), dtype=np.bool_))
    wanted_DD = share * np.eye(domains) + (1.0 - share) * center_D
    axes_DD = _filled(wanted_DD, center_D, allowed, np.eye(domains, dtype=np.bool_))
    away_D = 0.5 * np.abs(axes_DD - middle_D).sum(axis=1)
    kept: list[Array] = []
    for weights_D in [middle_D[0], *axes_DD[away_D >= NEAR]]:
        if all(np.abs(weights_D - one).sum() > SAME for one in (*taken, *kept)):
            kept.append(weights_D)
    left_out = tuple(int(place) for place in np.flatnonzero(away_D < NEAR))
    return AxialMixtures(np.array(kept).reshape(-1, domains), left_out)


def _filled(wanted_PD: Array, center_D: Array, allowed: Allowed, own_PD: BoolArray) -> Array:
    """Keep each mixture's own domain as near as the limits allow; scale the centre for the rest.

    Args:
        wanted_PD: What the mixtures would be without limits.
        center_D: In proportion to which the other domains share the rest.
        allowed: Limits of the weights.
        own_PD: Which domain of each mixture is its own; none in the centre's row.
    """
    lower_D, upper_D = allowed.lower_D, allowed.upper_D
    # The others can take no less than their floors and no more than their caps.
    most_PD = np.minimum(upper_D, 1.0 - (lower_D.sum() - lower_D))
    least_PD = np.maximum(lower_D, 1.0 - (upper_D.sum() - upper_D))
    fixed_PD = np.clip(wanted_PD, np.minimum(least_PD, most_PD), most_PD)
    shares_D = np.maximum(center_D, LEAST)
    low_P, high_P = np.zeros(len(wanted_PD)), np.full(len(wanted_PD), 1.0 / LEAST)
    for _ in range(HALVINGS):
        # The geometric middle at first, since the factor may be of any size.
        middle_P = np.where(low_P > 0, np.sqrt(low_P * high_P), high_P * LEAST**0.5)
        rest_PD = np.clip(middle_P[:, None] * shares_D, lower_D, upper_D)
        over_P = np.where(own_PD, fixed_PD, rest_PD).sum(axis=1) > 1.0
        low_P, high_P = np.where(over_P, low_P, middle_P), np.where(over_P, middle_P, high_P)
    rest_PD = np.clip(high_P[:, None] * shares_D, lower_D, upper_D)
    return allowed.project(np.where(own_PD, fixed_PD, rest_PD))
