"""The section `design:`: which mixtures to try."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mixopt.config.anneals_section import AnnealsConfig
from mixopt.config.section import Count, Positive, Section, Share

Anchor = Literal["natural", "uniform"]
LEAST_IN_ROUNDS = 24  # trials from which on a design has rounds unless it says otherwise


def _all_anchors() -> list[Anchor]:
    return ["natural", "uniform"]


def _none_if_off(rounds: Any) -> Any:
    """Read `off`, which YAML reads as false, as a list without rounds."""
    return [] if rounds is False or rounds == "off" else rounds


class DesignConfig(Section):
    """The design of trials (mixopt.trials.first_round)."""

    method: Literal["axial", "dirichlet", "sobol", "anneals"] | None = Field(
        None,
        description="axial: one mixture per domain, followed by Dirichlet draws; anneals: one per "
        "candidate source, and a control",
    )
    anneals: AnnealsConfig | None = Field(
        None, description="for method: anneals, which `mixopt anneal` sets"
    )
    axial_center: Anchor = Field("uniform", description="mixture that axial mixtures start from")
    axial_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="how far an axial mixture moves from the centre towards its domain"
    )
    trials: Positive = Field(
        64, description="sampled mixtures, not counting anchors and replicates"
    )
    temperature: Annotated[float, Field(gt=0)] = Field(
        0.5, description="RegMix: power on the prior"
    )
    min_strength: Annotated[float, Field(gt=0)] = Field(
        0.1, description="RegMix: lowest concentration"
    )
    max_strength: Annotated[float, Field(gt=0)] = Field(
        5.0, description="RegMix: highest concentration"
    )
    max_usage: Annotated[float, Field(gt=0)] | None = Field(
        15.0, description="RegMix: maximum weight, as a multiple of the natural share"
    )
    minimum: Annotated[float, Field(ge=0, lt=1)] = Field(
        2e-4, description="smaller weights are set to 0"
    )
    max_weights: dict[str, Share] = Field(default_factory=dict, description="caps by domain")
    anchors: list[Anchor] = Field(default_factory=_all_anchors)
    replicates: Count = Field(
        3,
        description="additional seeds of the uniform mixture, which estimate the noise of a trial",
    )
    rounds: Annotated[list[Positive] | None, BeforeValidator(_none_if_off)] = Field(
        None,
        description="number of mixtures in the first round, then in each later round, chosen by "
        "a fit on the rounds before it (mixopt.pipeline.rounds); they add up to "
        "`trials`. If omitted: a half and two quarters for 24 trials or more; off: "
        "one round",
    )
    acquisition: Literal["knowledge_gradient", "expected_improvement", "variance"] | None = Field(
        None, description="how later rounds are chosen; knowledge_gradient if omitted"
    )
    acquisition_regressor: str | None = Field(
        None,
        description="regressor that chooses later rounds; the best of fit.regressors if omitted",
    )
    stop_gain: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="stop before a round whose expected gain in the objective is below this"
    )

    @property
    def first_trials(self) -> int:
        """Trials of the first round, anchors, replicates and seeds included."""
        if self.anneals is not None:
            return self.first_round * self.anneals.seeds
        return self.first_round + len(self.anchors) + self.replicates

    @property
    def planned_rounds(self) -> tuple[int, ...]:
        """Mixtures of each round, not counting anchors and replicates."""
        if self.rounds:
            return tuple(self.rounds)
        if self.rounds is not None or self.trials < LEAST_IN_ROUNDS:
            return (self.trials,)
        quarter = self.trials // 4
        return (self.trials - 2 * quarter, quarter, quarter)

    @property
    def first_round(self) -> int:
        """Mixtures before any is chosen by a fit."""
        return self.planned_rounds[0]

    @model_validator(mode="after")
    def _anneals(self) -> DesignConfig:
        if (self.method == "anneals") != (self.anneals is not None):
            raise ValueError("method: anneals and the field anneals need each other")
        if self.anneals is None:
            return self
        for name in ("anchors", "replicates"):
            if name in self.model_fields_set and getattr(self, name):
                raise ValueError(f"{name}: microanneals have none; leave it out")
            object.__setattr__(self, name, [] if name == "anchors" else 0)
        first = 1 + len(self.anneals.sources)
        if self.rounds and self.rounds[0] != first:
            raise ValueError(
                f"rounds: the first round is the control and {first - 1} sources: {first} mixtures,"
                f" not {self.rounds[0]}"
            )
        object.__setattr__(self, "rounds", self.rounds or [first])
        if "max_usage" not in self.model_fields_set:
            object.__setattr__(self, "max_usage", None)  # a source may be scarce
        return self

    @model_validator(mode="after")
    def _rounds(self) -> DesignConfig:
        total = sum(self.rounds) if self.rounds else self.trials
        if "trials" in self.model_fields_set and self.trials != total:
            raise ValueError(
                f"rounds add up to {total}, and trials is {self.trials}: leave trials out"
            )
        object.__setattr__(self, "trials", total)
        later = ("acquisition", "acquisition_regressor", "stop_gain")
        for name in later if len(self.planned_rounds) < 2 else ():
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is for rounds after the first: give design.rounds")
        return self

    @model_validator(mode="after")
    def _strengths(self) -> DesignConfig:
        if self.min_strength > self.max_strength:
            raise ValueError(
                f"min_strength {self.min_strength:g} is above max_strength {self.max_strength:g}"
            )
        return self
