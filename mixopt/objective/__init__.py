"""The quantity that is minimised, computed from losses by evaluation domain, and its unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.objective.aggregate import (
        UNITS as UNITS,
        Direction as Direction,
        Kind as Kind,
        LeaveOut as LeaveOut,
        Objective as Objective,
        Scale as Scale,
        Unit as Unit,
    )
    from mixopt.objective.wording import grouped_names as grouped_names
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "aggregate": ["Direction", "Kind", "LeaveOut", "Objective", "Scale", "UNITS", "Unit"],
            "wording": ["grouped_names"],
        },
    )
