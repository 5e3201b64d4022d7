"""The promise of a plain law: nothing in it but numbers, arrays and words.

Whether a browser predicts the same is seen in one (tests/reporting/test_law_in_a_browser.py); here
is checked what needs none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mixopt.testing._regressor_trials import promise

TYPES = ("float64", "float32", "int32")


def check_plain_law(law: Any) -> None:
    """Check what `plain_law` returned (mixopt.fitting.capabilities).

    Raises:
        AssertionError: It holds something else than it may.
    """
    named = isinstance(law, dict) and isinstance(law.get("kind"), str)
    promise(named, "plain_law returns a dictionary with its kind", f"{type(law).__name__}")
    for place, value in _parts("plain_law", law):
        if isinstance(value, np.ndarray):
            said = f"arrays of a plain law are of {', '.join(TYPES)}"
            promise(value.dtype.name in TYPES, said, f"{place} is of {value.dtype}")
        else:
            plain = value is None or type(value) in (str, bool, int, float)
            said = "a plain law holds words, numbers, arrays, lists and dictionaries"
            promise(plain, said, f"{place} is a {type(value).__name__}")
        numbers = not isinstance(value, str) and value is not None
        finite = not numbers or bool(np.isfinite(value).all())
        promise(finite, "numbers of a plain law are finite", f"{place} has one that is not")


def _parts(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield all that is not a list or a dictionary, with where it is."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _parts(f"{place}.{key}", one)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _parts(f"{place}[{number}]", one)
    else:
        yield place, value
