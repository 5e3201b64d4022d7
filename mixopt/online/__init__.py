"""Change the mixture while training runs: what an estimator is, and what drives one in any loop.

The contract (`Setting`, `Plan`, `Observation`, `Estimator`) is numpy alone; the driver needs torch
and is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixopt.online.contract import (
    Estimator,
    HeldOut,
    Need,
    Observation,
    Plan,
    Setting,
    make_estimator,
)

if TYPE_CHECKING:
    from mixopt.online.driver import Driver

__all__ = [
    "Driver",
    "Estimator",
    "HeldOut",
    "Need",
    "Observation",
    "Plan",
    "Setting",
    "make_estimator",
]


def __getattr__(name: str) -> Any:
    if name != "Driver":
        raise AttributeError(f"module 'mixopt.online' has no attribute {name!r}")
    from mixopt.online.driver import Driver

    return Driver
