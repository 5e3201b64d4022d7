"""Keep what a probe saw in one `.npz` file, without pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.errors import RoutingError
from mixopt.routing.probe_result import LayerProbe, ProbeResult
from mixopt.system import parse_json, read_arrays, replacing

_OF_LAYER = ("counts_UE", "ids_TK", "shared_D")


def save_probe(probe: ProbeResult, path: Path) -> None:
    """Write a probe, at once.

    Raises:
        RunError: The file cannot be written.
    """
    about = {
        "domains": probe.domains,
        "layers": [[layer.layer, layer.top_k] for layer in probe.layers],
    }
    arrays: dict[str, Any] = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "domain_U": _small(probe.domain_U),
        "tokens_U": _small(probe.tokens_U),
        "domain_T": _small(probe.domain_T),
    }
    for layer in probe.layers:
        for name in _OF_LAYER:
            arrays[f"{layer.layer}/{name}"] = _small(getattr(layer, name))
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def load_probe(path: Path) -> ProbeResult:
    """Read a probe.

    Raises:
        RoutingError: The file is not there, or not a probe.
    """
    try:
        read = read_arrays(path, error=RoutingError)
        arrays = {name: _wide(array) for name, array in read.items()}
        text = arrays["about"].astype(np.uint8).tobytes()
        about = parse_json(text, "about", error=RoutingError)
        layers = (
            LayerProbe(number, top_k, *(arrays[f"{number}/{name}"] for name in _OF_LAYER))
            for number, top_k in about["layers"]
        )
        return ProbeResult(
            tuple(about["domains"]),
            arrays["domain_U"],
            arrays["tokens_U"],
            arrays["domain_T"],
            tuple(layers),
        )
    except (RoutingError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise RoutingError(f"{path}: not a probe of experts: {reason}") from error


def _small(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return integers in as few bytes as hold them."""
    if array.dtype.kind != "i":
        return array
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))


def _wide(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.astype(np.int64) if array.dtype.kind == "u" else array
