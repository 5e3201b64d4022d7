"""The section `constraints:`: limits on the mixtures that may be proposed."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from mixopt.config.section import Section, Share
from mixopt.errors import did_you_mean


class GroupConfig(Section):
    """Bounds on what some domains have together."""

    domains: list[str] = Field(min_length=1)
    bounds: tuple[Share, Share] = Field(description="minimum and maximum of their sum")


def _domains_alone(given: Any) -> Any:
    """Read `[web, code]` as domains in natural ratios, and a mapping of numbers as weights."""
    if isinstance(given, list):
        return {"domains": given}
    if isinstance(given, dict) and not {"domains", "weights"} & given.keys():
        return {"domains": list(given), "weights": given}
    return given


class _FixedRatios(Section):
    """Domains that stay in fixed ratios, so that the search moves only what they have together."""

    domains: list[str] = Field(min_length=2)
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = Field(
        None, description="their ratios; those of the natural mixture if omitted"
    )

    @model_validator(mode="after")
    def _some_weight(self) -> _FixedRatios:
        if self.weights is not None and set(self.weights) != set(self.domains):
            raise ValueError("weights: give one for each of domains, and for no other")
        if self.weights is not None and not sum(self.weights.values()) > 0:
            raise ValueError("weights: they are all 0")
        return self


ProportionsConfig = Annotated[_FixedRatios, BeforeValidator(_domains_alone)]


class RadiusConfig(Section):
    """How far the proposal may be from a mixture: one of `kl` and `tv`."""

    reference: str = Field("natural", description="natural, uniform, or a file of weights")
    kl: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="KL divergence of the proposal from the reference, in nats"
    )
    tv: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="total variation: the share of the tokens that change domain"
    )

    @model_validator(mode="after")
    def _one_distance(self) -> RadiusConfig:
        if (self.kl is None) == (self.tv is None):
            raise ValueError("give exactly one of kl and tv")
        return self


Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]


Compared = Literal["natural", "uniform", "best_trial", "base"]
# In the unit of the losses, where guardrails are one word. Of a proxy's loss of 1 to 2 bits per
# byte it is 1 to 2%, a third of what the best published mixtures gain on the mean of their tasks
# (0.056 bits per byte), and 2 points of an accuracy: little enough for an owner to sign, and
# beyond what a few dozen trials cannot tell apart.
MARGIN = 0.02


class GuardrailsConfig(Section):
    """By how much losses may be predicted worse than a reference mixture makes them."""

    reference: Compared = "natural"
    margin: Margin | None = Field(
        None, description="for every evaluation domain, in objective.unit"
    )
    targets: dict[str, Margin] = Field(
        default_factory=dict, description="by evaluation domain or glob; overrides margin"
    )
    experts: Literal[True] | None = Field(
        None,
        description="true: exclude mixtures whose nearest trial is one whose experts collapsed "
        "(mixopt.proposals.problem)",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        known = get_args(Compared)
        if given not in known:
            raise ValueError(f"unknown reference {given!r}{did_you_mean(given, known)}")
        return {"reference": given, "margin": MARGIN}

    @model_validator(mode="after")
    def _some(self) -> GuardrailsConfig:
        if self.margin is None and not self.targets and self.experts is None:
            raise ValueError("give a margin for all evaluation domains, targets, or experts: true")
        return self


class ConstraintsConfig(Section):
    """Limits on mixtures; radius and guardrails apply to proposals, the rest to designs too."""

    bounds: dict[str, tuple[Share, Share]] = Field(
        default_factory=dict, description="minimum and maximum by domain"
    )
    groups: dict[str, GroupConfig] | None = Field(
        None, description="by name: domains, and the minimum and maximum of their total"
    )
    proportions: dict[str, ProportionsConfig] | None = Field(
        None, description="by name: domains whose shares keep the same ratios to each other"
    )
    max_epochs: Annotated[float, Field(gt=0)] | None = Field(
        None, description="needs propose.target_tokens"
    )
    max_epochs_of: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None, description="by domain; overrides max_epochs"
    )
    radius: RadiusConfig | None = None
    guardrails: GuardrailsConfig | None = None
