"""Diagnose the experts of all layers: collapse, degradation and underfitting.

Shapes: D domains, E experts.
"""

from __future__ import annotations

from mixopt.routing.assignments import Assignments, LayerAssignments
from mixopt.routing.collapse import collapse
from mixopt.routing.degradation import degradation, shared_degradation
from mixopt.routing.diagnosis import Change, Diagnosis, Thresholds
from mixopt.routing.probe_result import ProbeResult
from mixopt.routing.underfitting import underfitting

__all__ = ["Change", "Diagnosis", "Thresholds", "diagnose", "enough"]


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
    shared = {layer.layer: layer.shared_D for layer in probe.layers} if probe else {}
    domains = assignments.domains
    found: list[Diagnosis] = []
    for layer in assignments.layers:
        if not enough(layer, limits):
            continue
        found += collapse(layer, domains, limits)
        found += degradation(layer, domains, limits)
        if layer.layer in shared:
            found += shared_degradation(layer, domains, limits, shared[layer.layer])
        found += underfitting(layer, domains, limits)
    return found


def enough(layer: LayerAssignments, limits: Thresholds) -> bool:
    """Tell whether a layer has enough assignments to be diagnosed."""
    return bool(layer.counts_DE.sum() >= limits.assignments * layer.experts)
