"""The one YAML file of an experiment, as checked values.

Each section is one step's; a field's description is its documentation. `load_config` reads the file
with line numbers (mixopt.config.experiment_file), so that an error names file, line and field.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mixopt.config.durations import Duration
from mixopt.system import ServerUri


def _scientific(value: Any) -> Any:
    """Read `25e9`, which YAML takes for a string, as the number that it is."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return int(number) if isinstance(number, float) and number.is_integer() else number


Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0), BeforeValidator(_scientific)]
Count = Annotated[int, Field(ge=0), BeforeValidator(_scientific)]


class Section(BaseModel):
    """A section of the file: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceConfig(Section):
    """Where the documents of one domain come from: exactly one of `environment` and `path`."""

    environment: str | None = Field(None, description="a domain of the environment corpus")
    path: str | None = Field(
        None,
        description="a folder or file, a hub id, or a builder of `datasets` (json, parquet, "
        "arrow, text, csv); a text file is one document",
    )
    name: str | None = Field(None, description="configuration of the data set")
    data_files: str | list[str] | None = Field(None, description="files of the builder; globs work")
    split: str = Field("train", description="split of the data set")
    revision: str | None = Field(None, description="revision on the hub")
    streaming: bool = Field(False, description="read a hub data set without a copy on disk")
    column: str = Field("text", description="column that holds the text")
    validation: str | list[str] | None = Field(
        None, description="files of held-out documents; without it they are split off"
    )
    max_bytes: Positive | None = Field(
        None, description="stop after so many bytes of text; wins over corpus.max_bytes"
    )

    def under(self, root: str | None) -> SourceConfig:
        """Return the same source with relative files under the folder `root`."""
        if root is None:
            return self
        moved = {
            "data_files": _under(root, self.data_files),
            "validation": _under(root, self.validation),
        }
        return self.model_copy(update=moved)

    @model_validator(mode="after")
    def _one_source(self) -> SourceConfig:
        if (self.environment is None) == (self.path is None and self.data_files is None):
            raise ValueError("give either 'environment' or 'path' (or 'data_files')")
        return self


def _under(root: str, files: str | list[str] | None) -> str | list[str] | None:
    if isinstance(files, list):
        return [str(Path(root, file)) for file in files]
    return None if files is None else str(Path(root, files))


class CorpusConfig(Section):
    """Domains, tokenizer and what is held out."""

    root: str | None = Field(
        None, description="folder of relative data_files and validation; the working directory"
    )

    domains: dict[str, SourceConfig] = Field(description="training domains by name", min_length=1)
    tokenizer: str = Field(
        "bytes", description="bytes, bpe:<vocab>, or a Hugging Face name or folder"
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05, description="share of each domain's bytes that is held out, by document"
    )
    max_validation_bytes: Positive = Field(1_000_000, description="at most so much is held out")
    max_bytes: Positive | None = Field(None, description="at most so much text of each domain")
    on_bad_document: Literal["error", "skip"] = Field(
        "error", description="what to do with invalid UTF-8 or a broken line"
    )


Anchor = Literal["natural", "uniform"]


def _all_anchors() -> list[Anchor]:
    return ["natural", "uniform"]


class DesignConfig(Section):
    """Which mixtures to try (mixopt.designs.first_round)."""

    method: Literal["dirichlet", "sobol"] = "dirichlet"
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


class ProxyConfig(Section):
    """What is trained on each mixture."""

    name: str = Field("decoder", description="decoder, ngram, or package.module:Name")
    tokens: Positive = Field(1_000_000, description="training tokens of one trial")
    eval_every: Count = Field(0, description="tokens between evaluations; 0: end")
    eval_tokens: Positive = Field(65_536, description="held-out tokens of each evaluation domain")
    simulate_epochs: bool = Field(
        False,
        description="repeat each domain as often as the full run of propose.target_tokens will",
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the proxy")


class SweepConfig(Section):
    """How the trials are run."""

    workers: Positive | None = Field(None, description="processes; one a core or GPU when absent")
    patience: Duration = Field(
        600.0,
        description="seconds, or such as 10m: a worker without sign of life or progress for so "
        "long, and for five times its slowest step so far, is killed and its trials tried again",
    )


class PilotsConfig(Section):
    """Tables of a few runs at the target size: either two, or one that mixopt wrote."""

    mixtures: str | None = Field(None, description="CSV or Parquet of weights by domain")
    losses: str | None = Field(
        None, description="CSV or Parquet of losses by evaluation domain, in objective.unit"
    )
    trials: str | None = Field(None, description="a table of trials, such as another run's")

    @model_validator(mode="after")
    def _one_source(self) -> PilotsConfig:
        two = self.mixtures is not None and self.losses is not None
        if two == (self.trials is not None) or (self.mixtures is None) != (self.losses is None):
            raise ValueError("give 'mixtures' and 'losses', or 'trials'")
        return self


class FitConfig(Section):
    """Which regressors compete, by cross-validation."""

    regressors: list[str] = Field(default_factory=lambda: ["auto", "linear"], min_length=1)
    folds: Annotated[int, Field(ge=2)] = 5
    pilots: PilotsConfig | None = Field(
        None, description="runs at the target size, which the fit is carried to"
    )


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


class GroupConfig(Section):
    """Bounds on what some domains have together."""

    domains: list[str] = Field(min_length=1)
    bounds: tuple[Share, Share] = Field(description="least and most of their sum")


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


class GuardrailsConfig(Section):
    """By how much losses may be predicted worse than a reference mixture makes them."""

    reference: Literal["natural", "uniform", "best_trial"] = "natural"
    margin: Margin | None = Field(
        None, description="for every evaluation domain, in objective.unit"
    )
    targets: dict[str, Margin] = Field(
        default_factory=dict, description="by evaluation domain; wins over margin"
    )
    experts: Literal[True] | None = Field(
        None,
        description="true: no mixture whose nearest trial is one in which the proxy's experts "
        "collapsed (mixopt.proposals.collapsed_experts)",
    )

    @model_validator(mode="after")
    def _some(self) -> GuardrailsConfig:
        if self.margin is None and not self.targets and self.experts is None:
            raise ValueError("give a margin for all evaluation domains, targets, or experts: true")
        return self


class ConstraintsConfig(Section):
    """What mixtures are allowed; radius and guardrails hold the proposal, the rest designs too."""

    bounds: dict[str, tuple[Share, Share]] = Field(
        default_factory=dict, description="least and most by domain"
    )
    groups: dict[str, GroupConfig] | None = Field(
        None, description="by name: domains, and least and most of what they have together"
    )
    max_epochs: Annotated[float, Field(gt=0)] | None = Field(
        None, description="needs propose.target_tokens"
    )
    max_epochs_of: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None, description="by domain; wins over max_epochs"
    )
    radius: RadiusConfig | None = None
    guardrails: GuardrailsConfig | None = None


class RiskConfig(Section):
    """What the search minimises in place of the prediction: one of the two."""

    std: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="the mean plus so many of the regressor's standard deviations"
    )
    quantile: Annotated[float, Field(gt=0.5, lt=1)] | None = Field(
        None, description="this quantile over the refits on resampled trials"
    )

    @model_validator(mode="after")
    def _one_risk(self) -> RiskConfig:
        if (self.std is None) == (self.quantile is None):
            raise ValueError("give exactly one of std and quantile")
        return self


class ProposeConfig(Section):
    """How the best mixture is searched."""

    method: Literal["auto", "simulation", "gradient"] = "auto"
    samples: Positive = Field(8_000, description="mixtures that are simulated, at most")
    average: Positive = Field(
        128,
        description="RegMix: how many of the best are averaged; fewer where that costs anything",
    )
    target_tokens: Positive | None = Field(None, description="tokens of the full-scale run")
    bootstrap: Count = Field(20, description="refits on resampled trials")
    risk: RiskConfig | None = Field(None, description="how much being unsure counts; not at all")
    keep_unmeasured: Share = Field(
        0.5, description="least share of its natural weight of a domain that no loss measures"
    )


Baseline = Literal["natural", "uniform", "best_trial"]


def _all_baselines() -> list[Baseline]:
    return ["natural", "uniform", "best_trial"]


class ValidateConfig(Section):
    """Training the proposal against the baselines."""

    seeds: Annotated[int, Field(ge=3)] = 3
    tokens: Positive | None = Field(
        None, description="tokens of one run; twice the trials' when absent"
    )
    baselines: list[Baseline] = Field(default_factory=_all_baselines)


class TrackingConfig(Section):
    """Where MLflow keeps the record."""

    enabled: bool = True
    uri: ServerUri | None = Field(
        None, description="tracking server; a SQLite file in the run directory when absent"
    )
    experiment: str | None = Field(
        None, description="experiment; the configuration's name when absent"
    )


class Config(Section):
    """One experiment."""

    name: str = Field("mixopt", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=2**63)
    corpus: CorpusConfig
    evaluation: dict[str, SourceConfig] = Field(
        default_factory=dict, description="targets that are not trained on"
    )
    design: DesignConfig = DesignConfig()
    proxy: ProxyConfig = ProxyConfig()
    sweep: SweepConfig = SweepConfig()
    fit: FitConfig = FitConfig()
    objective: ObjectiveConfig
    constraints: ConstraintsConfig = ConstraintsConfig()
    propose: ProposeConfig = ProposeConfig()
    # `validate` is a method of pydantic models, so the attribute has another name.
    validation: ValidateConfig = Field(ValidateConfig(), alias="validate")
    tracking: TrackingConfig = TrackingConfig()
