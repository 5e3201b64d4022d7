"""Data for a page as one line of JSON: arrays apart, as base64, and nothing that ends a script.

    {"arrays": [{"type": "f8", "data": "..."}, ...], "data": {..., {"$array": 0}, ...}}

Arrays are little-endian, flat, and kept once where they are equal: a law's trials and those of a
table are the same. The reader is `readWhatIf` in mixopt/what_if/assets/law.js.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np

MARK = "$array"
TYPES = {"f8": "<f8", "f4": "<f4", "i4": "<i4", "i2": "<i2"}


def packed_json(data: dict[str, Any]) -> str:
    """Return data as JSON that is safe inside `<script type="application/json">`.

    Args:
        data: Strings, numbers, booleans, None, lists and dictionaries of these, and numpy arrays
            of float64, float32, int32 or int16. Other integers and booleans become int32.

    Raises:
        ValueError: A number or an array that is not finite, of another type, or a key `$array`.
    """
    arrays: dict[tuple[str, bytes], int] = {}
    plain = _plain(data, arrays)
    packed = [
        {"type": kind, "data": base64.b64encode(content).decode()} for kind, content in arrays
    ]
    text = json.dumps({"arrays": packed, "data": plain}, allow_nan=False, separators=(",", ":"))
    # All three are letters of JSON strings alone, and `\u003c` is what `<` means there.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any, arrays: dict[tuple[str, bytes], int]) -> Any:
    if isinstance(value, np.ndarray):
        return {MARK: arrays.setdefault(_packed(value), len(arrays))}
    if isinstance(value, dict):
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
