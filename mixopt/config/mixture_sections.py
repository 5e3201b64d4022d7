"""Sections about mixtures: `design:`, `constraints:`, `propose:` and `validate:`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from mixopt.baselines import BASELINES, BEST_TRIAL, MAX_BEST, baseline_names, is_built_in
from mixopt.config.sections import (
    Above,
    Count,
    Positive,
    Section,
    Share,
    Weight,
    from_file,
    one_given,
    optional,
)
from mixopt.errors import did_you_mean
from mixopt.mixture import SUM_TOLERANCE
from mixopt.system import below_branch, is_glob, name_fault, one_value, shown_value

Anchor = Literal["natural", "uniform"]
Compared = Literal["natural", "uniform", "best_trial", "base"]
Stage = Literal["within", "between", "all"]

MIN_TRIALS_IN_ROUNDS = 24  # with at least this many trials, a design has rounds by default
# Margin of guardrails given as one word, in the unit of the losses: 1 to 2% of a proxy's bits per
# byte, a third of the gain of the best published mixtures on the mean of their tasks (0.056), and 2
# points of an accuracy; above the resolution of a few dozen trials.
MARGIN = 0.02


def _baselines(content: Any, info: ValidationInfo) -> Any:
    """Return weights by name, None for known baselines, from a mapping or a list of entries."""
    if isinstance(content, dict):
        return {name: from_file(weights, info) for name, weights in content.items()}
    baselines: dict[str, Any] = {}
    for item in content if isinstance(content, list) else [content]:
        entry = item if isinstance(item, dict) else {item: None} if isinstance(item, str) else {}
        if len(entry) != 1:
            raise ValueError(f"{item!r} is neither a name nor a mapping of one entry")
        ((name, value),) = entry.items()
        names, weights = [name], None
        if name == BEST_TRIAL and value is not None:
            if type(value) is not int or not 1 <= value <= MAX_BEST:
                raise ValueError(
                    f"best_trial: should be a number from 1 to {MAX_BEST}, got {value!r}"
                )
            names += [f"{BEST_TRIAL}_{place}" for place in range(2, value + 1)]
        else:
            weights = from_file(value, info)
        if repeated := baselines.keys() & names:
            raise ValueError(f"{min(repeated)!r} is given twice")
        baselines |= dict.fromkeys(names, weights)
    return baselines


class ValidateConfig(Section):
    """Training proposals against baselines, until a difference is significant or seeds run out."""

    seeds: Annotated[int, Field(ge=3)] = Field(3, description="seeds of each mixture, initially")
    max_seeds: Annotated[int, Field(ge=3)] | None = optional(
        "seeds are added while an interval includes 0; twice `seeds` if omitted"
    )
    rounds: Positive = Field(
        2, description="maximum proposals; if one is not better, the next also uses its runs"
    )
    tokens: Positive | None = optional("tokens of one run; twice the trials' if omitted")
    baselines: Annotated[dict[str, dict[str, Weight] | None], BeforeValidator(_baselines)] = Field(
        default_factory=lambda: dict.fromkeys(("natural", "uniform", "unimax", "best_trial")),
        description=f"baselines of proposals: {', '.join([*BASELINES, BEST_TRIAL])},"
        " {best_trial: N}, {NAME: weights or a file}",
    )

    @property
    def most_seeds(self) -> int:
        """Maximum number of seeds of each mixture."""
        return 2 * self.seeds if self.max_seeds is None else self.max_seeds

    @model_validator(mode="after")
    def _consistent(self) -> ValidateConfig:
        if self.most_seeds < self.seeds:
            raise ValueError(f"max_seeds {self.max_seeds} is below seeds {self.seeds}")
        for name, weights in self.baselines.items():
            if weights is None and not is_built_in(name):
                raise ValueError(
                    f"unknown baseline {name!r}{did_you_mean(name, baseline_names())}; or give"
                    " {best_trial: N}, or {NAME: FILE} for a mixture of your own"
                )
            if weights is not None and name in baseline_names():
                raise ValueError(f"{name!r} is already a baseline: choose another name")
            if name.startswith("proposal"):
                raise ValueError(f"{name!r}: names of proposals begin with 'proposal': rename it")
        return self


class ProposeConfig(Section):
    """Settings of the search for the best mixture."""

    samples: Positive = Field(8_000, description="maximum number of simulated mixtures")
    target_tokens: Positive | None = optional("tokens of the full-scale run")
    bootstrap: Count = Field(10, description="refits on resampled trials")
    keep_unmeasured: Share = Field(
        0.5, description="minimum of a domain that no loss measures, relative to its natural share"
    )


class AnnealsConfig(Section):
    """Microanneals (mixopt.trials.first_round): their sources, share and base."""

    sources: list[str] = Field(min_length=1, description="domains to compare, one anneal each")
    share: float = Field(
        0.5, gt=0, lt=1, description="share of the tokens that an anneal takes from its source"
    )
    seeds: Positive = Field(3, description="seeds of the control and of every anneal")
    base: Annotated[Literal["natural"] | dict[str, Weight], BeforeValidator(from_file)] = Field(
        "natural", description="natural shares of the other domains, their weights, or a file"
    )

    @model_validator(mode="after")
    def _consistent(self) -> AnnealsConfig:
        for name in self.sources:
            if self.sources.count(name) > 1:
                raise ValueError(f"sources: {name!r} is given twice")
        if isinstance(self.base, dict):
            for name in self.sources:
                if self.base.get(name, 0.0) > 0:
                    raise ValueError(
                        f"base: {name!r} is a source and has a weight of {self.base[name]:g} in the"
                        " base; remove it from one of them"
                    )
        return self


def _phase_lengths(phases: Any) -> Any:
    """Read `[{until: 0.8}, {}]` as the share of the tokens of each phase, by name."""
    if not isinstance(phases, list):
        return phases
    lengths, start = dict[str, float](), 0.0
    for place, phase in enumerate(phases, start=1):
        if not isinstance(phase, dict) or not set(phase) <= {"until", "name"}:
            raise ValueError(f"phase {place}: expected {{until: 0.8}}, and name if wanted")
        is_last = place == len(phases)
        end: Any = phase.get("until", 1.0 if is_last else None)
        if not _is_number(end) or not start < end <= 1:
            raise ValueError(f"phase {place}: set its until, above {start:g} and at most 1")
        if is_last and end != 1.0:
            raise ValueError(f"the last phase ends at {end:g} of the training; leave until out")
        name = str(phase.get("name", place))
        if name in lengths:
            raise ValueError(f"phase {name!r} appears twice; names must differ")
        lengths[name], start = end - start, end
    return lengths


EARLIER_TRIALS = 16  # default of new trials, in addition to those of an earlier corpus


class DesignConfig(Section):
    """The design of trials (mixopt.trials.first_round)."""

    method: Literal["axial", "dirichlet", "anneals"] | None = optional(
        "axial: one mixture per domain, then Dirichlet draws (default with at least 2 trials"
        " per domain + 2); anneals: one mixture per source"
    )
    anneals: AnnealsConfig | None = optional("for method: anneals")
    trials: Positive = Field(
        64, description="sampled mixtures, not counting anchors and replicates"
    )
    max_usage: Above | None = Field(
        15.0, description="maximum weight, as a multiple of the natural share"
    )
    anchors: list[Anchor] = Field(
        default_factory=lambda: list(get_args(Anchor)), description="mixtures that are always tried"
    )
    replicates: Count = Field(
        3, description="further seeds of the uniform mixture, which estimate the noise of a trial"
    )
    rounds: Annotated[
        list[Positive] | None,
        BeforeValidator(lambda given: [] if given is False or given == "off" else given),
    ] = optional(
        "mixtures of each round; off: one round; if omitted, 1/2, 1/4, 1/4 with at least 24 trials"
    )
    stages: list[Stage] | None = optional(
        "what varies in each round: shares within branches, between branches, or all (in a radius"
        " around the best result)"
    )
    phases: Annotated[
        dict[str, Annotated[float, Field(gt=0, lt=1)]] | None, BeforeValidator(_phase_lengths)
    ] = optional(
        "phases of the training, each with its own mixture, by their ends:"
        " `[{until: 0.8}, {}]`; or their shares of the tokens by name"
    )

    earlier: Annotated[
        dict[str, dict[str, str | list[str] | dict[str, Weight] | None]] | None,
        BeforeValidator(lambda given: {given: {}} if isinstance(given, str) else given),
    ] = Field(
        None,
        min_length=1,
        max_length=1,
        description="trials of an earlier version of the corpus: its run or trials.parquet, and by"
        " name the new domains of an old one: `{runs/v1: {web: [news, blogs], c: code, wiki:"
        " null}}`",
    )

    @property
    def first_trials(self) -> int:
        """Trials of the first round, including anchors, replicates and seeds."""
        if self.anneals is not None:
            return self.first_round * self.anneals.seeds
        return self.first_round + len(self.anchors) + self.replicates

    @property
    def planned_rounds(self) -> tuple[int, ...]:
        """Mixtures of each round, not counting anchors and replicates."""
        if self.rounds:
            return tuple(self.rounds)
        is_long = self.rounds is None and self.trials >= MIN_TRIALS_IN_ROUNDS
        later_rounds = len(self.stages) - 1 if self.stages else 2 * is_long
        later = [self.trials // (2 * max(later_rounds, 1))] * later_rounds
        return (self.trials - sum(later), *later)

    @property
    def first_round(self) -> int:
        """Mixtures of the first round, before the first fit."""
        return self.planned_rounds[0]

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @model_validator(mode="after")
    def _anneals(self) -> DesignConfig:
        if (self.method == "anneals") != (self.anneals is not None):
            raise ValueError("method: anneals and the field anneals must be given together")
        if self.anneals is None:
            return self
        for name in ("anchors", "replicates"):
            if name in self.model_fields_set and getattr(self, name):
                raise ValueError(f"{name}: microanneals have none; leave it out")
        first = 1 + len(self.anneals.sources)
        if self.rounds and self.rounds[0] != first:
            raise ValueError(
                f"rounds: the first round has the control and {first - 1} sources: {first}"
                f" mixtures, not {self.rounds[0]}"
            )
        self._set(anchors=[], replicates=0, rounds=self.rounds or [first])
        if "max_usage" not in self.model_fields_set:
            self._set(max_usage=None)  # a source may be scarce
        return self

    @model_validator(mode="after")
    def _rounds(self) -> DesignConfig:
        if self.earlier is not None:
            if self.phases is not None or self.anneals is not None:
                raise ValueError("earlier: cannot be combined with phases or anneals")
            if not {"trials", "rounds"} & self.model_fields_set:
                self._set(trials=EARLIER_TRIALS)
        total = sum(self.rounds) if self.rounds else self.trials
        if "trials" in self.model_fields_set and self.trials != total:
            raise ValueError(
                f"rounds add up to {total}, but trials is {self.trials}; remove trials"
            )
        self._set(trials=total)
        self._check_stages()
        self._check_phases()
        return self

    def _check_phases(self) -> None:
        if self.phases is None:
            return
        if len(self.phases) < 2:
            raise ValueError("phases: a single phase is a training without phases; remove it")
        total = sum(self.phases.values())
        if abs(total - 1) > SUM_TOLERANCE:
            raise ValueError(f"phases: their shares add up to {total:.6g}, not to 1")
        fault = next((f"{shown_value(n)}: {f}" for n in self.phases if (f := name_fault(n))), None)
        if fault is not None:
            raise ValueError(f"phases: {fault}")
        if self.anneals is not None or self.stages is not None or self.method == "axial":
            raise ValueError("phases: cannot be combined with stages, anneals or method: axial")

    def _check_stages(self) -> None:
        if self.stages is None:
            return
        if self.anneals is not None or self.method == "axial":
            raise ValueError(f"stages: method: {self.method} varies all domains; remove one")
        if not self.stages or self.stages[0] == "all":
            raise ValueError("stages: the first must be within or between; all needs results")
        if len(self.stages) != len(self.planned_rounds) or 0 in self.planned_rounds:
            raise ValueError(
                f"stages: {len(self.stages)} stages, but {len(self.planned_rounds)} rounds of"
                f" {self.planned_rounds}; give design.rounds a number for each stage"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


NO_SHARE = (0.0, 0.0)
# A single number is a fixed share.
Bounds = Annotated[
    tuple[Share, Share],
    BeforeValidator(lambda given: (given, given) if _is_number(given) else given),
]


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
    max_epochs: Annotated[
        dict[str, Above] | None,
        BeforeValidator(lambda given: {"*": given} if _is_number(given) else given),
    ] = optional(
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
        place, (absent, others) = "constraints.bounds", self.bound_patterns(domains)
        bounds = one_value(others, domains, place, "domain")
        for name in one_value(absent, domains, place, "domain"):
            if name not in others:
                bounds[name] = NO_SHARE
        return bounds

    def bound_patterns(self, domains: Sequence[str]) -> tuple[dict[str, Bounds], dict[str, Bounds]]:
        """Return the bounds of what has no share, which overrides other globs, and all others."""
        sums = self.branch_bounds(domains)
        absent = {name: ends for name, ends in self.bounds.items() if ends == NO_SHARE}
        others = {n: ends for n, ends in self.bounds.items() if n not in absent and n not in sums}
        return absent, others

    def branch_bounds(self, domains: Sequence[str]) -> dict[str, tuple[float, float]]:
        """Return the minimum and the maximum of the sum of each branch that has bounds."""
        return {
            name: ends
            for name, ends in self.bounds.items()
            if ends != NO_SHARE
            and name not in domains
            and not is_glob(name)
            and below_branch(name, domains)
        }

    @property
    def usual_epochs(self) -> float | None:
        """Maximum epochs of domains that no name or narrower glob matches."""
        return (self.max_epochs or {}).get("*")

    def epochs_of(self, domains: Sequence[str]) -> dict[str, float]:
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
            low, high = (0.0, 1.0) if is_replaced else bounds.get(name, (0.0, 1.0))
            bounds[name] = max(lower, low), min(upper, high)
        sums = self.branch_bounds(domains).items()
        bounds |= {name: ends for name, ends in sums if name not in changes.bounds}
        bounds |= changes.branch_bounds(domains)
        return self.model_copy(update={**fields, "bounds": bounds})
