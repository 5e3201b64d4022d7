"""An experiment as checked values: `Config` and its sections."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mixopt.config.constraints_section import ConstraintsConfig
from mixopt.config.corpus_section import CorpusConfig, SourceConfig, source_urls
from mixopt.config.mixture_sections import DesignConfig, ProposeConfig, ValidateConfig
from mixopt.config.objective_section import ObjectiveConfig, TasksConfig, with_tasks
from mixopt.config.sections import Count, Duration, Location, Positive, Section, optional
from mixopt.system import PluginKind, ServerUri, is_url

COMMAND = "command"  # proxy of a user's own trainer
CONTINUED = "continued"  # proxy that starts from a checkpoint
DOMAINS: Location = ("corpus", "domains")


class CommandFields(Section):
    """The command of a trial, and the place of its losses."""

    run: str | list[str] | None = optional(
        "command that trains one trial, run without a shell; {mixture}, {out}, ... are filled in"
    )
    result: str | None = optional(
        "JSON, JSONL or CSV file that it writes below {out}; the newest match of a glob"
    )
    losses: str | dict[str, str] | None = optional(
        "names in the result: a pattern such as eval/{domain}/loss, or a name by domain; the"
        " domain's name if omitted"
    )
    unit: Literal["nats_per_token", "bits_per_byte"] | None = optional(
        "unit of the losses in the result; nats_per_token if omitted"
    )
    mixture_format: str | None = optional(
        "trainer whose format {mixture} is written in, as mixopt export does"
    )
    paths: dict[str, str | list[str]] | None = optional(
        "the trainer's own data by domain, for mixture_format"
    )
    folder: str | None = optional("working directory, relative to this file; {out} if omitted")
    timeout: Duration | None = optional(
        "time limit of a trial, in seconds or as 2h; no limit if omitted"
    )
    retries: Annotated[int, Field(ge=0, le=100)] | None = optional(
        "how many times a failed command is retried; 0 if omitted"
    )

    @property
    def command_fields(self) -> dict[str, Any]:
        """The fields that are not None, by name."""
        return self.model_dump(include=set(CommandFields.model_fields), exclude_none=True)


class ProxyConfig(CommandFields):
    """The model that trains on each mixture; fields of CommandFields are for `name: command`."""

    name: str = Field(
        "decoder", description="decoder, continued, ngram, command, or package.module:Name"
    )
    # `from` is a keyword of Python, so the attribute has another name.
    start: str | None = Field(
        None,
        alias="from",
        description="a run or checkpoint of mixopt pretrain, or a folder of transformers",
    )
    tokens: Positive = Field(1_000_000, description="training tokens of one trial")
    eval_every: Count | None = optional(
        "tokens between evaluations; 0: at the end; every 10% on a sample if omitted"
    )
    eval_tokens: Positive = Field(65_536, description="held-out tokens of each evaluation domain")
    simulate_epochs: bool = Field(
        False, description="repeat each domain as often as a run of propose.target_tokens does"
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the proxy")

    @property
    def start_hash(self) -> str:
        """Hash of the weights in `from`, which mixopt records among the options."""
        return str(self.options.get("start_hash") or "")

    @property
    def all_options(self) -> dict[str, Any]:
        """All options of the proxy; paths are absolute, so that workers may run anywhere."""
        options = self.options | self.command_fields
        if self.start is not None:
            path = Path(self.start).expanduser()
            if not is_url(self.start) and path.exists():
                options["start"] = str(path.absolute())
            else:  # a name on the hub
                options["start"] = self.start
        return options


def is_recipe(start: str) -> bool:
    """Return whether a path names a YAML file."""
    return start.endswith((".yaml", ".yml"))


class StopConfig(Section):
    """Ending the worse trials of a round early, by the objective at that point."""

    at: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="share of a trial's tokens at which it may end"
    )
    keep: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="share of a round's trials that train to the end"
    )

    def tokens(self, whole: int) -> int:
        """Return the mean tokens of trials that may be stopped; whole ones have `whole`."""
        return round(whole * (self.at + self.keep * (1 - self.at)))


class SweepConfig(Section):
    """Execution of the trials."""

    workers: Positive | None = optional("processes; one per core or GPU if omitted")
    patience: Duration = Field(
        600.0,
        description=(
            "a worker without progress for this long (10m) is killed and its trials are retried"
        ),
    )
    executor: str = Field("local", description="local, ray, slurm, or package.module:Name")
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the executor")
    gpus: Annotated[float, Field(gt=0, le=1024, allow_inf_nan=False)] | None = optional(
        "GPUs per worker, such as 0.25 under Ray; if omitted, 1 if available"
    )
    stop: StopConfig | None = None


class FitConfig(Section):
    """The regressors that cross-validation compares."""

    regressors: list[str] = Field(
        ["auto", "linear"], min_length=1, description="names, or package.module:Name, to compare"
    )
    folds: Annotated[int, Field(ge=2)] = Field(5, description="folds of cross-validation")


class TrackingConfig(Section):
    """Settings of the MLflow record."""

    enabled: bool = Field(True, description="whether runs are recorded")
    uri: ServerUri | None = optional(
        "tracking server; a SQLite file in the run directory if omitted"
    )
    experiment: str | None = optional("experiment; the configuration's name if omitted")


class Config(Section):
    """One experiment."""

    name: str = Field(
        "mixopt", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the run in reports"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of all random draws")
    corpus: CorpusConfig
    evaluation: dict[str, SourceConfig] = Field(
        default_factory=dict, description="evaluation-only targets"
    )
    tasks: TasksConfig | None = optional("downstream tasks, scored in each trial")
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

    @model_validator(mode="after")
    def _default_phase_law(self) -> Self:
        if self.design.phases is not None and "regressors" not in self.fit.model_fields_set:
            fit = self.fit.model_copy(update={"regressors": ["phases", *self.fit.regressors]})
            object.__setattr__(self, "fit", fit)
        return self

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of all losses of a trial: evaluation domains, then tasks' metrics."""
        losses = (*self.corpus.domains, *self.targets)
        if self.tasks is not None:
            losses += tuple(self.tasks.columns())
        return losses

    @property
    def targets(self) -> tuple[str, ...]:
        """Evaluation-only domains: targets, and parts of mixed domains."""
        return (*self.evaluation, *self.corpus.parts)

    @property
    def resolved_objective(self) -> ObjectiveConfig:
        """The objective, with names of tasks and families replaced by losses."""
        return with_tasks(self.objective, self.tasks)

    @property
    def validation_tokens(self) -> int:
        """Training tokens of a validation run."""
        return self.validation.tokens or 2 * self.proxy.tokens


def plugins_named(config: Config) -> Iterable[tuple[Location | str, PluginKind, str]]:
    """Yield the plug-ins that a configuration names: field, kind and name."""
    yield "proxy.name", "proxy", config.proxy.name
    yield "sweep.executor", "executor", config.sweep.executor
    for place, name in enumerate(config.fit.regressors):
        yield ("fit", "regressors", place), "regressor", name
    for name in config.constraints.convex or ():
        yield ("constraints", "convex", name), "constraint", name


def experiment_urls(config: Config) -> Iterable[tuple[Location, str]]:
    """Yield each store URL that an experiment reads, with its field."""
    corpus = config.corpus
    if is_url(corpus.root):
        yield ("corpus", "root"), str(corpus.root)
    if is_url(corpus.prepared):
        yield ("corpus", "prepared"), str(corpus.prepared)
    if config.tasks is not None:
        for name in config.tasks.sets:
            path = config.tasks.path(name)
            if is_url(path):
                yield ("tasks", "sets", name, "path"), path
    yield from source_urls({DOMAINS: corpus.sources, ("evaluation",): config.evaluation})
