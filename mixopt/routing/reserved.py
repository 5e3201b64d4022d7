"""Diagnose experts that are there for certain domains: HoME's anomalies where HoME found them.

In a model of many tasks each expert is meant for some of them: private ones for one, shared ones
for several, and gates mix what a task may use. Domains are tasks here. So what each expert serves
is compared with what it is reserved for, and not with its load:

    collapse        an expert gives zeros for nearly everything (ReLU), so gates cannot weigh it
    degradation     of an expert that is shared, one task has nearly all
    underfitting    a task with few samples leaves its private experts unused

Loads are weights where the router tells them, else counts, for each token of a task: a rare task's
weight counts as much as a frequent one's.

Shapes: D domains, E experts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.errors import RoutingError, did_you_mean
from mixopt.routing import measures
from mixopt.routing.assignments import Assignments, LayerAssignments
from mixopt.routing.diagnosis import Diagnosis
from mixopt.routing.probe_result import ProbeResult
from mixopt.system import Array, BoolArray

Reserved = Mapping[str, Sequence[Collection[str]]]


@dataclass(frozen=True)
class ReservedThresholds:
    """From where on something is diagnosed.

    Attributes:
        zeros: Collapse above: share of zeros in what an expert gives, as HoME has it.
        serves: Degradation above: one domain's part of a shared expert's weight.
        used: A shared expert is used at all by a domain that gives it this part of an even weight
            over the experts that the domain may use.
        rare: A domain has few tokens below this part of an even share.
        own: Underfitting below: weight of a rare domain's private experts, of an even weight.
    """

    zeros: float = 0.9
    serves: float = 0.8
    used: float = 0.3
    rare: float = 0.5
    own: float = 0.15


def diagnose_reserved(
    assignments: Assignments,
    reserved: Reserved,
    *,
    probe: ProbeResult | None = None,
    thresholds: ReservedThresholds | None = None,
) -> list[Diagnosis]:
    """Return what is wrong with experts that are there for certain domains, by router.

    Args:
        assignments: What was counted, with the experts' weights if the router tells them.
        reserved: By router ("3", or "3/attention"), the domains that each expert is meant for.
        probe: Says what experts give, where the router was told it; without it collapse is not
            diagnosed.
        thresholds: From where on something is diagnosed.

    Raises:
        RoutingError: A router or a domain that is not there, or another number of experts.
    """
    limits = thresholds or ReservedThresholds()
    found = []
    for key, meant in reserved.items():
        layer = assignments.layer(key)
        meant_DE = _meant(layer, meant, assignments.domains)
        if probe is not None:
            found += _collapse(layer, probe, limits)
        weight_DE = _weight_of_a_token(layer)
        found += _degradation(layer, assignments.domains, meant_DE, weight_DE, limits)
        found += _underfitting(layer, assignments.domains, meant_DE, weight_DE, limits)
    return found


def _meant(
    layer: LayerAssignments, meant: Sequence[Collection[str]], domains: tuple[str, ...]
) -> BoolArray:
    if len(meant) != layer.experts:
        raise RoutingError(
            f"layer {layer.key}: {len(meant)} experts are assigned to domains; it has "
            f"{layer.experts}"
        )
    for name in (name for names in meant for name in names):
        if name not in domains:
            raise RoutingError(
                f"layer {layer.key}: unknown domain {name!r}{did_you_mean(name, domains)}"
            )
    return np.array([[name in names for names in meant] for name in domains])


def _weight_of_a_token(layer: LayerAssignments) -> Array:
    """Return how a token of each domain falls on the experts, 1 in all; 0 without tokens."""
    sums_HDE = layer.weight_HDE if layer.weighs else layer.counts_HDE
    return np.nan_to_num(measures.expert_profiles(sums_HDE.sum(0)))


def _collapse(
    layer: LayerAssignments, probe: ProbeResult, limits: ReservedThresholds
) -> list[Diagnosis]:
    of_probe = next((one for one in probe.layers if one.key == layer.key), None)
    if of_probe is None or of_probe.zeros_UE is None:
        return []
    zeros_E = of_probe.zeros_UE.sum(0) / probe.tokens_U.sum()
    wrong_E = np.flatnonzero(zeros_E > limits.zeros)
    if not len(wrong_E):
        return []
    worst = int(zeros_E.argmax())
    return [
        Diagnosis(
            kind="collapse",
            layer=layer.layer,
            router=layer.router,
            what=f"{len(wrong_E)} of {layer.experts} experts give zeros, expert {worst} for"
            f" {100 * zeros_E[worst]:.0f}% of what it could give",
            domain=None,
            experts=tuple(int(e) for e in wrong_E),
            numbers={"zeros": float(zeros_E[worst])},
            alarms={"zeros": limits.zeros},
            advice="normalise the input of experts and use an activation that is not 0 over half "
            "its range, as Swish of a batch norm: no mixture fixes this",
        )
    ]


def _degradation(
    layer: LayerAssignments,
    domains: tuple[str, ...],
    meant_DE: BoolArray,
    weight_DE: Array,
    limits: ReservedThresholds,
) -> list[Diagnosis]:
    found = []
    enough_D = limits.used / meant_DE.sum(1).clip(1)
    seen_D = layer.tokens_D > 0
    for expert in np.flatnonzero((meant_DE & seen_D[:, None]).sum(0) > 1):
        weight_D = np.where(meant_DE[:, expert], weight_DE[:, expert], 0.0)
        d = int(weight_D.argmax())
        if weight_D[d] < enough_D[d] or weight_D[d] / weight_D.sum() <= limits.serves:
            continue
        part = float(weight_D[d] / weight_D.sum())
        names = [domains[one] for one in np.flatnonzero(meant_DE[:, expert])]
        found.append(
            Diagnosis(
                kind="degradation",
                layer=layer.layer,
                router=layer.router,
                what=f"{100 * part:.0f}% of what expert {expert} is used for is {domains[d]!r}; "
                f"it is reserved for {', '.join(map(repr, names))}",
                domain=domains[d],
                experts=(int(expert),),
                numbers={"part": part, "weight": float(weight_D[d])},
                alarms={"serves": limits.serves},
                advice="share it among tasks that are alike: a group of experts for each category",
            )
        )
    return found


def _underfitting(
    layer: LayerAssignments,
    domains: tuple[str, ...],
    meant_DE: BoolArray,
    weight_DE: Array,
    limits: ReservedThresholds,
) -> list[Diagnosis]:
    shares_D = measures.load_shares(layer.tokens_D)
    private_E = meant_DE.sum(0) == 1
    own_D = np.where(meant_DE & private_E, weight_DE, 0).sum(1)
    even_D = (meant_DE & private_E).sum(1) / meant_DE.sum(1).clip(1)
    rare_D = (shares_D > 0) & (shares_D < limits.rare / len(domains))
    return [
        Diagnosis(
            kind="underfitting",
            layer=layer.layer,
            router=layer.router,
            what=f"{domains[d]!r}, which has {100 * shares_D[d]:.1f}% of the tokens, gives"
            f" {100 * own_D[d]:.0f}% of its weight to experts of its own; even is"
            f" {100 * even_D[d]:.0f}%",
            domain=domains[d],
            experts=tuple(int(e) for e in np.flatnonzero(meant_DE[d] & private_E)),
            numbers={"own": float(own_D[d]), "even": float(even_D[d]), "share": float(shares_D[d])},
            alarms={"own": float(limits.own * even_D[d]), "rare": limits.rare / len(domains)},
            advice="let a gate of its own add its experts whatever the others give (self gate), or"
            " give it more samples",
        )
        for d in np.flatnonzero(rare_D & (own_D < limits.own * even_D))
    ]
