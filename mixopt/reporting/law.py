"""A fit as plain numbers, in the one form in which a page and a notebook predict with it.

The objective is the largest of a few weighted sums of the law's columns: the losses first, then
what an objective with pilots needs of its own. `makeLaw` in assets/law.js predicts with these
numbers what Python does, to 1e-6. Packed, arrays are base64 of little-endian numbers, each once.

    {"arrays": [{"type": "f8", "data": "..."}, ...], "data": {..., {"$array": 0}, ...}}
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mixopt.errors import PluginError
from mixopt.fitting import Fit, aimed, supports
from mixopt.objective import Objective
from mixopt.reporting.page import json_text

# What `lawOf` in assets/law.js knows.
KINDS = ("gaussian_process", "power", "skills", "epochs", "mean", "corrected", "aimed")
MARK = "$array"
TYPES = {"f8": "<f8", "f4": "<f4", "i4": "<i4"}


def law_data(fit: Fit, objective: Objective | None = None) -> dict[str, Any]:
    """Return the entries `law` and `objective` of a page's data.

    Args:
        fit: Any.
        objective: Over the fit's losses; the fit's own when None.

    Raises:
        PluginError: Its regressor has no plain law.
    """
    objective = objective or fit.objective
    regressor, aim = aimed(fit.regressor, objective)
    model = regressor.plain_law() if supports(regressor, "plain_law") else {"kind": fit.name}
    for kind in _kinds(model):
        if kind not in KINDS:
            raise PluginError(
                f"regressor {fit.name!r} cannot be written out as numbers, so there is no what-if;"
                f" use auto or one of its members (kind {kind!r}; known: {', '.join(KINDS)})"
            )
    calibrations, own = fit.calibrations, fit.objective_calibration(objective)
    return {
        "law": {
            "model": model,
            "intervals": {
                "factors": np.array([one.factor for one in calibrations]),
                "floors": np.array([one.floor for one in calibrations]),
                "locals": [one.local for one in calibrations],
                "value": own.to_json(),
                "reach": {
                    "weights": fit.data.weights_ND,
                    "reach": fit.reach.reach,
                    "radius": fit.reach.radius,
                },
                "agrees": _agrees(fit, objective),
            },
        },
        "objective": {
            "description": objective.describe(),
            "unit": objective.value_unit,
            "signs": objective.signs,
            "pieces": aim.pieces().tolist(),
        },
    }


def packed_json(data: Mapping[str, Any]) -> str:
    """Return data as JSON that is safe inside `<script type="application/json">`.

    Args:
        data: Strings, numbers, booleans, None, lists and dictionaries of these, and numpy arrays
            of float64, float32 or int32. Other integers and booleans become int32.

    Raises:
        ValueError: A number or an array that is not finite, of another type, or a key `$array`.
    """
    arrays: dict[tuple[str, bytes], int] = {}
    plain = _plain(data, arrays)
    packed = [
        {"type": kind, "data": base64.b64encode(content).decode()} for kind, content in arrays
    ]
    return str(json_text({"arrays": packed, "data": plain}))


def _kinds(model: Any) -> Iterator[str]:
    """Yield the kind of a law, and of all laws that are part of it."""
    if isinstance(model, dict):
        if "kind" in model:
            yield model["kind"]
        model = list(model.values())
    if isinstance(model, list):
        for part in model:
            yield from _kinds(part)


def _agrees(fit: Fit, objective: Objective) -> dict[str, Any] | None:
    """Return which loss is predicted as the objective is, and its sign (`Prediction.agreeing`)."""
    if fit.pilots is None or objective.kind != "target":
        return None
    column = objective.columns[0]
    return {"column": column, "sign": float(objective.signs[column])}


def _plain(value: Any, arrays: dict[tuple[str, bytes], int]) -> Any:
    if isinstance(value, np.ndarray):
        return {MARK: arrays.setdefault(_packed(value), len(arrays))}
    if isinstance(value, Mapping):
        if MARK in value:
            raise ValueError(f"a key {MARK!r} would be read as an array")
        return {str(key): _plain(one, arrays) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one, arrays) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a number is {value}")
    return value


def _packed(array: np.ndarray[Any, Any]) -> tuple[str, bytes]:
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    if kind not in TYPES:
        if array.dtype.kind not in "iub":
            raise ValueError(f"an array of {array.dtype}")
        kind, array = "i4", array.astype(np.int32)
    if kind[0] == "f" and not np.isfinite(array).all():
        raise ValueError("an array holds a number that is not finite")
    return kind, np.ascontiguousarray(array, dtype=TYPES[kind]).tobytes()
