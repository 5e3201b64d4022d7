"""Counts as a state to keep in a checkpoint: CPU tensors and a line of JSON.

The tensors hold all layers one after the other, to keep them few.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mixopt.errors import RoutingError
from mixopt.routing.assignments import (
    ARRAYS,
    OPTIONAL,
    Assignments,
    LayerAssignments,
    router_key,
)
from mixopt.system import StateFields, parse_json, shown_value

_ABOUT = "about"
_WHERE = "the state of RouterStats"


def saved_state(kept: Mapping[str, Assignments]) -> dict[str, Any]:
    """Return assignments as a state.

    Args:
        kept: Assignments of the same domains and experts, by name.
    """
    any_one = next(iter(kept.values()))
    layers = [[*_place(layer), layer.experts, layer.top_k] for layer in any_one.layers]
    state: dict[str, Any] = {_ABOUT: json.dumps({"domains": any_one.domains, "layers": layers})}
    for name, assignments in kept.items():
        for array in ARRAYS:
            flat = [layer.arrays()[array].ravel() for layer in assignments.layers]
            if array in OPTIONAL and not any(part.any() for part in flat):
                continue
            state[f"{name}/{array}"] = torch.from_numpy(np.concatenate(flat))
    return state


def saved_domains(state: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the domains that a state of `saved_state` is of.

    Raises:
        RoutingError: It is no such state.
    """
    return tuple(_about(state).texts("domains"))


def load_state(state: Mapping[str, Any], like: Assignments) -> dict[str, Assignments]:
    """Return the assignments of a state, by name.

    Args:
        state: What `saved_state` returned.
        like: Of the domains and experts that it must be of.

    Raises:
        RoutingError: It is of others, or no such state.
    """
    about = _about(state)
    sizes = {}
    for k, layer in enumerate(about.listed("layers")):
        has_name = isinstance(layer, list) and len(layer) > 1 and isinstance(layer[1], str)
        router = layer[1] if has_name else ""
        numbers = [layer[0], *layer[2:]] if has_name else layer
        one = StateFields({"sizes": numbers}, f"{about.where}: layers.{k}", RoutingError)
        number, experts, top_k = one.wholes("sizes", 3)
        sizes[router_key(number, router)] = experts, top_k
    like.check_sizes(tuple(about.texts("domains")), sizes, "the checkpoint")
    names = {key.split("/")[0] for key in state if "/" in key}
    return {name: _filled(state, name, like) for name in names}


def _place(layer: LayerAssignments) -> list[int | str]:
    return [layer.layer, layer.router] if layer.router else [layer.layer]


def _about(state: Mapping[str, Any]) -> StateFields:
    fields = StateFields(state, _WHERE, RoutingError)
    if _ABOUT not in state:
        raise RoutingError(
            f"not a state of RouterStats: it has {', '.join(sorted(state)) or 'nothing'}"
        )
    about = parse_json(fields.text(_ABOUT), f"{_WHERE}: {_ABOUT}", error=RoutingError)
    return StateFields(about, f"{_WHERE}: {_ABOUT}", RoutingError)


def _filled(state: Mapping[str, Any], name: str, like: Assignments) -> Assignments:
    flat = {array: _flat(state, f"{name}/{array}", array, like) for array in ARRAYS}
    layers, at = [], dict.fromkeys(ARRAYS, 0)
    for layer in like.layers:
        arrays = {}
        for array, empty in layer.arrays().items():
            end = at[array] + empty.size
            arrays[array] = flat[array][at[array] : end].reshape(empty.shape).copy()
            at[array] = end
        layers.append(replace(layer, **arrays))
    return Assignments(like.domains, tuple(layers))


def _flat(state: Mapping[str, Any], key: str, array: str, like: Assignments) -> Any:
    """Return the values of all layers, as many and of the kind that they are here."""
    if array in OPTIONAL and key not in state:
        return np.concatenate(
            [np.zeros_like(layer.arrays()[array]).ravel() for layer in like.layers]
        )
    tensor = StateFields(state, _WHERE, RoutingError).get(key)
    if not isinstance(tensor, torch.Tensor):
        raise RoutingError(f"{_WHERE}: {key}: {shown_value(tensor)} is not a tensor")
    empty = [layer.arrays()[array] for layer in like.layers]
    shape = (sum(one.size for one in empty),)
    values = {key: tensor.detach().cpu().numpy()}
    fields = StateFields(values, _WHERE, RoutingError)
    if empty[0].dtype.kind == "i":
        return fields.int_array(key, shape)
    return fields.array(key, shape)
