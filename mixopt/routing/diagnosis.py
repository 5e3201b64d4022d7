"""Diagnoses of a layer's experts, and their thresholds.

The three diagnoses are those of HoME (Kuaishou, 2024, "Hierarchy of multi-gate experts"), which
are about experts that serve several tasks; here the tasks are domains:

    collapse        few experts do the work, others are dead
    degradation     experts that are there for all serve one domain
    underfitting    a domain with few tokens has no experts of its own, where others have

What is suggested is arithmetic on the counts, with the routers as they are; they adapt, so it is
a trial to run and not a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mixopt.routing.assignments import router_key

Kind = Literal["collapse", "degradation", "underfitting"]


@dataclass(frozen=True)
class Change:
    """A change of the mixture.

    Attributes:
        domain: Whose share it is.
        share: Of the tokens that were counted.
        proposed: What to try instead, the others in proportion.
    """

    domain: str
    share: float
    proposed: float

    def __str__(self) -> str:
        """Return it as words."""
        verb = "lower" if self.proposed < self.share else "raise"
        return f"{verb} '{self.domain}' from {100 * self.share:.1f}% to {100 * self.proposed:.1f}%"


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
        change: What to change in the mixture; None where the mixture is not the cause.
        advice: What to do, in words.
        router: Which router of the layer, where the model has layers of several.
    """

    kind: Kind
    layer: int
    what: str
    domain: str | None
    experts: tuple[int, ...]
    numbers: Mapping[str, float]
    alarms: Mapping[str, float]
    change: Change | None
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
