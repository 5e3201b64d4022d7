"""The section `objective:`: the quantity to minimise."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixopt.config.section import Section

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
KINDS = ("target", "mean", "worst", "families")


class FamilyConfig(Section):
    """Losses that count together, however many they are."""

    weight: Weight = Field(1.0, description="of the family, relative to the other families")
    mean: dict[str, Weight] = Field(
        description="weights by evaluation domain or glob, within the family", min_length=1
    )


class ObjectiveConfig(Section):
    """The objective: exactly one of target, mean, worst and families."""

    target: str | None = Field(None, description="one evaluation domain")
    mean: dict[str, Weight] | None = Field(
        None,
        description="weights by evaluation domain or glob, such as mmlu_*; those of several "
        "globs add up",
    )
    worst: list[str] | None = Field(
        None, description="the largest loss among these; globs too", min_length=1
    )
    families: dict[str, FamilyConfig] | None = Field(
        None,
        description="by name: losses that are averaged first, and the family's weight",
        min_length=1,
    )
    unit: Literal["nats_per_token", "bits_per_byte"] = "bits_per_byte"
    direction: dict[str, Literal["lower", "higher"]] = Field(
        default_factory=dict,
        description="by evaluation domain or glob, whether higher or lower is better; lower if "
        "omitted",
    )
    scale: Literal["none", "spread"] = Field(
        "none", description="spread: divide each loss of a mean by its spread over the trials"
    )

    leave_out: Literal["noise"] | None = Field(
        None,
        description="noise: leave out losses that vary less between trials than between replicates",
    )
    allow_noise: bool | None = Field(
        None, description="true: minimise tasks even where the differences between trials are noise"
    )

    @property
    def patterns(self) -> list[str]:
        """Names and globs of the minimised losses."""
        alone = [] if self.target is None else [self.target]
        inside = [name for family in (self.families or {}).values() for name in family.mean]
        return [*alone, *(self.worst or ()), *(self.mean or ()), *inside]

    @model_validator(mode="after")
    def _one_objective(self) -> ObjectiveConfig:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}; got {given or 'none'}")
        if self.scale == "spread" and self.mean is None and self.families is None:
            raise ValueError(f"scale: spread is for a mean of losses, not for {given[0]}")
        return self
