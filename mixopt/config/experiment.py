"""The YAML file of an experiment as checked values: its sections, and checks across sections."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mixopt.baselines import CONTROL
from mixopt.config.corpus_section import (
    WHERE,
    CorpusConfig,
    SourceConfig,
    absent_texts,
    size_faults,
    source_urls,
    unusable_names,
    url_faults,
)
from mixopt.config.mixture_sections import (
    AnnealsConfig,
    ConstraintsConfig,
    DesignConfig,
    ProposeConfig,
    ValidateConfig,
)
from mixopt.config.objective_section import (
    KIND,
    ObjectiveConfig,
    TasksConfig,
    chosen_losses,
    mixed_units,
    objective_faults,
    with_tasks,
)
from mixopt.config.sections import (
    Count,
    Duration,
    Fault,
    Location,
    Positive,
    Section,
    checked,
    given_content,
    optional,
    pattern_faults,
    read_sections,
    share_fault,
)
from mixopt.errors import did_you_mean
from mixopt.system import PluginKind, ServerUri, is_url, name_fault, plugin_names, shown_value

COMMAND, CONTINUED = "command", "continued"
_FROM_RANDOM_WEIGHTS = ("decoder", "ngram", COMMAND)  # proxies that take no checkpoint


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
            is_name = is_url(self.start) or not path.exists()  # a name on the hub stays
            options["start"] = self.start if is_name else str(path.absolute())
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
        tasks = () if self.tasks is None else self.tasks.columns()
        return (*self.corpus.domains, *self.targets, *tasks)

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


def load_config(path: str | Path, overrides: Sequence[str] = (), *, trust: bool = True) -> Config:
    """Read, override and check the file of an experiment.

    Args:
        path: YAML.
        overrides: `section.field=value`, replacing values of the file.
        trust: Whether its author is trusted; otherwise no file or code that it names is read.

    Raises:
        ConfigError: A line with the file, the field, the value and the fix.
    """
    config = read_sections(
        path, Config, overrides, example="'corpus:' and 'objective:'", faults=_faults, files=trust
    )
    if config.proxy.folder is not None:  # relative to the file, not to the working directory
        folder = Path(path).resolve().parent.joinpath(Path(config.proxy.folder).expanduser())
        proxy = config.proxy.model_copy(update={"folder": str(folder)})
        config = config.model_copy(update={"proxy": proxy})
    return config


def read_constraints(source: str | Path | Mapping[str, Any]) -> ConstraintsConfig:
    """Return constraints as checked values, from a file or from plain values."""
    return checked(ConstraintsConfig, *given_content("constraints", source))


def read_objective(source: str | Path | Mapping[str, Any]) -> ObjectiveConfig:
    """Return an objective as checked values, from a file or from plain values."""
    return checked(ObjectiveConfig, *given_content("objective", source))


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
    corpus, tasks = config.corpus, config.tasks
    places: dict[Location, str | None] = {
        ("corpus", name): getattr(corpus, name) for name in ("root", "prepared")
    }
    if tasks is not None:
        places |= {("tasks", "sets", name, "path"): tasks.path(name) for name in tasks.sets}
    yield from ((place, str(path)) for place, path in places.items() if is_url(path))
    yield from source_urls({_DOMAINS: corpus.sources, ("evaluation",): config.evaluation})


_DOMAINS: Location = ("corpus", "domains")


def _faults(config: Config) -> Iterable[Fault]:
    """Yield faults across sections that are valid on their own."""
    corpus, anneals = config.corpus, config.design.anneals
    yield from unusable_names(corpus, config.evaluation)
    yield from url_faults(experiment_urls(config))
    yield from _objective_faults(config)
    yield from _pattern_faults(config)
    yield from size_faults(corpus, config.evaluation)
    for location, kind, name in plugins_named(config):
        if ":" not in name and name not in (names := plugin_names(kind)):
            yield location, f"unknown {kind} {name!r}{did_you_mean(name, names)}"
    yield from _command_faults(config.proxy, [*corpus.domains, *config.targets])
    yield from _start_faults(config)
    yield from _text_faults(config)
    yield from _epoch_faults(config)
    if CONTROL in config.validation.baselines and anneals is None:
        yield "validate.baselines", f"{CONTROL!r} exists only with design.method: anneals"
    for name, weights in config.validation.baselines.items():
        fault = None if weights is None else share_fault(weights, corpus.domains)
        if fault is not None:
            yield ("validate", "baselines", name), fault
    yield from _design_faults(config)
    if anneals is not None:
        yield from _anneal_faults(anneals, list(corpus.domains))


def _design_faults(config: Config) -> Iterable[Fault]:
    proxy, names = config.proxy, list(config.corpus.domains)
    if config.design.phases is not None:
        if proxy.name == "ngram":
            yield "proxy.name", "ngram ignores the order of its text; remove design.phases"
        if tool := proxy.mixture_format:
            yield "proxy.mixture_format", f"{tool} writes a single mixture; remove design.phases"
        if config.sweep.stop is not None:
            yield "sweep.stop", "a stopped trial lacks the last of its design.phases; leave it out"
    elif config.design.anneals is not None and config.sweep.stop is not None:
        yield "sweep.stop", "anneals all train to the end; leave it out"
    if config.design.stages and len({n.rpartition("/")[0] or n for n in names}) == len(names):
        message = "needs domains that nest, such as web: {science: {path: ...}, news: {path: ...}}"
        yield "design.stages", message


def _anneal_faults(anneals: AnnealsConfig, names: Sequence[str]) -> Iterable[Fault]:
    place = "design.anneals.sources"
    for name in anneals.sources:
        if name not in names:
            yield place, f"unknown domain {name!r}{did_you_mean(name, names)}"
    if set(names) <= set(anneals.sources):
        yield place, "every domain is a source, so none is left for the base"
    if isinstance(anneals.base, dict):
        fault = share_fault(dict.fromkeys(anneals.sources, 0.0) | anneals.base, names)
        if fault is not None:
            yield "design.anneals.base", fault


def _objective_faults(config: Config) -> Iterable[Fault]:
    for name, task in ({} if config.tasks is None else config.tasks.sets).items():
        for kind, text in (("task", name), ("family", task.family)):
            fault = None if text is None else name_fault(text)
            if fault is not None:
                yield ("tasks", "sets", name), f"{kind} {shown_value(text)}: {fault}; rename it"
    try:
        chosen = config.resolved_objective
    except ValueError as error:
        yield "objective", str(error)
        return
    faults = list(objective_faults(chosen, config.losses))
    yield from faults
    mixed = None if faults else mixed_units(chosen, chosen_losses(chosen, config.losses).weights)
    if mixed is not None:
        yield "objective", mixed
    if config.objective.noise == "leave_out" and config.design.replicates == 0:
        message = "noise is estimated from replicates, but design.replicates is 0; raise it to 2 or"
        yield "objective.noise", f"{message} more, or remove objective.noise"
    if chosen.hinge is None or faults or config.design.replicates:
        return
    items = chosen_losses(chosen, config.losses).items
    for name in [loss for loss in config.losses if loss not in items][:1]:
        message = f"the noise of {name!r} is unknown: set design.replicates to 2 or more"
        yield "objective.hinge", message


def _pattern_faults(config: Config) -> Iterable[Fault]:
    limits, rails = config.constraints, config.constraints.guardrails
    domains = list(config.corpus.domains)
    absent, others = limits.bound_patterns(domains)
    reference = {} if rails is None or isinstance(rails.reference, str) else rails.reference
    for field, patterns, names, kind in (
        ("bounds", absent, domains, "domain"),
        ("bounds", others, domains, "domain"),
        ("guardrails.targets", {} if rails is None else rails.targets, config.losses, KIND),
        ("guardrails.reference", reference, config.losses, KIND),
        ("floors", limits.floors, config.losses, KIND),
    ):
        yield from pattern_faults(("constraints", *field.split(".")), patterns, names, kind)


def _command_faults(proxy: ProxyConfig, losses: Sequence[str]) -> Iterable[Fault]:
    fields = proxy.command_fields
    if proxy.name != COMMAND:
        for name in fields:
            message = f"applies only to your own trainer: set name: {COMMAND}, or remove it"
            yield f"proxy.{name}", message
        return
    for name in ("run", "result"):
        if name not in fields:
            yield f"proxy.{name}", f"is missing: name: {COMMAND} needs 'run' and 'result'"
    for name in proxy.losses if isinstance(proxy.losses, dict) else ():
        if name not in losses:
            yield ("proxy", "losses", name), f"unknown {KIND} {name!r}{did_you_mean(name, losses)}"


def _start_faults(config: Config) -> Iterable[Fault]:
    proxy, rails = config.proxy, config.constraints.guardrails
    if proxy.name == CONTINUED and proxy.start is None:
        message = "is missing: name: continued needs a run of mixopt pretrain, a checkpoint, or"
        yield "proxy.from", f"{message} a folder of transformers"
    if proxy.start is not None and is_recipe(proxy.start):
        message = "is a configuration: train it with mixopt pretrain, and name its run directory"
        yield "proxy.from", message
    if proxy.name in _FROM_RANDOM_WEIGHTS and proxy.start is not None:
        message = f"trials of proxy {proxy.name!r} start from random weights: set name:"
        yield "proxy.from", f"{message} {CONTINUED}, or remove it"
    if rails is not None and rails.reference == "base" and proxy.start is None:
        message = "base is the checkpoint that trials start from, but these have none: set"
        hint = "proxy: {name: continued, from: ...}, losses by name, or natural"
        yield "constraints.guardrails.reference", f"{message} {hint}"


def _text_faults(config: Config) -> Iterable[Fault]:
    corpus, is_command = config.corpus, config.proxy.name == COMMAND
    sources = {**corpus.sources, **config.evaluation}
    tokens = next((name for name, source in sources.items() if source.is_tokens), None)
    if tokens is not None and corpus.tokenizer.startswith("bpe:"):
        message = (
            f"the run would train {corpus.tokenizer}, but {tokens!r} is already tokenised: name"
            " its tokenizer, or a folder with its tokenizer.json"
        )
        yield "corpus.tokenizer", message
    places: dict[Location, Mapping[str, SourceConfig]] = {
        _DOMAINS: corpus.domains,
        ("evaluation",): config.evaluation,
        **{(*_DOMAINS, n, "mixed", "domains"): m.domains for n, m in corpus.mixed.items()},
    }
    absent = [] if corpus.prepared is not None else list(absent_texts(places))
    unsized = [n for n, s in corpus.domains.items() if not s.tokens]
    for location in absent:
        if not is_command:
            need = f"only your own trainer (proxy.name: {COMMAND}) needs no text"
            yield location, f"{WHERE}; {need}"
        elif "mixed" in location:
            yield location, f"{WHERE}; a mixed domain is prepared from the text of its parts"
        elif location[0] == "corpus" and location[-1] in unsized:
            yield location, "its text is not here, so its size is unknown: state tokens"
    unit, objective_unit = config.proxy.unit or "nats_per_token", config.objective.unit
    if absent and is_command and unit != objective_unit:
        message = (
            f"is {objective_unit}, but losses of {absent[0][-1]!r}, whose text is not available "
            f"here, are known only in proxy.unit: set objective.unit: {unit}"
        )
        yield "objective.unit", message


def _epoch_faults(config: Config) -> Iterable[Fault]:
    target, simulates = config.propose.target_tokens, config.proxy.simulate_epochs
    if target is None and config.constraints.max_epochs is not None:
        yield "constraints.max_epochs", "needs propose.target_tokens, the length of the run"
    if target is None and simulates:
        yield "proxy.simulate_epochs", "needs propose.target_tokens, the length of the run"
    lengths = {"proxy.tokens": config.proxy.tokens, "validate.tokens": config.validation_tokens}
    for field, tokens in lengths.items():
        if simulates and target is not None and tokens > target:
            message = f"{tokens} is longer than the full run (propose.target_tokens: {target})"
            yield field, f"{message}, so its epochs cannot be simulated"
