"""Diagnoses of a layer's experts, and their thresholds.

The three diagnoses are those of HoME (Kuaishou, 2024, "Hierarchy of multi-gate experts"), which
are about experts that serve several tasks; here the tasks are domains:

    collapse        few experts do the work, others are dead
    degradation     experts that are there for all serve one domain
    underfitting    a domain with few tokens has no experts of its own, where others have

No change of the mixture is suggested: where that was measured, what experts show told no more of
what a domain is worth than its share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mixopt.routing.assignments import router_key

Kind = Literal["collapse", "degradation", "underfitting"]


# What follows for the mixture from any of them.
NO_CHANGE = (
    "no change of the mixture follows: as measured so far, experts tell no more about a domain than"
    " its share does"
)


@dataclass(frozen=True)
class Diagnosis:
    """Something that is wrong with a layer's experts.

    Attributes:
        kind: Which of the three.
        layer: The model's own number of the layer.
        what: What is wrong, in words.
        domain: The domain that it has to do with; None for none.
        experts: The experts that it is about.
        numbers: What was found.
        alarms: The thresholds that it was held against.
        advice: What it means and what to do, in words.
        router: Which router of the layer, where the model has layers of several.
    """

    kind: Kind
    layer: int
    what: str
    domain: str | None
    experts: tuple[int, ...]
    numbers: Mapping[str, float]
    alarms: Mapping[str, float]
    advice: str
    router: str = ""

    @property
    def key(self) -> str:
        """The router's name among all of the model, as `LayerAssignments.key`."""
        return router_key(self.layer, self.router)

    def __str__(self) -> str:
        """Return it as one line."""
        return f"layer {self.key}: {self.kind}: {self.what}; {self.advice}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)
