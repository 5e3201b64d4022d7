"""Counts of the experts of a proxy: in training, and on held-out text.

Load is that of training, as it depends on the mixture. What compares domains or mixtures is
measured on held-out text, of which each domain has as much, whatever was trained on.

As JSON each array is one line of text, integers exact and floats shortest: indented JSON gives each
number of a list a line of its own, thousands in a trial's file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixopt.routing.assignments import (
    ARRAYS,
    OPTIONAL,
    Assignments,
    LayerAssignments,
    no_layer,
    router_key,
)

if TYPE_CHECKING:
    from mixopt.routing.probe_result import ProbeResult

_INTEGERS = ("counts_HDE", "dropped_D", "unused_D")


@dataclass(frozen=True)
class LayerInformation:
    """How much a layer's experts say about the domain, on held-out text.

    Attributes:
        layer: The model's own number of the layer.
        information: Mutual information of expert and domain, nats.
        chance: Its mean where the sequences' domains are shuffled.
        corrected: Information less chance; about 0 where the domains are alike.
        specialisation: That over the entropy of the domains: 1 where the expert tells the domain.
            None where there is one domain alone.
        router: Which router of the layer, where the model has layers of several.
    """

    layer: int
    information: float
    chance: float
    corrected: float
    specialisation: float | None
    router: str = ""

    @property
    def key(self) -> str:
        """The router's name among all of the model, as `LayerAssignments.key`."""
        return router_key(self.layer, self.router)


@dataclass(frozen=True, eq=False)
class ExpertCounts:
    """What the experts of one trial were given; domains are those of training, by their names.

    Attributes:
        train: What was assigned in the second half of the steps, when experts have found their
            place, of the domains in the proportions of the mixture.
        held_out: What is assigned at the end, of as many held-out tokens of each domain.
        information: What `held_out` says about domains, of each layer.
    """

    train: Assignments
    held_out: Assignments
    information: tuple[LayerInformation, ...]


def layer_information(probe: ProbeResult) -> tuple[LayerInformation, ...]:
    """Return what the experts say about the domains of a probe's sequences, layer by layer."""
    columns = ("layer", "information", "chance", "corrected", "specialisation", "router")
    return tuple(LayerInformation(*row) for row in probe.specialisation().select(columns).rows())


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
        {
            "layer": layer.layer,
            "router": layer.router,
            "top_k": layer.top_k,
            "experts": layer.experts,
        }
        | {
            name: _text(array)
            for name, array in layer.arrays().items()
            if array.any() or name not in OPTIONAL
        }
        for layer in assignments.layers
    ]
    return {"domains": list(assignments.domains), "layers": layers}


def _assignments_from_json(content: dict[str, Any]) -> Assignments:
    domains = tuple(content["domains"])
    layers = (_layer_from_json(layer, len(domains)) for layer in content["layers"])
    return Assignments(domains, tuple(layers))


def _layer_from_json(content: dict[str, Any], domains: int) -> LayerAssignments:
    experts = content["experts"]
    shapes = {
        "counts_HDE": (2, domains, experts),
        "weight_HDE": (2, domains, experts),
        "probability_DE": (domains, experts),
    }
    known = (name for name in ARRAYS if name in content or name not in OPTIONAL)
    arrays = {name: _array(name, content[name]) for name in known}
    shaped: dict[str, Any] = {
        name: array.reshape(shapes.get(name, (domains,))) for name, array in arrays.items()
    }
    number, top_k, router = content["layer"], content["top_k"], content.get("router", "")
    return replace(no_layer(router_key(number, router), experts, top_k, domains), **shaped)


def _text(array: NDArray[Any]) -> str:
    return " ".join(map(repr, array.ravel().tolist()))


def _array(name: str, text: str) -> NDArray[Any]:
    return np.array(text.split(), dtype=np.int64 if name in _INTEGERS else np.float64)
