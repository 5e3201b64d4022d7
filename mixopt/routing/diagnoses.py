"""Diagnose the experts of all layers: collapse, degradation and underfitting.

Collapse: few experts do the work of a layer, others are dead. With the router as it is, an expert's
load is linear in the mixture: the sum of each domain's share times its profile. So the domain that
loads the busiest expert most can be told, and the share at which the load would be half as far
above the even one.

Degradation: experts that are there for all domains serve one. Of routed experts, one domain may
occupy many more than its share of the tokens. A shared expert is given all tokens; it serves one
domain where that domain's output comes from it and the others' does not.

Underfitting: a domain with few tokens has no experts of its own, where others have. An expert is a
domain's own where it gets much more of it than of all domains. A layer that does not tell domains
apart is not underfitted: the other domains have no experts of their own either.

Shapes: D domains, E experts.
"""

from __future__ import annotations

import numpy as np

from mixopt.routing import measures
from mixopt.routing.assignments import Assignments, LayerAssignments
from mixopt.routing.diagnosis import Change, Diagnosis, Thresholds
from mixopt.routing.probe_result import ProbeResult
from mixopt.system import Array

MOST = 0.5  # of a share that is taken away at once


def diagnose(
    assignments: Assignments,
    thresholds: Thresholds | None = None,
    probe: ProbeResult | None = None,
) -> list[Diagnosis]:
    """Return what is wrong, by layer.

    Args:
        assignments: Of training, so that the shares of their tokens are those of the mixture.
        thresholds: From where on something is diagnosed.
        probe: Says what shared experts do; without it they are not diagnosed.
    """
    limits = thresholds or Thresholds()
    shared = {layer.key: layer.shared_D for layer in probe.layers} if probe else {}
    domains = assignments.domains
    found: list[Diagnosis] = []
    for layer in assignments.layers:
        if not enough(layer, limits):
            continue
        found += collapse(layer, domains, limits)
        found += degradation(layer, domains, limits)
        if layer.key in shared:
            found += shared_degradation(layer, domains, limits, shared[layer.key])
        found += underfitting(layer, domains, limits)
    return found


def enough(layer: LayerAssignments, limits: Thresholds) -> bool:
    """Tell whether a layer has enough assignments to be diagnosed."""
    return bool(layer.counts_DE.sum() >= limits.assignments * layer.experts)


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
    crowded_E = measures.collapsed(chosen_E, layer.experts_of_a_token)
    dead = float(measures.dead(load_E).mean())
    even = measures.entropy(load_E)
    if even >= limits.load_entropy and dead <= limits.dead and not crowded_E.any():
        return []
    busiest = int(load_E.argmax())
    change = _half_the_excess(layer, domains, busiest)
    return [
        Diagnosis(
            kind="collapse",
            layer=layer.layer,
            router=layer.router,
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
        change = _towards_even(domains, shares_D, int(d))
        experts = tuple(int(e) for e in np.flatnonzero(serves_DE[d]))
        found.append(
            Diagnosis(
                kind="degradation",
                layer=layer.layer,
                router=layer.router,
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
    change = _towards_even(domains, measures.load_shares(layer.tokens_D), d)
    return [
        Diagnosis(
            kind="degradation",
            layer=layer.layer,
            router=layer.router,
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
                router=layer.router,
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


def _half_the_excess(
    layer: LayerAssignments, domains: tuple[str, ...], expert: int
) -> Change | None:
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


def _towards_even(domains: tuple[str, ...], shares_D: Array, d: int) -> Change | None:
    """Return the middle between a domain's share and an even one, if that is lower."""
    share, even = float(shares_D[d]), 1 / len(domains)
    return Change(domains[d], share, (share + even) / 2) if share > even else None


def _advice(change: Change | None, domain: str) -> str:
    if change is None:
        return f"{domain!r} has no more than an even share: look at its text before its share"
    return str(change)
