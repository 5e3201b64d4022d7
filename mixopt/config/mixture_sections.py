"""Sections about mixtures: `design:`, `propose:` and `validate:`."""

from __future__ import annotations

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
    is_number,
    optional,
)
from mixopt.errors import did_you_mean
from mixopt.mixture import SUM_TOLERANCE
from mixopt.system import name_fault, shown_value

Anchor = Literal["natural", "uniform"]
Stage = Literal["within", "between", "all"]

MIN_TRIALS_IN_ROUNDS = 24  # with at least this many trials, a design has rounds by default
EARLIER_TRIALS = 16  # default of new trials, in addition to those of an earlier corpus


def _baselines(content: Any, info: ValidationInfo) -> Any:
    """Return weights by name, None for known baselines, from a mapping or a list of entries."""
    if isinstance(content, dict):
        return {name: from_file(weights, info) for name, weights in content.items()}
    baselines: dict[str, Any] = {}
    for item in content if isinstance(content, list) else [content]:
        if isinstance(item, str):
            added = _baseline(item, None, info)
        elif isinstance(item, dict) and len(item) == 1:
            ((name, value),) = item.items()
            added = _baseline(name, value, info)
        else:
            raise ValueError(f"{item!r} is neither a name nor a mapping of one entry")
        repeated = baselines.keys() & added.keys()
        if repeated:
            raise ValueError(f"{min(repeated)!r} is given twice")
        baselines |= added
    return baselines


def _baseline(name: Any, value: Any, info: ValidationInfo) -> dict[str, Any]:
    """Return the baseline of a name and its value; for `best_trial: 3`, the three best trials."""
    if name != BEST_TRIAL or value is None:
        return {name: from_file(value, info)}
    if type(value) is not int or not 1 <= value <= MAX_BEST:
        raise ValueError(f"best_trial: should be a number from 1 to {MAX_BEST}, got {value!r}")
    others = [f"{BEST_TRIAL}_{place}" for place in range(2, value + 1)]
    return dict.fromkeys([name, *others])


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
        if self.max_seeds is None:
            return 2 * self.seeds
        return self.max_seeds

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
    lengths: dict[str, float] = {}
    start = 0.0
    for place, phase in enumerate(phases, start=1):
        if not isinstance(phase, dict) or not set(phase) <= {"until", "name"}:
            raise ValueError(f"phase {place}: expected {{until: 0.8}}, and name if wanted")
        is_last = place == len(phases)
        end: Any = phase.get("until", 1.0 if is_last else None)
        if not is_number(end) or not start < end <= 1:
            raise ValueError(f"phase {place}: set its until, above {start:g} and at most 1")
        if is_last and end != 1.0:
            raise ValueError(f"the last phase ends at {end:g} of the training; leave until out")
        name = str(phase.get("name", place))
        if name in lengths:
            raise ValueError(f"phase {name!r} appears twice; names must differ")
        lengths[name] = end - start
        start = end
    return lengths


def _rounds(value: Any) -> Any:
    """Read `off` as one round; YAML may have read it as false."""
    return [] if value is False or value == "off" else value


def _earlier(value: Any) -> Any:
    """Read a single run or file as trials of a corpus with the same domains."""
    return {value: {}} if isinstance(value, str) else value


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
    rounds: Annotated[list[Positive] | None, BeforeValidator(_rounds)] = optional(
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
        BeforeValidator(_earlier),
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
        later_rounds = 0
        if self.stages:
            later_rounds = len(self.stages) - 1
        elif self.rounds is None and self.trials >= MIN_TRIALS_IN_ROUNDS:
            later_rounds = 2
        if later_rounds == 0:
            return (self.trials,)
        later = self.trials // (2 * later_rounds)  # they share half of the trials
        return (self.trials - later * later_rounds,) + (later,) * later_rounds

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
    def _trials_of_rounds(self) -> DesignConfig:
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
        for name in self.phases:
            fault = name_fault(name)
            if fault:
                raise ValueError(f"phases: {shown_value(name)}: {fault}")
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
