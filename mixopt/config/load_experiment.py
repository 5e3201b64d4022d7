"""Read the file of an experiment, and check it across sections that are valid on their own."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixopt.baselines import CONTROL
from mixopt.config.constraints_section import ConstraintsConfig
from mixopt.config.corpus_section import (
    WHERE,
    SourceConfig,
    absent_texts,
    size_faults,
    unusable_names,
    url_faults,
)
from mixopt.config.experiment import (
    COMMAND,
    CONTINUED,
    DOMAINS,
    Config,
    ProxyConfig,
    experiment_urls,
    is_recipe,
    plugins_named,
)
from mixopt.config.mixture_sections import AnnealsConfig
from mixopt.config.objective_section import (
    KIND,
    ObjectiveConfig,
    chosen_losses,
    mixed_units,
    objective_faults,
)
from mixopt.config.sections import (
    Fault,
    Location,
    checked,
    given_content,
    pattern_faults,
    read_sections,
    share_fault,
)
from mixopt.errors import did_you_mean
from mixopt.system import name_fault, plugin_names, shown_value

FROM_RANDOM_WEIGHTS = ("decoder", "ngram", COMMAND)  # proxies that take no checkpoint


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


def _faults(config: Config) -> Iterable[Fault]:
    """Yield faults across sections that are valid on their own."""
    corpus = config.corpus
    anneals = config.design.anneals
    yield from unusable_names(corpus, config.evaluation)
    yield from url_faults(experiment_urls(config))
    yield from _objective_faults(config)
    yield from _pattern_faults(config)
    yield from size_faults(corpus, config.evaluation)
    for location, kind, name in plugins_named(config):
        if ":" in name:  # package.module:Name
            continue
        names = plugin_names(kind)
        if name not in names:
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
    proxy = config.proxy
    if config.design.phases is not None:
        if proxy.name == "ngram":
            yield "proxy.name", "ngram ignores the order of its text; remove design.phases"
        if proxy.mixture_format:
            message = f"{proxy.mixture_format} writes a single mixture; remove design.phases"
            yield "proxy.mixture_format", message
        if config.sweep.stop is not None:
            yield "sweep.stop", "a stopped trial lacks the last of its design.phases; leave it out"
    elif config.design.anneals is not None and config.sweep.stop is not None:
        yield "sweep.stop", "anneals all train to the end; leave it out"
    branches = {name.rpartition("/")[0] or name for name in config.corpus.domains}
    if config.design.stages and len(branches) == len(config.corpus.domains):
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
    if config.tasks is not None:
        for name, task in config.tasks.sets.items():
            yield from _task_name_faults(name, "task", name)
            if task.family is not None:
                yield from _task_name_faults(name, "family", task.family)
    try:
        chosen = config.resolved_objective
    except ValueError as error:
        yield "objective", str(error)
        return
    faults = list(objective_faults(chosen, config.losses))
    yield from faults
    if not faults:
        mixed = mixed_units(chosen, chosen_losses(chosen, config.losses).weights)
        if mixed is not None:
            yield "objective", mixed
    if config.objective.noise == "leave_out" and config.design.replicates == 0:
        message = "noise is estimated from replicates, but design.replicates is 0; raise it to 2 or"
        yield "objective.noise", f"{message} more, or remove objective.noise"
    if chosen.hinge is None or faults or config.design.replicates:
        return
    items = chosen_losses(chosen, config.losses).items
    unknown = [loss for loss in config.losses if loss not in items]
    if unknown:
        message = f"the noise of {unknown[0]!r} is unknown: set design.replicates to 2 or more"
        yield "objective.hinge", message


def _task_name_faults(name: str, kind: str, text: str) -> Iterable[Fault]:
    fault = name_fault(text)
    if fault is not None:
        yield ("tasks", "sets", name), f"{kind} {shown_value(text)}: {fault}; rename it"


def _pattern_faults(config: Config) -> Iterable[Fault]:
    limits = config.constraints
    domains = list(config.corpus.domains)
    absent, others = limits.bound_patterns(domains)
    yield from pattern_faults(("constraints", "bounds"), absent, domains, "domain")
    yield from pattern_faults(("constraints", "bounds"), others, domains, "domain")
    guardrails = limits.guardrails
    if guardrails is not None:
        place = ("constraints", "guardrails")
        yield from pattern_faults((*place, "targets"), guardrails.targets, config.losses, KIND)
        reference = guardrails.reference
        if not isinstance(reference, str):
            yield from pattern_faults((*place, "reference"), reference, config.losses, KIND)
    yield from pattern_faults(("constraints", "floors"), limits.floors, config.losses, KIND)


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
    if not isinstance(proxy.losses, dict):
        return
    for name in proxy.losses:
        if name not in losses:
            yield ("proxy", "losses", name), f"unknown {KIND} {name!r}{did_you_mean(name, losses)}"


def _start_faults(config: Config) -> Iterable[Fault]:
    proxy = config.proxy
    if proxy.name == CONTINUED and proxy.start is None:
        message = "is missing: name: continued needs a run of mixopt pretrain, a checkpoint, or"
        yield "proxy.from", f"{message} a folder of transformers"
    if proxy.start is not None and is_recipe(proxy.start):
        message = "is a configuration: train it with mixopt pretrain, and name its run directory"
        yield "proxy.from", message
    if proxy.name in FROM_RANDOM_WEIGHTS and proxy.start is not None:
        message = f"trials of proxy {proxy.name!r} start from random weights: set name:"
        yield "proxy.from", f"{message} {CONTINUED}, or remove it"
    guardrails = config.constraints.guardrails
    if guardrails is not None and guardrails.reference == "base" and proxy.start is None:
        message = "base is the checkpoint that trials start from, but these have none: set"
        hint = "proxy: {name: continued, from: ...}, losses by name, or natural"
        yield "constraints.guardrails.reference", f"{message} {hint}"


def _text_faults(config: Config) -> Iterable[Fault]:
    corpus = config.corpus
    is_command = config.proxy.name == COMMAND
    sources = {**corpus.sources, **config.evaluation}
    tokenised = [name for name, source in sources.items() if source.is_tokens]
    if tokenised and corpus.tokenizer.startswith("bpe:"):
        message = (
            f"the run would train {corpus.tokenizer}, but {tokenised[0]!r} is already tokenised:"
            " name its tokenizer, or a folder with its tokenizer.json"
        )
        yield "corpus.tokenizer", message
    absent = _absent_texts(config)
    unsized = [name for name, source in corpus.domains.items() if not source.tokens]
    for location in absent:
        if not is_command:
            need = f"only your own trainer (proxy.name: {COMMAND}) needs no text"
            yield location, f"{WHERE}; {need}"
        elif "mixed" in location:
            yield location, f"{WHERE}; a mixed domain is prepared from the text of its parts"
        elif location[0] == "corpus" and location[-1] in unsized:
            yield location, "its text is not here, so its size is unknown: state tokens"
    unit = config.proxy.unit or "nats_per_token"
    objective_unit = config.objective.unit
    if absent and is_command and unit != objective_unit:
        message = (
            f"is {objective_unit}, but losses of {absent[0][-1]!r}, whose text is not available "
            f"here, are known only in proxy.unit: set objective.unit: {unit}"
        )
        yield "objective.unit", message


def _absent_texts(config: Config) -> list[Location]:
    """Return the fields of sources without text; none if the corpus is prepared."""
    corpus = config.corpus
    if corpus.prepared is not None:
        return []
    places: dict[Location, Mapping[str, SourceConfig]] = {
        DOMAINS: corpus.domains,
        ("evaluation",): config.evaluation,
    }
    for name, mixed in corpus.mixed.items():
        places[(*DOMAINS, name, "mixed", "domains")] = mixed.domains
    return list(absent_texts(places))


def _epoch_faults(config: Config) -> Iterable[Fault]:
    target = config.propose.target_tokens
    simulates = config.proxy.simulate_epochs
    if target is None and config.constraints.max_epochs is not None:
        yield "constraints.max_epochs", "needs propose.target_tokens, the length of the run"
    if target is None and simulates:
        yield "proxy.simulate_epochs", "needs propose.target_tokens, the length of the run"
    lengths = {"proxy.tokens": config.proxy.tokens, "validate.tokens": config.validation_tokens}
    for field, tokens in lengths.items():
        if simulates and target is not None and tokens > target:
            message = f"{tokens} is longer than the full run (propose.target_tokens: {target})"
            yield field, f"{message}, so its epochs cannot be simulated"
