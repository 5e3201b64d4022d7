"""`mixopt check`: problems, sizes, trials, time and cost of an experiment before it runs."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from mixopt.baselines import FullRun, baseline_without_trials
from mixopt.config import Config, DesignConfig, SourceConfig, experiment_urls
from mixopt.constraints import Constraints, named_limit
from mixopt.corpus import (
    check_prepared,
    check_tokenizer_name,
    counted_tokens,
    first_look,
    known_tokenizer,
    shared_files,
)
from mixopt.errors import ConfigError, InfeasibleError, MixoptError, TrialsError
from mixopt.mixture import Mixture, Phases
from mixopt.objective import Objective
from mixopt.pipeline.experiment_cost import (
    KnownSizes,
    Range,
    TrainingPart,
    estimated_flops,
    estimated_seconds,
    evaluation_tokens,
    known_sizes,
    largest_weights,
    planned_arms,
    proxy_parameters,
    shortage_lines,
    total_tokens,
    training_parts,
    trial_speed,
)
from mixopt.proposals import baseline_breaks
from mixopt.reporting import table_text
from mixopt.sweeps import Proxy, make_proxy, worker_devices
from mixopt.system import cache_folder, duration, load_plugin, share_text, short_count, wrapped
from mixopt.trials import Trials, design_constraints, make_design

Result = TypeVar("Result")
LABEL_WIDTH = 14
MAX_SHARES = 4  # domains named in a line
MAX_BYTES_PER_TOKEN = 8  # approximate maximum over tokenizers and texts


@dataclass(frozen=True)
class Check:
    """The result of `mixopt check`: problems, sizes, and what the experiment trains and writes."""

    config: Config
    problems: list[MixoptError]
    warnings: list[str]
    sizes: KnownSizes
    devices: list[str]
    parts: tuple[TrainingPart, ...]
    evaluation: float = 0.0  # time of a trial's evaluation, in training tokens
    parameters: int | None = None
    tokens_per_second: float | None = None

    @property
    def natural(self) -> Mixture | None:
        """Natural mixture; None if the sizes of domains are unknown."""
        return None if self.sizes.inventory is None else Mixture.natural(self.sizes.inventory)

    @property
    def tokens(self) -> tuple[int, int]:
        """Training tokens of all trials, minimum and maximum."""
        return total_tokens(self.parts)

    @property
    def flops(self) -> Range | None:
        """FLOPs of all trials, minimum and maximum; None if the parameters are unknown."""
        if self.parameters is None:
            return None
        return estimated_flops(self.parts, self.parameters)

    @property
    def seconds(self) -> Range | None:
        """Seconds for all trials on this machine with evaluation; None if not measured."""
        if not self.tokens_per_second:
            return None
        all_workers = self.tokens_per_second * len(self.devices)
        return estimated_seconds(self.parts, self.evaluation, all_workers)

    def refuse(self) -> None:
        """Raise the first problem, if any, with the number of further problems."""
        if not self.problems:
            return
        first = self.problems[0]
        more = len(self.problems) - 1
        if not more:
            raise first
        raise type(first)(f"{first} (and {more} more; mixopt check lists all)") from first

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values; ranges are [min, max]."""
        sizes = self.sizes
        return {
            "problems": [str(problem) for problem in self.problems],
            "warnings": self.warnings,
            "sizes": {"basis": sizes.basis, "tokens": sizes.inventory, "prepared": sizes.sample},
            "natural": None if self.natural is None else dict(self.natural),
            "training": [asdict(part) for part in self.parts],
            "tokens": self.tokens,
            "arms": planned_arms(self.config),
            "parameters": self.parameters,
            "flops": self.flops,
            "tokens_per_second": self.tokens_per_second,
            "workers": len(self.devices),
            "devices": self.devices,
            "seconds": self.seconds,
        }

    def lines(self, *, with_table: bool = True) -> list[str]:
        """Return the result as lines for the terminal; at the start of a run without the table."""
        if with_table and self.natural is not None:
            lines = [*self._domain_lines(), ""]
        else:
            lines = [self._domains()]
        hanging = " " * (LABEL_WIDTH + 1)
        for label, text in self._labelled_lines():
            line = f"{label + ':':{LABEL_WIDTH}} {text}"
            lines.append(wrapped(line, hanging) if with_table else line)
        lines += [f"warning: {warning}" for warning in self.warnings]
        return lines

    def _labelled_lines(self) -> Iterator[tuple[str, str]]:
        for part in self.parts:
            count = _range((part.least, part.most), str)
            yield part.part, f"{count} trials, {short_count(part.tokens)} tokens each"
        total = f"{_range(self.tokens, short_count)} tokens"
        if self.flops is not None:
            flops = _range(self.flops, lambda value: f"{value:.1e}")
            total += f", {flops} FLOPs at {short_count(self.parameters or 0)} parameters"
        yield "total", total
        for line in planned_arms(self.config):
            yield "arms", line
        devices = ", ".join(f"{count} x {kind}" for kind, count in Counter(self.devices).items())
        yield "trains on", f"{devices} (proxy {self.config.proxy.name})"
        if self.seconds is not None:
            speed = f"{short_count(self.tokens_per_second or 0)} tokens/s per worker"
            yield "time here", f"about {_range(self.seconds, duration)} (estimate, at {speed})"
        if list(experiment_urls(self.config)):
            yield "downloads", f"objects from stores, to {cache_folder()}"

    def _domains(self) -> str:
        inventory = self.sizes.inventory
        count = len(self.config.corpus.domains)
        domains = "1 domain" if count == 1 else f"{count} domains"
        if inventory is None:
            return f"{domains}, sizes not given"
        total = short_count(sum(inventory.values()))
        return f"{domains} of {total} tokens ({self.sizes.basis})"

    def _domain_lines(self) -> list[str]:
        inventory = self.sizes.inventory or {}
        total = sum(inventory.values())
        title = f"Domains, sizes {self.sizes.basis}"
        target = self.config.propose.target_tokens
        if target is not None:
            epochs = f"{target / total:.2g} epochs at natural shares"
            title += f"; {short_count(target)} tokens are {epochs}"
        rows = [
            (name, short_count(size), share_text(size / total)) for name, size in inventory.items()
        ]
        columns = ("domain", "tokens", "natural")
        return table_text(title, columns, rows).rstrip("\n").split("\n")


def _range(values: tuple[Any, Any], to_text: Callable[[Any], str]) -> str:
    minimum, maximum = map(to_text, values)
    return minimum if minimum == maximum else f"{minimum} to {maximum}"


def check(config: Config, *, probe: bool = False, validates: bool = True) -> Check:
    """Check an experiment; read at most the first documents of each domain, and write nothing.

    Args:
        config: The experiment.
        probe: Whether to estimate the speed of a trial on this machine: for a decoder on CPUs from
            the speed of matrix products, else by the proxy's own measurement.
        validates: Whether costs include the validation.

    Returns:
        Problems, warnings, sizes and costs; `refuse()` raises the first problem.

    Examples:
        >>> result = mixopt.check(run.config)
        >>> result.problems, result.tokens
        ([], ...)
    """
    problems: list[MixoptError] = []
    sizes = known_sizes(config)

    def noted(call: Callable[..., Result], *arguments: Any) -> Result | None:
        try:
            return call(*arguments)
        except MixoptError as error:
            problems.append(error)
            return None

    proxy = noted(_checked_proxy, config)
    if config.corpus.prepared is None:
        noted(_check_tokenizer, config)
        for name, source in _sources(config).items():
            noted(_check_source, config, name, source.under(config.corpus.root))
    else:
        noted(check_prepared, config.corpus.prepared)
    noted(check_token_unit, config)
    noted(Objective.from_config, config.resolved_objective, config.losses)
    noted(_check_design, config, sizes)
    for where in config.design.earlier or ():
        noted(earlier_trials, where)
    evaluation = noted(evaluation_tokens, config) or 0.0
    warnings = [*_shared_text(config), *_size_warnings(config, sizes)]
    devices = noted(_devices, config, warnings) or ["GPU"] * (config.sweep.workers or 1)
    parameters = None if proxy is None else proxy_parameters(proxy, sizes.vocab_size)
    rate: float | None = None
    if probe and not problems and proxy is not None:
        rate = trial_speed(config, proxy, sizes.vocab_size, devices)
    return Check(
        config,
        problems,
        warnings,
        sizes,
        devices,
        parts=training_parts(config, validates=validates),
        evaluation=evaluation,
        parameters=parameters,
        tokens_per_second=rate,
    )


def _sources(config: Config) -> dict[str, SourceConfig]:
    return {**config.corpus.sources, **config.evaluation}


def _checked_proxy(config: Config) -> Proxy:
    name = config.proxy.name
    proxy = make_proxy(name, config.proxy.all_options)
    can_simulate = getattr(load_plugin("proxy", name), "simulates_epochs", False)
    if config.proxy.simulate_epochs and not can_simulate:
        raise ConfigError(
            f"proxy.simulate_epochs: proxy {name!r} cannot simulate epochs; leave it out"
        )
    if config.proxy.start is not None:
        _with_start(proxy, name).start_hash()
        if hasattr(proxy, "check_tokenizer"):
            proxy.check_tokenizer(config.corpus.tokenizer)
    if config.sweep.stop is not None and not getattr(proxy, "resumes", False):
        raise ConfigError(f"sweep.stop: proxy {name!r} cannot train a trial in parts; leave it out")
    if config.sweep.executor == "local" and hasattr(proxy, "check_here"):
        proxy.check_here()
    return proxy


def _check_tokenizer(config: Config) -> None:
    if not all(source.is_tokens for source in _sources(config).values()):
        check_tokenizer_name(config.corpus.tokenizer)


def _check_source(config: Config, name: str, source: SourceConfig) -> None:
    if source.is_tokens:
        counted_tokens(name, source)
        return
    text = first_look(name, source, config.corpus.on_bad_document)
    read = min(text, source.max_bytes or config.corpus.max_bytes or text)
    field = "bytes"
    stated = source.bytes
    if source.tokens:
        field = "tokens"
        stated = source.tokens
        if config.corpus.tokenizer != "bytes":
            read /= MAX_BYTES_PER_TOKEN
    if stated is not None and stated < read / 2:
        raise ConfigError(
            f"corpus.domains.{name}.{field}: {stated} is less than its files hold, at least"
            f" {short_count(read)}: state the size of the whole domain, or prepare less with"
            " max_bytes"
        )


def _shared_text(config: Config) -> Iterator[str]:
    corpus = config.corpus
    try:
        shared = {} if corpus.prepared else shared_files(corpus.sources, corpus.root)
    except MixoptError:
        return  # it is among the problems already
    for file, names in list(shared.items())[:MAX_SHARES]:
        quoted = " and ".join(map(repr, names))
        yield f"{file} is text of {quoted}; give each file to one domain"


def check_token_unit(config: Config) -> None:
    """Raise ConfigError if the objective needs bytes of tokens and the tokenizer is missing."""
    of_tokens = [name for name, source in _sources(config).items() if source.is_tokens]
    if not of_tokens or config.objective.unit != "bits_per_byte":
        return
    name = config.corpus.tokenizer
    if known_tokenizer(name) is None:
        raise ConfigError(
            f"objective.unit: bits_per_byte needs the bytes of each token, and the tokenizer"
            f" {name!r} of {of_tokens[0]!r} is not here: set objective.unit: nats_per_token, or"
            " corpus.tokenizer to a folder with its tokenizer.json"
        )


def _check_design(config: Config, sizes: KnownSizes) -> None:
    try:
        design, natural, constraints = _as_far_as_known(config, sizes)
        design_constraints(design, natural, constraints)
        mixtures = design.first_round + len(design.anchors)
        if sizes.inventory is not None:
            trials = make_design(design, natural, constraints, config.seed)
            mixtures = len({trial.mixture for trial in trials})
    except InfeasibleError:
        if sizes.basis == "estimated":
            return
        raise
    check_folds(config, mixtures)


def earlier_trials(where: str) -> Trials:
    """Read the trials of `design.earlier`."""
    path = Path(where).expanduser()
    try:
        return Trials.read(path / "trials.parquet" if path.is_dir() else path)
    except TrialsError as error:
        raise TrialsError(f"design.earlier: {error}; give a run, or its trials.parquet") from error


def check_folds(config: Config, mixtures: int) -> None:
    """Check that the first round has at least one mixture for each fold."""
    folds = config.fit.folds
    if mixtures < folds and config.design.anneals is None:
        name = "the first of design.rounds" if config.design.rounds else "design.trials"
        raise ConfigError(
            f"fit.folds: {folds} folds need at least {folds} different mixtures, and the design has"
            f" {mixtures}; raise {name}, or lower fit.folds"
        )


def _as_far_as_known(
    config: Config, sizes: KnownSizes
) -> tuple[DesignConfig, Mixture, Constraints]:
    """Return design, natural mixture and limits; without sizes, leave out what depends on them."""
    limits = config.constraints
    design = config.design
    inventory = sizes.inventory
    if inventory is None:
        inventory = dict.fromkeys(config.corpus.domains, 1)
        for name, options in (limits.convex or {}).items():
            named_limit(name, options, Mixture.natural(inventory))  # raises if one is invalid
        unknown = ["max_epochs", "convex"]
        if limits.radius is not None and limits.radius.reference == "natural":
            unknown.append("radius")
        limits = limits.model_copy(update=dict.fromkeys(unknown))
        design = design.model_copy(update={"max_usage": None})
    phases = Phases.of(config.design.phases)
    constraints = Constraints.from_config(
        limits, inventory, target_tokens=config.propose.target_tokens, phases=phases
    )
    natural = Mixture.natural(inventory)
    if phases is not None:
        natural = phases.tied(natural)
    return design, natural, constraints


def _devices(config: Config, warnings: list[str]) -> list[str]:
    request = config.sweep
    device = config.proxy.device
    if request.executor != "local":
        return [f"executor {request.executor}"] * (request.workers or 1)
    devices = worker_devices(device, request.workers, request.gpus, warnings.append)
    if device.startswith("cuda") and not all(worker.gpus for worker in devices):
        raise ConfigError(f"proxy.device: {device}: no GPU is visible here; use auto or cpu")
    return [str(worker) for worker in devices]


def full_run(config: Config, inventory: dict[str, int]) -> FullRun:
    """Return the run that the mixture is for."""
    return FullRun(
        inventory,
        config.propose.target_tokens,
        config.constraints.default_max_epochs,
        Phases.of(config.design.phases),
    )


def _size_warnings(config: Config, sizes: KnownSizes) -> Iterator[str]:
    """Yield warnings about unknown sizes, baselines beyond limits, and samples that are too small.

    A baseline beyond the limits is trained, but may not be recommended.
    """
    inventory = sizes.inventory
    if inventory is None and config.propose.target_tokens is not None:
        yield (
            "the sizes of the domains are not given, so shares and epochs refer to the prepared"
            " text: run mixopt check CONFIG --write inventory.yaml, and set corpus.inventory"
        )
    if sizes.basis == "estimated":
        yield (
            "sizes in bytes are converted at 4 bytes per token until the text is prepared;"
            " constraints that depend on them are checked then"
        )
    try:
        _, natural, limits = _as_far_as_known(config, sizes)
        if inventory is not None and sizes.sample is not None:
            largest = largest_weights(config, natural, limits)
            yield from shortage_lines(config, sizes.sample, inventory, largest)
    except MixoptError:
        return  # it is among the problems already
    full = full_run(config, inventory or dict.fromkeys(config.corpus.domains, 1))
    for name, weights in config.validation.baselines.items():
        if inventory is None and weights is None:
            continue
        with suppress(MixoptError):  # raised when the baseline is made
            mixture = baseline_without_trials(name, weights, full)
            line = None if mixture is None else baseline_breaks(name, mixture, limits)
            if line:
                yield line


def with_start_hash(config: Config) -> Config:
    """Return a configuration with the hash of the checkpoint that its trials start from."""
    proxy = config.proxy
    if proxy.start is None:
        return config
    unstarted = make_proxy(proxy.name, proxy.all_options | {"start_hash": None})
    started = _with_start(unstarted, proxy.name)
    options = proxy.options | {"start_hash": str(started.start_hash())}
    return config.model_copy(update={"proxy": proxy.model_copy(update={"options": options})})


def _with_start(proxy: Any, name: str) -> Any:
    if not hasattr(proxy, "start_hash"):
        raise ConfigError(
            f"proxy.from: trials of proxy {name!r} begin with no checkpoint; leave it out, or give"
            " name: continued"
        )
    return proxy
