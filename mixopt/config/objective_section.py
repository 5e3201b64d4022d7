"""The section `objective:`: what is minimised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixopt.config.section import Section


class ObjectiveConfig(Section):
    """What is minimised: exactly one of the three."""

    target: str | None = Field(None, description="one evaluation domain")
    mean: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = Field(
        None, description="weights by evaluation domain"
    )
    worst: list[str] | None = Field(None, description="the largest loss among these", min_length=1)
    unit: Literal["nats_per_token", "bits_per_byte"] = "bits_per_byte"
    direction: dict[str, Literal["lower", "higher"]] = Field(
        default_factory=dict, description="by evaluation domain, which is better; lower if not said"
    )
    scale: Literal["none", "spread"] = Field(
        "none", description="spread: divide each loss of a mean by its spread over the trials"
    )

    @model_validator(mode="after")
    def _one_objective(self) -> ObjectiveConfig:
        given = [n for n in ("target", "mean", "worst") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of target, mean, worst; got {given or 'none'}")
        if self.scale == "spread" and self.mean is None:
            raise ValueError(f"scale: spread is for a mean of losses, not for {given[0]}")
        return self
