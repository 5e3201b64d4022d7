"""The section `design:`: which mixtures to try."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixopt.config.section import Count, Positive, Section, Share

Anchor = Literal["natural", "uniform"]


def _all_anchors() -> list[Anchor]:
    return ["natural", "uniform"]


class DesignConfig(Section):
    """Which mixtures to try (mixopt.designs.first_round)."""

    method: Literal["axial", "dirichlet", "sobol"] | None = Field(
        None, description="axial: one mixture a domain, Dirichlet draws behind them"
    )
    axial_center: Anchor = Field("uniform", description="what axial mixtures are partly made of")
    axial_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="how far an axial mixture goes from the centre towards its domain"
    )
    trials: Positive = Field(64, description="sampled mixtures, anchors and replicates not counted")
    temperature: Annotated[float, Field(gt=0)] = Field(
        0.5, description="RegMix: power on the prior"
    )
    min_strength: Annotated[float, Field(gt=0)] = Field(
        0.1, description="RegMix: least concentration"
    )
    max_strength: Annotated[float, Field(gt=0)] = Field(
        5.0, description="RegMix: most concentration"
    )
    max_usage: Annotated[float, Field(gt=0)] | None = Field(
        15.0, description="RegMix: no weight above so many times the natural share"
    )
    minimum: Annotated[float, Field(ge=0, lt=1)] = Field(
        2e-4, description="smaller weights become 0"
    )
    max_weights: dict[str, Share] = Field(default_factory=dict, description="caps by domain")
    anchors: list[Anchor] = Field(default_factory=_all_anchors)
    replicates: Count = Field(
        3, description="further seeds of the uniform mixture, which give the noise of a trial"
    )
    rounds: list[Positive] | None = Field(
        None,
        min_length=1,
        description="sampled mixtures first, then how many are chosen in each later round, by a "
        "fit on those before it (mixopt.pipeline.rounds); they add up to `trials`",
    )
    acquisition: Literal["expected_improvement", "variance"] | None = Field(
        None, description="how later rounds are chosen; expected_improvement when absent"
    )
    acquisition_regressor: str | None = Field(
        None, description="what later rounds are chosen by; the best of fit.regressors when absent"
    )
    stop_gain: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="stop before a round that is expected to gain less of the objective"
    )

    @property
    def first_round(self) -> int:
        """Sampled mixtures before any is chosen by a fit."""
        return self.rounds[0] if self.rounds else self.trials

    @model_validator(mode="after")
    def _rounds(self) -> DesignConfig:
        later = ("acquisition", "acquisition_regressor", "stop_gain")
        for name in later if len(self.rounds or ()) < 2 else ():
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is for rounds after the first: give design.rounds")
        total = sum(self.rounds) if self.rounds else self.trials
        if "trials" in self.model_fields_set and self.trials != total:
            raise ValueError(
                f"rounds add up to {total}, and trials is {self.trials}: leave trials out"
            )
        object.__setattr__(self, "trials", total)
        return self

    @model_validator(mode="after")
    def _strengths(self) -> DesignConfig:
        if self.min_strength > self.max_strength:
            raise ValueError(
                f"min_strength {self.min_strength:g} is above max_strength {self.max_strength:g}"
            )
        return self
