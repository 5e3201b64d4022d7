"""Store the result of a probe in one `.npz` file, without pickle."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.errors import RoutingError
from mixopt.routing.assignments import split_key
from mixopt.routing.probe_result import SUMS_OF_A_SEQUENCE, LayerProbe, ProbeResult
from mixopt.system import IntArray, StateFields, parse_json, read_arrays, replacing

_LAST_BYTE = 255
_KEY = re.compile(r"\d{1,9}(/.+)?")
_OF_LAYER = ("counts_UE", "ids_TK", "shared_D")


def save_probe(probe: ProbeResult, path: Path) -> None:
    """Write a probe, at once.

    Raises:
        RunError: The file cannot be written.
    """
    about = {
        "domains": probe.domains,
        "layers": [[layer.key, layer.top_k] for layer in probe.layers],
    }
    arrays: dict[str, Any] = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "domain_U": _small(probe.domain_U),
        "tokens_U": _small(probe.tokens_U),
        "domain_T": _small(probe.domain_T),
    }
    for layer in probe.layers:
        for name in _OF_LAYER:
            arrays[f"{layer.key}/{name}"] = _small(getattr(layer, name))
        for name in SUMS_OF_A_SEQUENCE:
            sums = getattr(layer, name)
            if sums is not None:
                arrays[f"{layer.key}/{name}"] = _small(sums)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def load_probe(path: Path) -> ProbeResult:
    """Read a probe.

    Raises:
        RoutingError: The file is not there, or not a probe; the field is named.
    """
    fields = StateFields(
        {name: _wide(array) for name, array in read_arrays(path, error=RoutingError).items()},
        f"{path}: not a probe of experts",
        RoutingError,
    )
    text = fields.int_array("about", (-1,))
    about = StateFields(_json(text, fields.where), f"{fields.where}: about", RoutingError)
    domains = tuple(about.texts("domains"))
    domain_U = fields.int_array("domain_U", (-1,))
    domain_T = fields.int_array("domain_T", (-1,))
    for name, domain in (("domain_U", domain_U), ("domain_T", domain_T)):
        if domain.max(initial=-1) >= len(domains):
            raise RoutingError(f"{fields.where}: {name}: there are {len(domains)} domains")
    sequences, tokens = len(domain_U), len(domain_T)
    return ProbeResult(
        domains,
        domain_U,
        fields.int_array("tokens_U", (sequences,)),
        domain_T,
        tuple(
            _layer(fields, layer, (sequences, tokens, len(domains)))
            for layer in about.listed("layers")
        ),
    )


def _json(text: IntArray, where: str) -> Any:
    if text.max(initial=0) > _LAST_BYTE:
        raise RoutingError(f"{where}: about: is not text")
    return parse_json(text.astype(np.uint8).tobytes(), f"{where}: about", error=RoutingError)


def _layer(fields: StateFields, about: Any, sizes: tuple[int, int, int]) -> LayerProbe:
    """Return what a layer chose for so many sequences, kept tokens and domains."""
    one = StateFields({"layers": about}, f"{fields.where}: about", RoutingError)
    key, top_k = _sizes(one)
    number, router = split_key(key)
    sequences, tokens, domains = sizes
    counts_UE, ids_TK, shared_D = (f"{key}/{name}" for name in _OF_LAYER)
    counts = fields.int_array(counts_UE, (sequences, -1))
    shapes = {"U": (sequences,), "UE": counts.shape}
    sums: dict[str, Any] = {}
    for name in SUMS_OF_A_SEQUENCE:
        field, shape = f"{key}/{name}", shapes[name.rpartition("_")[2]]
        if field in fields.content:
            whole = len(shape) == 1
            sums[name] = (
                fields.int_array(field, shape) if whole else fields.array(field, shape, 0.0)
            )
    layer = LayerProbe(
        number,
        top_k,
        counts,
        fields.int_array(ids_TK, (tokens, top_k)),
        fields.array(shared_D, (domains,), nan=True),
        router,
        **sums,
    )
    if layer.ids_TK.max(initial=0) > layer.experts + 1:  # dropped, and not used
        raise RoutingError(f"{fields.where}: {ids_TK}: there are {layer.experts} experts")
    return layer


def _sizes(fields: StateFields) -> tuple[str, int]:
    """Return a router's key, a number alone in files of before, and experts of a token."""
    about = fields.listed("layers")
    if len(about) == 2 and isinstance(about[0], str) and _KEY.fullmatch(about[0]):
        return about[0], StateFields({"top_k": about[1]}, fields.where, RoutingError).whole("top_k")
    number, top_k = fields.wholes("layers", 2)
    return str(number), top_k


def _small(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return integers in as few bytes as hold them."""
    if array.dtype.kind != "i":
        return array
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))


def _wide(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.astype(np.int64) if array.dtype.kind == "u" else array
