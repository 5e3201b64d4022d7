"""Counts of experts as JSON: each array is one line of text, integers exact and floats shortest.

Indented JSON gives each number of a list a line of its own, thousands in a trial's file.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.routing.assignments import ARRAYS, Assignments, LayerAssignments
from mixopt.routing.expert_counts import ExpertCounts, LayerInformation

_INTEGERS = ("counts_HDE", "dropped_D")


def counts_to_json(counts: ExpertCounts) -> dict[str, Any]:
    """Return counts as plain values."""
    return {
        "train": _assignments_to_json(counts.train),
        "held_out": _assignments_to_json(counts.held_out),
        "information": [asdict(layer) for layer in counts.information],
    }


def counts_from_json(content: dict[str, Any]) -> ExpertCounts:
    """Read what `counts_to_json` made."""
    information = (LayerInformation(**layer) for layer in content["information"])
    return ExpertCounts(
        _assignments_from_json(content["train"]),
        _assignments_from_json(content["held_out"]),
        tuple(information),
    )


def _assignments_to_json(assignments: Assignments) -> dict[str, Any]:
    layers = [
        {"layer": layer.layer, "top_k": layer.top_k, "experts": layer.experts}
        | {name: _text(array) for name, array in layer.arrays().items()}
        for layer in assignments.layers
    ]
    return {"domains": list(assignments.domains), "layers": layers}


def _assignments_from_json(content: dict[str, Any]) -> Assignments:
    domains = tuple(content["domains"])
    layers = (_layer_from_json(layer, len(domains)) for layer in content["layers"])
    return Assignments(domains, tuple(layers))


def _layer_from_json(content: dict[str, Any], domains: int) -> LayerAssignments:
    experts = content["experts"]
    shapes = {"counts_HDE": (2, domains, experts), "probability_DE": (domains, experts)}
    arrays = {name: _array(name, content[name]) for name in ARRAYS}
    shaped = {name: array.reshape(shapes.get(name, (domains,))) for name, array in arrays.items()}
    return LayerAssignments(layer=content["layer"], top_k=content["top_k"], **shaped)


def _text(array: NDArray[Any]) -> str:
    return " ".join(map(repr, array.ravel().tolist()))


def _array(name: str, text: str) -> NDArray[Any]:
    return np.array(text.split(), dtype=np.int64 if name in _INTEGERS else np.float64)
