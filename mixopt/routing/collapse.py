"""Expert collapse: few experts do the work of a layer, others are dead.

With the router as it is, an expert's load is linear in the mixture: the sum of each domain's share
times its profile. So the domain that loads the busiest expert most can be told, and the share at
which the load would be half as far above the even one.

Shapes: D domains, E experts.
"""

from __future__ import annotations

import numpy as np

from mixopt.routing import measures
from mixopt.routing.assignments import LayerAssignments
from mixopt.routing.diagnosis import Change, Diagnosis, Thresholds

MOST = 0.5  # of a share that is taken away at once


def collapse(
    layer: LayerAssignments, domains: tuple[str, ...], limits: Thresholds
) -> list[Diagnosis]:
    """Return a diagnosis where the load is uneven, experts are dead, or most tokens choose one.

    Args:
        layer: Assignments of training.
        domains: Names of the domains.
        limits: From where on.
    """
    counts_E = layer.counts_DE.sum(0)
    load_E = measures.load_shares(counts_E)
    chosen_E = counts_E / layer.tokens_D.sum()
    crowded_E = measures.collapsed(chosen_E, layer.top_k)
    dead = float(measures.dead(load_E).mean())
    even = measures.entropy(load_E)
    if even >= limits.load_entropy and dead <= limits.dead and not crowded_E.any():
        return []
    busiest = int(load_E.argmax())
    change = _change(layer, domains, busiest)
    return [
        Diagnosis(
            kind="collapse",
            layer=layer.layer,
            what=f"expert {busiest} is chosen by {100 * chosen_E[busiest]:.0f}% of the tokens,"
            f" {100 * dead:.0f}% of the experts are dead, load entropy {even:.2f}",
            domain=change.domain if change else None,
            experts=tuple(int(e) for e in np.flatnonzero(crowded_E)) or (busiest,),
            numbers={
                "load_entropy": even,
                "dead": dead,
                "collapsed": float(crowded_E.sum()),
                "max_violation": measures.max_violation(load_E),
                "busiest": float(chosen_E[busiest]),
            },
            alarms={
                "load_entropy": limits.load_entropy,
                "dead": limits.dead,
                "collapsed": 0.0,
            },
            change=change,
            advice=f"{change}, which loads it most"
            if change
            else "all domains load it alike: balance the router, no mixture mends this",
        )
    ]


def _change(layer: LayerAssignments, domains: tuple[str, ...], expert: int) -> Change | None:
    """Return the share of the domain that loads an expert most at which half the excess is gone."""
    shares_D = measures.load_shares(layer.tokens_D)
    on_D = np.nan_to_num(measures.expert_profiles(layer.counts_DE)[:, expert])
    load, even = float(shares_D @ on_D), 1 / layer.experts
    d = int((shares_D * (on_D - load)).argmax())
    share, own = float(shares_D[d]), float(on_D[d])
    if share in {0.0, 1.0}:
        return None
    rest = (load - share * own) / (1 - share)
    # Load that a change of this domain's share can take away, beside what is too much.
    if own - rest <= 0 or (load - rest) < (load - even) * 0.1:
        return None
    wanted = ((load + even) / 2 - rest) / (own - rest)
    return Change(domains[d], share, float(np.clip(wanted, MOST * share, share)))
