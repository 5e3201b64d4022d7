"""`experts` of a pretraining run: what is counted, looked at and said of a model's experts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mixopt.config import Count, Positive, Section
from mixopt.errors import RoutingError
from mixopt.routing import Thresholds


def _are_thresholds(values: dict[str, float]) -> dict[str, float]:
    try:
        Thresholds().with_values(values, "thresholds")
    except RoutingError as error:
        raise ValueError(str(error).removeprefix("thresholds: ")) from error
    return values


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
    thresholds: Annotated[dict[str, float], AfterValidator(_are_thresholds)] | None = Field(
        None,
        description="from where on something is diagnosed, such as {busiest: 3, dead: 0.1}; "
        "docs/experts/diagnoses.md has the names",
    )
