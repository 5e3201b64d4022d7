"""How much work a function does, counted: a test of it does not depend on a busy machine."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable


def calls(function: Callable[[], object]) -> int:
    """Return how many functions were called, those of C among them."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def allocated(function: Callable[[], object]) -> int:
    """Return how many bytes existed at most beyond those of before."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
