"""The one YAML file of an experiment, as checked values; each section is one step's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mixopt.config.constraints_section import ConstraintsConfig
from mixopt.config.corpus_section import CorpusConfig, SourceConfig
from mixopt.config.design_section import DesignConfig, ValidateConfig
from mixopt.config.objective_section import ObjectiveConfig, TasksConfig, with_tasks
from mixopt.config.section import Count, Duration, Positive, Section, Share, located
from mixopt.errors import did_you_mean
from mixopt.system import ServerUri

COMMAND = "command"


class CommandFields(Section):
    """What is run for each trial, and where its losses are."""

    run: str | list[str] | None = Field(
        None,
        description="command that trains one trial, split into words and run without a shell; "
        "{mixture} {trial} {seed} {tokens} {out} {gpus} {corpus} are filled in",
    )
    result: str | None = Field(
        None,
        description="what it writes below {out}, or a glob: JSON, JSONL or CSV",
    )
    losses: str | dict[str, str] | None = Field(
        None,
        description="names of the losses in the result: a pattern such as eval/{domain}/loss, or "
        "a name or glob for each evaluation domain; each domain's own name if "
        "omitted",
    )
    unit: Literal["nats_per_token", "bits_per_byte"] | None = Field(
        None, description="of the losses in the result; nats_per_token if omitted"
    )
    mixture_format: str | None = Field(
        None, description="trainer whose format {mixture} is written in, as mixopt export does"
    )
    paths: dict[str, str | list[str]] | None = Field(
        None, description="the trainer's own data by domain, for mixture_format"
    )
    folder: str | None = Field(
        None, description="where the command runs; the trial's own folder, {out}, if omitted"
    )
    timeout: Duration | None = Field(
        None, description="time limit of a trial, in seconds or as 2h; no limit if omitted"
    )
    retries: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None, description="how many times a failed command is retried; 0 if omitted"
    )

    @property
    def command_fields(self) -> dict[str, Any]:
        """Those that are given, by name."""
        given = {name: getattr(self, name) for name in CommandFields.model_fields}
        return {name: value for name, value in given.items() if value is not None}


def command_faults(
    name: str, fields: CommandFields, options: Iterable[str], evaluation: Iterable[str]
) -> Iterable[tuple[tuple[str, ...], str]]:
    """Find what cannot be right of these fields: where, and what."""
    given = fields.command_fields
    if name != COMMAND:
        for field in given:
            yield (
                ("proxy", field),
                f"is for a trainer of your own: give name: {COMMAND}, or leave it out",
            )
        return
    for field in ("run", "result"):
        if field not in given:
            yield ("proxy", field), f"is missing: name: {COMMAND} needs 'run' and 'result'"
    for option in options:
        yield ("proxy", "options", option), f"stands directly under 'proxy' with name: {COMMAND}"
    losses, known = given.get("losses"), list(evaluation)
    for domain in losses if isinstance(losses, dict) else ():
        if domain not in known:
            yield (
                ("proxy", "losses", domain),
                f"unknown evaluation domain {domain!r}{did_you_mean(domain, known)}",
            )


_LOAD = "collapse above: the busiest expert's load over the even one"


class ThresholdsConfig(Section):
    """Thresholds of diagnoses, others than the defaults."""

    effective: Share | None = Field(None, description="collapse below: effective experts, of all")
    dead: Share | None = Field(None, description="collapse above: dead experts, of all")
    busiest: float | None = Field(None, ge=1, allow_inf_nan=False, description=_LOAD)
    overflow: Share | None = Field(None, description="collapse above: beyond 1.25 times even")
    serves: Share | None = Field(None, description="of an expert's tokens, to serve a domain")
    occupied: Share | None = Field(None, description="degradation above")
    rare: Share | None = Field(None, description="of an even share, for a domain to be rare")
    apart: Share | None = Field(None, description="underfitting below")
    others: Share | None = Field(None, description="underfitting where others are so far apart")
    assignments: Count | None = Field(None, description="to an expert, for a layer to be diagnosed")

    @field_validator("*", mode="before")
    @classmethod
    def _is_number(cls, value: Any) -> Any:
        """Refuse truths, which would be read as 0 and 1."""
        if isinstance(value, bool):
            raise ValueError(f"{value} is not a number")
        return value


class TrialExpertsConfig(Section):
    """How the experts of trials are looked at; no trial is another for it."""

    thresholds: ThresholdsConfig = Field(
        ThresholdsConfig(),
        description="thresholds of diagnoses, such as {busiest: 3, dead: 0.1}; "
        "docs/experts/diagnoses.md says what they are",
    )


class ProxyConfig(CommandFields):
    """What is trained on each mixture; fields of CommandFields are for `name: command`."""

    name: str = Field(
        "decoder", description="decoder, continued, ngram, command, or package.module:Name"
    )
    # `from` is a keyword of Python, so the attribute has another name.
    start: str | None = Field(
        None,
        alias="from",
        description="what all trials begin with: a run or checkpoint of mixopt pretrain, a folder"
        " of transformers, or the YAML file of a pretraining, which is then trained once",
    )
    start_hash: str | None = Field(
        None,
        alias="from_hash",
        pattern=r"^[a-z0-9:]{1,80}$",
        description="hash of the weights that `from` names; written by mixopt",
    )
    tokens: Positive = Field(1_000_000, description="training tokens of one trial")
    eval_every: Count | None = Field(
        None,
        description="tokens between evaluations of all held-out text and tasks; 0: only at the end;"
        " if omitted, at the end, and losses on a sample of the held-out text every 10% of a trial",
    )
    eval_tokens: Positive = Field(65_536, description="held-out tokens of each evaluation domain")
    simulate_epochs: bool = Field(
        False,
        description="repeat each domain as often as the full run of propose.target_tokens does",
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the proxy")

    @property
    def all_options(self) -> dict[str, Any]:
        """What the proxy is made with; a path is the same one wherever a worker runs."""
        given = self.options | self.command_fields
        if self.start is not None:
            given["start"] = located(self.start)
        if self.start_hash is not None:
            given["start_hash"] = self.start_hash
        if self.folder is not None:
            given["folder"] = str(Path(self.folder).expanduser().absolute())
        return given


class SweepConfig(Section):
    """How the trials are run."""

    workers: Positive | None = Field(None, description="processes; one per core or GPU if omitted")
    patience: Duration = Field(
        600.0,
        description="seconds, or a duration such as 10m: a worker without a heartbeat or "
        "progress for this long, and for five times its slowest step so far, is "
        "killed and its trials are retried",
    )
    executor: str = Field("local", description="local, ray, slurm, or package.module:Name")
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the executor")
    gpus: Annotated[float, Field(gt=0, le=1024, allow_inf_nan=False)] | None = Field(
        None, description="GPUs per worker, such as 0.25 under Ray; if omitted, one where available"
    )
    nodes: Positive = Field(1, description="nodes per worker, under Slurm")
    retries: Count = Field(3, description="how many times trials of a lost node are retried")


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
    """The regressors that cross-validation compares."""

    regressors: list[str] = Field(default_factory=lambda: ["auto", "linear"], min_length=1)
    folds: Annotated[int, Field(ge=2)] = 5
    pilots: PilotsConfig | None = Field(
        None, description="runs at the target size, used to correct the fit"
    )


class RiskConfig(Section):
    """The quantity that the search minimises instead of the prediction: one of the two."""

    std: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="the mean plus this many standard deviations of the regressor"
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
    """Settings of the search for the best mixture."""

    method: Literal["auto", "simulation", "gradient"] = "auto"
    samples: Positive = Field(8_000, description="maximum number of simulated mixtures")
    average: Positive = Field(
        128,
        description="RegMix: how many of the best mixtures are averaged; fewer where that "
        "worsens the objective",
    )
    target_tokens: Positive | None = Field(None, description="tokens of the full-scale run")
    bootstrap: Count = Field(20, description="refits on resampled trials")
    risk: RiskConfig | None = Field(
        None, description="how uncertainty is weighed; ignored if omitted"
    )
    keep_unmeasured: Share = Field(
        0.5,
        description="minimum weight of a domain that no loss measures, as a share of its natural "
        "weight",
    )


class TrackingConfig(Section):
    """Settings of the MLflow record."""

    enabled: bool = True
    uri: ServerUri | None = Field(
        None, description="tracking server; a SQLite file in the run directory if omitted"
    )
    experiment: str | None = Field(
        None, description="experiment; the configuration's name if omitted"
    )


class Config(Section):
    """One experiment."""

    name: str = Field("mixopt", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=2**63)
    corpus: CorpusConfig
    evaluation: dict[str, SourceConfig] = Field(
        default_factory=dict, description="targets that are not trained on"
    )
    tasks: TasksConfig | None = Field(None, description="downstream tasks, scored in each trial")
    design: DesignConfig = DesignConfig()
    proxy: ProxyConfig = ProxyConfig()
    sweep: SweepConfig = SweepConfig()
    fit: FitConfig = FitConfig()
    objective: ObjectiveConfig = Field(examples=["objective: {target: NAME OF A DOMAIN}"])
    constraints: ConstraintsConfig = ConstraintsConfig()
    propose: ProposeConfig = ProposeConfig()
    # `validate` is a method of pydantic models, so the attribute has another name.
    validation: ValidateConfig = Field(ValidateConfig(), alias="validate")
    tracking: TrackingConfig = TrackingConfig()
    experts: TrialExpertsConfig | None = Field(
        None, description="diagnoses of the experts of trials, where the proxy has some"
    )

    @property
    def expert_thresholds(self) -> dict[str, float]:
        """Thresholds of diagnoses that are others than the defaults, by name."""
        given = None if self.experts is None else self.experts.thresholds
        return {} if given is None else given.model_dump(exclude_none=True)

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of all losses of a trial: evaluation domains, then tasks' metrics."""
        tasks = () if self.tasks is None else self.tasks.columns()
        return (*self.corpus.domains, *self.targets, *tasks)

    @property
    def targets(self) -> tuple[str, ...]:
        """Evaluation domains that are not trained on as such: targets, and parts of a mixed one."""
        return (*self.evaluation, *self.corpus.parts)

    @property
    def aim(self) -> ObjectiveConfig:
        """The objective with the tasks that it names as losses."""
        return with_tasks(self.objective, self.tasks)

    @property
    def validation_tokens(self) -> int:
        """Training tokens of a validation run."""
        return self.validation.tokens or 2 * self.proxy.tokens
