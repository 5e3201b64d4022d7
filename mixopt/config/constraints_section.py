"""The section `constraints:`: limits on mixtures, among them the cap on epochs, and guardrails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from mixopt.config.sections import Above, Section, Share, Weight, is_number, one_given, optional
from mixopt.errors import did_you_mean
from mixopt.system import below_branch, is_glob, one_value

Compared = Literal["natural", "uniform", "best_trial", "base"]

# Margin of guardrails given as one word, in the unit of the losses: 1 to 2% of a proxy's bits per
# byte, a third of the gain of the best published mixtures on the mean of their tasks (0.056), and 2
# points of an accuracy; above the resolution of a few dozen trials.
MARGIN = 0.02
NO_SHARE = (0.0, 0.0)
ANY_SHARE = (0.0, 1.0)


def _bounds(value: Any) -> Any:
    """Read a single number as a fixed share."""
    return (value, value) if is_number(value) else value


Bounds = Annotated[tuple[Share, Share], BeforeValidator(_bounds)]


class GroupConfig(Section):
    """Bounds on the total share of some domains."""

    domains: list[str] = Field(min_length=1, description="domains, branches or globs")
    bounds: Bounds = Field(description="minimum and maximum of their sum, or a fixed share")


def _ratios(value: Any) -> Any:
    """Raise on ratios of fewer than two domains, or all 0."""
    if isinstance(value, (list, dict)) and len(value) < 2:
        raise ValueError("name two domains or more")
    if isinstance(value, dict) and not any(value.values()):
        raise ValueError("the ratios are all 0")
    return value


def _by_glob(value: Any) -> Any:
    """Read a single number as the value of all domains."""
    return {"*": value} if is_number(value) else value


class RadiusConfig(Section):
    """Maximum distance of the proposal from a mixture: exactly one of `kl` and `tv`."""

    reference: str = Field("natural", description="natural, uniform, or a file of weights")
    kl: Above | None = optional("KL divergence of the proposal from the reference, in nats")
    tv: Annotated[float, Field(gt=0, le=1)] | None = optional(
        "total variation: the share of the tokens that change domain"
    )

    def model_post_init(self, _: object) -> None:
        """Raise unless exactly one field is given."""
        one_given(self, "kl", "tv")


class GuardrailsConfig(Section):
    """Margins by which predicted losses may be worse than with a reference mixture."""

    reference: Compared | dict[str, float] = Field(
        "natural", description="reference mixture, or losses of the base model by name"
    )
    margin: Weight | Literal["noise"] | None = optional(
        "margin of every evaluation domain, in objective.unit; noise: the variation from seed and"
        " questions of one run"
    )
    targets: dict[str, Weight] = Field(
        default_factory=dict, description="margins by evaluation domain or glob; override margin"
    )
    experts: Literal[True] | None = optional(
        "true: exclude mixtures whose nearest trial has collapsed experts"
    )

    @model_validator(mode="before")
    @classmethod
    def _expand_word(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        references = get_args(Compared)
        if value not in references:
            raise ValueError(f"unknown reference {value!r}{did_you_mean(value, references)}")
        return {"reference": value, "margin": MARGIN}

    @model_validator(mode="after")
    def _not_empty(self) -> GuardrailsConfig:
        if self.margin is None and not self.targets and self.experts is None:
            raise ValueError("give a margin for all evaluation domains, targets, or experts: true")
        return self


class ConstraintsConfig(Section):
    """Limits on mixtures; radius, convex and guardrails apply only to proposals, not designs."""

    bounds: dict[str, Bounds] = Field(
        default_factory=dict,
        description="minimum and maximum, or a fixed share, by domain, glob or branch (its sum);"
        " 0: no share for all that match",
    )
    groups: dict[str, GroupConfig] | None = optional(
        "by name: domains, and the minimum and maximum of their total"
    )
    proportions: (
        dict[str, Annotated[dict[str, Weight] | list[str], BeforeValidator(_ratios)]] | None
    ) = optional("by name: domains whose shares keep their natural ratios, or ratios by domain")
    max_epochs: Annotated[dict[str, Above] | None, BeforeValidator(_by_glob)] = optional(
        "maximum epochs of a domain, one number or by domain or glob; needs propose.target_tokens"
    )
    radius: RadiusConfig | None = None
    convex: dict[str, dict[str, Any]] | None = optional(
        "convex limits of plug-ins: the options of each by its name"
    )
    guardrails: GuardrailsConfig | None = None
    floors: dict[str, float] = Field(
        default_factory=dict,
        description="worst allowed prediction, by evaluation domain or glob; for a loss, the"
        " maximum",
    )

    def bounds_of(self, domains: Sequence[str]) -> dict[str, tuple[float, float]]:
        """Return the minimum and the maximum of each domain that has bounds.

        Raises:
            ConfigError: A name or glob that matches no domain; globs that disagree.
        """
        absent, others = self.bound_patterns(domains)
        bounds = one_value(others, domains, "constraints.bounds", "domain")
        for name in one_value(absent, domains, "constraints.bounds", "domain"):
            if name not in others:
                bounds[name] = NO_SHARE
        return bounds

    def bound_patterns(self, domains: Sequence[str]) -> tuple[dict[str, Bounds], dict[str, Bounds]]:
        """Return the bounds of 0, which override other globs, and all others except of branches."""
        sums = self.branch_bounds(domains)
        absent: dict[str, Bounds] = {}
        others: dict[str, Bounds] = {}
        for name, bounds in self.bounds.items():
            if bounds == NO_SHARE:
                absent[name] = bounds
            elif name not in sums:
                others[name] = bounds
        return absent, others

    def branch_bounds(self, domains: Sequence[str]) -> dict[str, tuple[float, float]]:
        """Return the minimum and the maximum of the sum of each branch that has bounds."""
        sums: dict[str, tuple[float, float]] = {}
        for name, bounds in self.bounds.items():
            is_branch = name not in domains and not is_glob(name) and below_branch(name, domains)
            if is_branch and bounds != NO_SHARE:
                sums[name] = bounds
        return sums

    @property
    def default_max_epochs(self) -> float | None:
        """Maximum epochs of domains that no name or narrower glob matches."""
        return (self.max_epochs or {}).get("*")

    def max_epochs_of(self, domains: Sequence[str]) -> dict[str, float]:
        """Return the maximum epochs of each domain that has such a limit."""
        return one_value(self.max_epochs or {}, domains, "constraints.max_epochs", "domain")

    def with_changes(self, changes: ConstraintsConfig, domains: Sequence[str]) -> ConstraintsConfig:
        """Return these limits, overridden by a user's changes.

        Bounds by glob narrow a domain's bounds; bounds by name, and of 0, replace them.
        """
        fields = {name: getattr(changes, name) for name in changes.model_fields_set}
        for name in ("groups", "proportions", "max_epochs", "convex"):
            if name in fields and fields[name] and getattr(self, name):
                fields[name] = {**getattr(self, name), **fields[name]}
        bounds = self.bounds_of(domains)
        for name, (lower, upper) in changes.bounds_of(domains).items():
            is_replaced = name in changes.bounds or (lower, upper) == NO_SHARE
            low, high = ANY_SHARE if is_replaced else bounds.get(name, ANY_SHARE)
            bounds[name] = (max(lower, low), min(upper, high))
        for name, branch in self.branch_bounds(domains).items():
            if name not in changes.bounds:
                bounds[name] = branch
        bounds |= changes.branch_bounds(domains)
        return self.model_copy(update={**fields, "bounds": bounds})
