"""`experts` of a pretraining run: what is counted, looked at and said of a model's experts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mixopt.config import Count, Positive, Section


class ExpertsConfig(Section):
    """Counts of what a mixture-of-experts model gives to which expert; they change no result."""

    enabled: Literal["auto"] | bool = Field(
        "auto",
        description="auto: where the model has routers; true: an error where it has none; false",
    )
    every: Positive | None = Field(
        None, description="steps of a window of counts on disk; a twentieth of the run when absent"
    )
    probe: Count | None = Field(
        None,
        description="held-out tokens of each domain that the routers are looked at with, eight "
        "times a run; 0: never. When absent 65,536, or what costs 5% of the run's tokens",
    )
