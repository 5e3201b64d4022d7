"""`experts` of an experiment: from where on the experts of a trial are said to have collapsed.

What the thresholds mean is said in mixopt.routing.thresholds, whose names and ranges these are.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from mixopt.config.section import Count, Section, Share

_LOAD = "collapse above: the busiest expert's load over the even one"


class ThresholdsConfig(Section):
    """Thresholds of diagnoses, others than the defaults."""

    effective: Share | None = Field(None, description="collapse below: effective experts, of all")
    dead: Share | None = Field(None, description="collapse above: dead experts, of all")
    busiest: float | None = Field(None, ge=1, allow_inf_nan=False, description=_LOAD)
    overflow: Share | None = Field(None, description="collapse above: beyond 1.25 times even")
    serves: Share | None = Field(None, description="of an expert's tokens, to serve a domain")
    occupied: Share | None = Field(None, description="degradation above")
    shared: Share | None = Field(None, description="degradation above, of shared experts")
    rare: Share | None = Field(None, description="of an even share, for a domain to be rare")
    apart: Share | None = Field(None, description="underfitting below")
    others: Share | None = Field(None, description="underfitting where others are so far apart")
    assignments: Count | None = Field(None, description="to an expert, for a layer to be diagnosed")

    @field_validator("*", mode="before")
    @classmethod
    def _is_number(cls, value: Any) -> Any:
        """Refuse truths, which would be read as 0 and 1."""
        if isinstance(value, bool):
            raise ValueError(f"{value} is not a number")
        return value


class TrialExpertsConfig(Section):
    """How the experts of trials are looked at; no trial is another for it."""

    thresholds: ThresholdsConfig = Field(
        ThresholdsConfig(),
        description="thresholds of diagnoses, such as {busiest: 3, dead: 0.1}; "
        "docs/experts/diagnoses.md says what they are",
    )
