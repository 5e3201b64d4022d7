"""How the experts of a mixture-of-experts model divide the data domains.

    stats = RouterStats.attach(model, domains=["web", "code"])
    with stats.domains(domain_ids, mask):
        loss = model(**batch).loss
    stats.reduce()
    print(stats.summary())

Counting needs torch, tables need polars; both are loaded when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mixopt.errors import RoutingError

if TYPE_CHECKING:
    from mixopt.routing.adapters import RouterAdapter, RouterTap
    from mixopt.routing.assignments import Assignments, LayerAssignments
    from mixopt.routing.diagnoses import diagnose
    from mixopt.routing.diagnosis import Change, Diagnosis, Thresholds
    from mixopt.routing.expert_counts import ExpertCounts, LayerInformation
    from mixopt.routing.frames import from_frames, to_frames
    from mixopt.routing.probe_file import load_probe, save_probe
    from mixopt.routing.probe_result import ProbeResult
    from mixopt.routing.router_stats import RouterStats
    from mixopt.routing.summary import Summary

_LAZY = {
    "Assignments": "assignments",
    "Change": "diagnosis",
    "Diagnosis": "diagnosis",
    "ExpertCounts": "expert_counts",
    "LayerAssignments": "assignments",
    "LayerInformation": "expert_counts",
    "ProbeResult": "probe_result",
    "RouterAdapter": "adapters",
    "RouterStats": "router_stats",
    "RouterTap": "adapters",
    "Summary": "summary",
    "Thresholds": "diagnosis",
    "diagnose": "diagnoses",
    "from_frames": "frames",
    "load_probe": "probe_file",
    "save_probe": "probe_file",
    "to_frames": "frames",
}

__all__ = [
    "Assignments",
    "Change",
    "Diagnosis",
    "ExpertCounts",
    "LayerAssignments",
    "LayerInformation",
    "ProbeResult",
    "RouterAdapter",
    "RouterStats",
    "RouterTap",
    "Summary",
    "Thresholds",
    "diagnose",
    "from_frames",
    "load_probe",
    "save_probe",
    "to_frames",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mixopt.routing' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"mixopt.routing.{_LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        raise RoutingError(
            f"mixopt.routing.{name} needs {error.name}: pip install 'mixopt[proxies]'"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
