"""Counts as a state to keep in a checkpoint: CPU tensors and a line of JSON.

The tensors hold all layers one after the other, so that there are few of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mixopt.errors import RoutingError
from mixopt.routing.assignments import ARRAYS, Assignments

_ABOUT = "about"


def saved_state(kept: Mapping[str, Assignments]) -> dict[str, Any]:
    """Return assignments as a state.

    Args:
        kept: Assignments of the same domains and experts, by name.
    """
    any_one = next(iter(kept.values()))
    layers = [[layer.layer, layer.experts, layer.top_k] for layer in any_one.layers]
    state: dict[str, Any] = {_ABOUT: json.dumps({"domains": any_one.domains, "layers": layers})}
    for name, assignments in kept.items():
        for array in ARRAYS:
            flat = [layer.arrays()[array].ravel() for layer in assignments.layers]
            state[f"{name}/{array}"] = torch.from_numpy(np.concatenate(flat))
    return state


def saved_domains(state: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the domains that a state of `saved_state` is of."""
    return tuple(json.loads(state[_ABOUT])["domains"])


def load_state(state: Mapping[str, Any], like: Assignments) -> dict[str, Assignments]:
    """Return the assignments of a state, by name.

    Args:
        state: What `saved_state` returned.
        like: Of the domains and experts that it must be of.

    Raises:
        RoutingError: It is of others, or no such state.
    """
    if _ABOUT not in state:
        raise RoutingError(
            f"not a state of RouterStats: it has {', '.join(sorted(state)) or 'nothing'}"
        )
    about = json.loads(state[_ABOUT])
    like.check_sizes(
        tuple(about["domains"]), {n: (e, k) for n, e, k in about["layers"]}, "the checkpoint"
    )
    names = {key.split("/")[0] for key in state if "/" in key}
    return {name: _filled(state, name, like) for name in names}


def _filled(state: Mapping[str, Any], name: str, like: Assignments) -> Assignments:
    flat = {array: state[f"{name}/{array}"].cpu().numpy() for array in ARRAYS}
    layers, at = [], dict.fromkeys(ARRAYS, 0)
    for layer in like.layers:
        arrays = {}
        for array, empty in layer.arrays().items():
            end = at[array] + empty.size
            arrays[array] = flat[array][at[array] : end].reshape(empty.shape).copy()
            at[array] = end
        layers.append(replace(layer, **arrays))
    return Assignments(like.domains, tuple(layers))
