"""Expert degradation: experts that are there for all domains serve one.

Of routed experts, one domain may occupy many more than its share of the tokens. A shared expert is
given all tokens; it serves one domain where that domain's output comes from it and the others' does
not.

Shapes: D domains, E experts.
"""

from __future__ import annotations

import numpy as np

from mixopt.routing import measures
from mixopt.routing.assignments import LayerAssignments
from mixopt.routing.diagnosis import Change, Diagnosis, Thresholds
from mixopt.system import Array


def degradation(
    layer: LayerAssignments, domains: tuple[str, ...], limits: Thresholds
) -> list[Diagnosis]:
    """Return a diagnosis of each domain that occupies too many routed experts.

    Args:
        layer: Assignments of training.
        domains: Names of the domains.
        limits: From where on.
    """
    counts_DE = layer.counts_DE
    total_E = counts_DE.sum(0)
    of_domain_DE = np.divide(counts_DE, total_E, out=np.zeros(counts_DE.shape), where=total_E > 0)
    serves_DE = of_domain_DE >= limits.serves
    shares_D = measures.load_shares(layer.tokens_D)
    occupied_D = serves_DE.mean(1)
    found = []
    for d in np.flatnonzero(occupied_D - shares_D > limits.occupied):
        change = _change(domains, shares_D, int(d))
        experts = tuple(int(e) for e in np.flatnonzero(serves_DE[d]))
        found.append(
            Diagnosis(
                kind="degradation",
                layer=layer.layer,
                what=f"{len(experts)} of {layer.experts} experts serve {domains[d]!r}, which has"
                f" {100 * shares_D[d]:.1f}% of the tokens",
                domain=domains[d],
                experts=experts,
                numbers={"occupied": float(occupied_D[d]), "share": float(shares_D[d])},
                alarms={"occupied": limits.occupied, "serves": limits.serves},
                change=change,
                advice=_advice(change, domains[d]),
            )
        )
    return found


def shared_degradation(
    layer: LayerAssignments,
    domains: tuple[str, ...],
    limits: Thresholds,
    shared_D: Array,
) -> list[Diagnosis]:
    """Return a diagnosis where the shared experts serve one domain more than the others.

    Args:
        layer: Assignments of training.
        domains: Names of the domains.
        limits: From where on.
        shared_D: Share of the shared experts in the output, by domain; NaN where it is unknown.
    """
    if np.isnan(shared_D).any() or len(domains) == 1:
        return []
    d = int(shared_D.argmax())
    others = float(np.delete(shared_D, d).mean())
    if shared_D[d] - others <= limits.shared:
        return []
    change = _change(domains, measures.load_shares(layer.tokens_D), d)
    return [
        Diagnosis(
            kind="degradation",
            layer=layer.layer,
            what=f"the shared experts give {100 * shared_D[d]:.0f}% of the output for"
            f" {domains[d]!r} and {100 * others:.0f}% for the others",
            domain=domains[d],
            experts=(),
            numbers={"shared": float(shared_D[d]), "others": others},
            alarms={"shared": limits.shared},
            change=change,
            advice=_advice(change, domains[d]),
        )
    ]


def _change(domains: tuple[str, ...], shares_D: Array, d: int) -> Change | None:
    """Return the middle between a domain's share and an even one, if that is lower."""
    share, even = float(shares_D[d]), 1 / len(domains)
    return Change(domains[d], share, (share + even) / 2) if share > even else None


def _advice(change: Change | None, domain: str) -> str:
    if change is None:
        return f"{domain!r} has no more than an even share: look at its text before its share"
    return str(change)
