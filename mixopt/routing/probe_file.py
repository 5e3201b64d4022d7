"""Keep what a probe saw in one `.npz` file, without pickle."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.errors import MixoptError, RoutingError
from mixopt.routing.probe_result import LayerProbe, ProbeResult
from mixopt.system import IntArray, check_names, checked_as, parse_json, read_arrays, write_bytes

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
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    write_bytes(path, stream.getvalue())


def load_probe(path: Path) -> ProbeResult:
    """Read a probe.

    Raises:
        RoutingError: The file is not there, or not a probe.
    """
    try:
        arrays = {name: _wide(array) for name, array in read_arrays(path).items()}
        about = parse_json(arrays["about"].astype(np.uint8).tobytes(), "about")
        layers = (
            LayerProbe(number, top_k, *(arrays[f"{number}/{name}"] for name in _OF_LAYER))
            for number, top_k in checked_as(list[tuple[int, int]], about["layers"], "layers")
        )
        probe = ProbeResult(
            tuple(checked_as(list[str], about["domains"], "domains")),
            arrays["domain_U"],
            arrays["tokens_U"],
            arrays["domain_T"],
            tuple(layers),
        )
        _check(probe)
        return probe
    except (MixoptError, ValueError, LookupError, TypeError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise RoutingError(f"{path}: not a probe of experts: {reason}") from error


def _check(probe: ProbeResult) -> None:
    """Raise ValueError where the parts do not fit together."""
    check_names(probe.domains, "domain", error=RoutingError)
    sequences, tokens, domains = len(probe.domain_U), len(probe.domain_T), len(probe.domains)
    _fits("domain_U", probe.domain_U, (sequences,), domains - 1)
    _fits("tokens_U", probe.tokens_U, (sequences,))
    _fits("domain_T", probe.domain_T, (tokens,), domains - 1)
    for layer in probe.layers:
        if not 1 <= layer.top_k <= layer.experts:
            raise ValueError(f"layer {layer.layer}: top_k {layer.top_k} of {layer.experts} experts")
        _fits("counts_UE", layer.counts_UE, (sequences, layer.experts))
        _fits("ids_TK", layer.ids_TK, (tokens, layer.top_k), layer.experts)
        if layer.shared_D.shape != (domains,) or layer.shared_D.dtype.kind != "f":
            raise ValueError(f"shared_D of shape {layer.shared_D.shape}")


def _fits(name: str, array: IntArray, shape: tuple[int, ...], most: int = 2**53) -> None:
    if array.dtype.kind not in "iu" or array.shape != shape:
        raise ValueError(f"{name} of shape {array.shape} and type {array.dtype}")
    if array.size and not 0 <= array.min() <= array.max() <= most:
        raise ValueError(f"{name} from {array.min()} to {array.max()}")


def _small(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return integers in as few bytes as hold them."""
    if array.dtype.kind != "i":
        return array
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))


def _wide(array: Any) -> Any:
    return array.astype(np.int64) if array.dtype.kind == "u" else array
