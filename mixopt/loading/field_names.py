"""Names of the fields that mixopt adds to a batch, distinct from the user's columns.

Where a source has a column `domain`, say, that stays the user's and ours is `mixopt_domain`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ADDED = ("domain", "row", "lengths", "batch", "position", "mixture", "tokens", "supervised")
PREFIX = "mixopt_"


def field_names(columns: Iterable[str]) -> dict[str, str]:
    """Return by what name a batch has each field that mixopt adds.

    Args:
        columns: Of the user's.
    """
    taken = set(columns)
    return {name: PREFIX + name if name in taken else name for name in ADDED}


def columns_of(source: Any) -> tuple[str, ...]:
    """Return the columns of a dataset's rows, as a transform leaves them."""
    columns: Iterable[str] | None = getattr(source, "column_names", None)
    view: Any = getattr(source, "format", None)
    is_transformed = isinstance(view, Mapping) and view.get("type") == "custom"
    if columns is not None and not is_transformed:
        return tuple(columns)
    first = source[0] if len(source) else None
    return tuple(map(str, first)) if isinstance(first, Mapping) else ("sample",)
