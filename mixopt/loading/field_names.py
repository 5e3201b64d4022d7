"""What a batch calls what mixopt adds to a user's columns: a name of theirs is never taken.

Where a source has a column `domain`, say, that stays the user's and ours is `mixopt_domain`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ADDED = ("domain", "row", "batch", "position", "mixture", "tokens", "supervised")
PREFIX = "mixopt_"


def field_names(sources: Iterable[Any]) -> dict[str, str]:
    """Return by what name a batch has each field that mixopt adds.

    Args:
        sources: The domains' rows; of one that does not say its columns the first row is read.
    """
    taken = {column for source in sources for column in _columns(source)}
    return {name: PREFIX + name if name in taken else name for name in ADDED}


def _columns(source: Any) -> Iterable[str]:
    """Return the columns of a dataset's rows, as a transform leaves them."""
    columns: Iterable[str] | None = getattr(source, "column_names", None)
    view: Any = getattr(source, "format", None)
    is_transformed = isinstance(view, Mapping) and view.get("type") == "custom"
    if columns is not None and not is_transformed:
        return columns
    first = source[0] if len(source) else None
    return first.keys() if isinstance(first, Mapping) else ()
