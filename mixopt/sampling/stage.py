"""A stage of a schedule: its length, its mixture, and its other settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mixopt.mixture import Mixture
from mixopt.sampling.rate_phases import Phase, RateShape

# As a file has them.
FIELDS = (
    "name",
    "tokens",
    "steps",
    "start",
    "mixture",
    "to",
    "phase",
    "shape",
    "lr_end",
    "sequence_length",
    "batch",
)


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes:
        mixture: Share of the tokens of each domain, at its beginning.
        tokens: Its length; or `steps`.
        steps: Its length in global batches.
        to: The mixture at its end, which is gone to linearly; None where it is constant.
        phase: What the learning rate does in it.
        shape: How: linear (where None), cosine, or sqrt (1 - sqrt in a decay).
        lr_end: The learning rate at its end as a part of the peak; 0.1 of a decay and 0 of an
            anneal where None.
        sequence_length: Tokens predicted of a sequence; the schedule's where None.
        batch: Sequences of a step; the schedule's where None.
        name: What people call it.
        start: Tokens before it, or steps where its length is in steps, to be checked; None where
            that is not stated.
    """

    mixture: Mixture
    tokens: int | None = None
    steps: int | None = None
    to: Mixture | None = None
    phase: Phase | None = None
    shape: RateShape | None = None
    lr_end: float | None = None
    sequence_length: int | None = None
    batch: int | None = None
    name: str | None = None
    start: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the stage as plain values; what is None is left out."""
        content = {name: getattr(self, name) for name in FIELDS}
        content["mixture"] = dict(self.mixture)
        content["to"] = None if self.to is None else dict(self.to)
        return {name: value for name, value in content.items() if value is not None}
