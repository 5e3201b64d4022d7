"""The sections `design:` and `validate:`: mixtures to try, and baselines of a proposal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from mixopt.config.section import FILES, Count, Positive, Section, Share
from mixopt.errors import ConfigError, did_you_mean
from mixopt.system import read_yaml

if TYPE_CHECKING:
    from mixopt.config.yaml_sections import Location

Known = Literal["natural", "uniform", "unimax", "best_trial", "control"]
USUAL: tuple[Known, ...] = ("natural", "uniform", "unimax", "best_trial")
CONTROL: Known = "control"  # of microanneals (mixopt.trials.first_round)
KNOWN: tuple[Known, ...] = (*USUAL, CONTROL)
TEMPERATURE, OWN = "temperature", "proposal"
SUM_TOLERANCE = 1e-6  # as of mixopt.mixture


class BaselineConfig(Section):
    """One baseline: a known one, the natural mixture at a temperature, or weights of your own."""

    name: str = Field(description="its name in tables")
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="natural shares to the power of 1 / temperature, scaled to add up to 1"
    )
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = Field(
        None, description="a mixture of your own"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> BaselineConfig:
        plain = self.temperature is None and self.weights is None
        if plain and self.name not in KNOWN:
            near = did_you_mean(self.name, KNOWN)
            raise ValueError(
                f"unknown baseline {self.name!r}{near}; known: {', '.join(KNOWN)},"
                " {temperature: T}, or {NAME: FILE} for a mixture of your own"
            )
        if self.weights is not None and self.name in KNOWN:
            raise ValueError(f"{self.name!r} is already a baseline: choose another name")
        total = sum((self.weights or {"": 1.0}).values())
        if abs(total - 1) > SUM_TOLERANCE:
            raise ValueError(f"{self.name!r}: weights add up to {total:.6g}, not to 1")
        if self.name.startswith(OWN):
            raise ValueError(f"{self.name!r}: names of proposals begin with '{OWN}': rename it")
        return self


def _baseline(given: Any, info: ValidationInfo) -> Any:
    """Return the fields of a baseline as people write it: a name, or a mapping of one entry."""
    if isinstance(given, str):
        return {"name": given}
    if not isinstance(given, Mapping) or len(given) != 1 or "name" in given:
        return given
    ((name, value),) = given.items()
    if name == TEMPERATURE:
        shown = f"{value:g}" if isinstance(value, (int, float)) else str(value)
        return {"name": f"{TEMPERATURE}_{shown}", "temperature": value}
    if isinstance(value, str):
        return {"name": name, "weights": read_weights(value, info)}
    return {"name": name, "weights": value} if isinstance(value, Mapping) else given


def read_weights(path: str, info: ValidationInfo) -> Any:
    """Return what a file of weights has by domain, as it is."""
    if info.context is not None and not info.context.get(FILES, True):
        raise ValueError(f"{path!r} is a file; a recorded configuration has the weights themselves")
    try:
        content = read_yaml(Path(path), error=ConfigError)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    weights = content.get("weights", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict):
        raise ValueError(f"{path}: expected 'weights:' with a number for each domain")
    return weights


Baseline = Annotated[BaselineConfig, BeforeValidator(_baseline)]


def _usual_baselines() -> list[BaselineConfig]:
    return [BaselineConfig(name=name) for name in USUAL]


class ValidateConfig(Section):
    """Training proposals against baselines, until a difference is significant or seeds run out."""

    seeds: Annotated[int, Field(ge=3)] = Field(3, description="of each mixture, initially")
    max_seeds: Annotated[int, Field(ge=3)] | None = Field(
        None,
        description="maximum seeds; seeds are added while an interval includes 0; twice `seeds` "
        "if omitted",
    )
    rounds: Positive = Field(
        2,
        description="maximum proposals; if one is not better, its runs are added to the trials "
        "and another is made",
    )
    tokens: Positive | None = Field(
        None, description="tokens of one run; twice the trials' if omitted"
    )
    baselines: list[Baseline] = Field(default_factory=_usual_baselines)

    @property
    def most_seeds(self) -> int:
        """Maximum number of seeds of each mixture."""
        return 2 * self.seeds if self.max_seeds is None else self.max_seeds

    @model_validator(mode="after")
    def _consistent(self) -> ValidateConfig:
        if self.most_seeds < self.seeds:
            raise ValueError(f"max_seeds {self.max_seeds} is below seeds {self.seeds}")
        names = [baseline.name for baseline in self.baselines]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"baselines: {name!r} is given twice")
        return self


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NATURAL: Literal["natural"] = "natural"
PLACE = ("design", "anneals")


def _base(given: Any, info: ValidationInfo) -> Any:
    """Read the weights of a base that is a file."""
    return read_weights(given, info) if isinstance(given, str) and given != NATURAL else given


class AnnealsConfig(Section):
    """Microanneals (mixopt.trials.first_round): which sources, at which share, against what."""

    sources: list[str] = Field(min_length=1, description="domains to compare, one anneal each")
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="share of the tokens that an anneal takes from its source"
    )
    seeds: Positive = Field(3, description="of the control and of every anneal")
    base: Annotated[Literal["natural"] | dict[str, Weight], BeforeValidator(_base)] = Field(
        NATURAL, description="natural: shares of the other domains; or their weights, or a file"
    )

    @model_validator(mode="after")
    def _consistent(self) -> AnnealsConfig:
        for name in self.sources:
            if self.sources.count(name) > 1:
                raise ValueError(f"sources: {name!r} is given twice")
        if isinstance(self.base, dict):
            total = sum(self.base.values())
            if abs(total - 1) > SUM_TOLERANCE:
                raise ValueError(f"base: weights add up to {total:.6g}, not to 1")
            for name in self.sources:
                if self.base.get(name, 0.0) > 0:
                    raise ValueError(
                        f"base: {name!r} is a source and has a weight of {self.base[name]:g} in the"
                        " base; leave it out of one of them"
                    )
        return self


def anneal_faults(anneals: AnnealsConfig, domains: Sequence[str]) -> Iterable[tuple[Location, str]]:
    """Find sources and base domains that are not there, and a base without domains."""
    for name in anneals.sources:
        if name not in domains:
            message = f"unknown domain {name!r}{did_you_mean(name, domains)}"
            yield (*PLACE, "sources"), message
    base = anneals.base
    for name in base if isinstance(base, dict) else ():
        if name not in domains:
            yield (*PLACE, "base"), f"unknown domain {name!r}{did_you_mean(name, domains)}"
    if set(domains) <= set(anneals.sources):
        yield (*PLACE, "sources"), "every domain is a source, so that none is left for the base"


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
    anneals: AnnealsConfig | None = Field(None, description="for method: anneals")
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
        later = ("acquisition_regressor", "stop_gain")
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
