"""Diagnose the experts of all layers: collapse, degradation and underfitting.

Collapse: few experts do the work of a layer, others are dead (mixopt.routing.collapse).

Degradation: experts that are there for all domains serve one. Of routed experts, one domain may
occupy many more than its share of the tokens; where there are many domains each has a small share,
and a smaller part of the experts is too many. A shared expert is given all tokens; it serves one
domain where that domain's output comes from it and the others' does not.

Underfitting: a domain with few tokens has no experts of its own, where others have: its tokens go
as those of the others together do. A layer that does not tell domains
apart is not underfitted: the other domains have no experts of their own either.

Shapes: D domains, E experts.
"""

from __future__ import annotations

import numpy as np

from mixopt.routing import measures
from mixopt.routing.assignments import Assignments, LayerAssignments
from mixopt.routing.collapse import collapse
from mixopt.routing.diagnosis import NO_CHANGE, Diagnosis
from mixopt.routing.probe_result import ProbeResult
from mixopt.routing.thresholds import Thresholds
from mixopt.system import Array

FEW = 3  # domains up to which the experts that one of them occupies are held against as much
TIMES = 1.6  # its share, that a domain of many occupies at the least
KNOWN = 5  # other domains from which on their spread is known


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
    return bool(layer.counts_DE.sum() >= max(1, limits.assignments * layer.experts))


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
    many = limits.occupied * min(1.0, FEW / len(domains))
    excess_D = occupied_D - shares_D
    found = []
    for d in np.flatnonzero(
        (excess_D > limits.occupied) | ((excess_D > many) & (occupied_D > TIMES * shares_D))
    ):
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
                alarms={"occupied": many, "serves": limits.serves},
                advice=_advice(domains[d]),
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
    rest = np.delete(shared_D, d)
    others = float(rest.mean())
    spread = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
    least = max(limits.shared, 4 * spread) if len(rest) >= KNOWN else limits.shared
    if shared_D[d] - others <= least:
        return []
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
            alarms={"shared": least},
            advice=_advice(domains[d]),
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
    apart_D = measures.apartness(layer.counts_HDE)
    distance_DD = measures.profile_distances(profile_DE)
    found = []
    for d in np.flatnonzero((shares_D > 0) & (shares_D < floor) & np.isfinite(apart_D)):
        seen_D = (shares_D > 0) & np.isfinite(apart_D)
        seen_D[d] = False
        others = float(np.median(apart_D[seen_D])) if seen_D.any() else 0.0
        if others < limits.others or apart_D[d] >= limits.apart * others:
            continue
        nearest = int(np.where(seen_D, np.nan_to_num(distance_DD[d], nan=1.0), 2.0).argmin())
        found.append(
            Diagnosis(
                kind="underfitting",
                layer=layer.layer,
                router=layer.router,
                what=f"{domains[d]!r} uses the same experts as all: its distance from the others "
                f"is {apart_D[d]:.2f}, the median domain's is {others:.2f}",
                domain=domains[d],
                experts=(int(lift_DE[d].argmax()),),
                numbers={
                    "apart": float(apart_D[d]),
                    "others": others,
                    "share": float(shares_D[d]),
                    "distance": float(distance_DD[d, nearest]),
                },
                alarms={"apart": limits.apart * others, "others": limits.others, "rare": floor},
                advice=f"its experts are nearest to those of {domains[nearest]!r} (distance "
                f"{distance_DD[d, nearest]:.2f}): look at its loss; {NO_CHANGE}",
            )
        )
    return found


def _advice(domain: str) -> str:
    return f"others could use them: look at the text of {domain!r}; {NO_CHANGE}"
