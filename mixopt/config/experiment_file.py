"""Read an experiment's YAML file, with overrides, into a checked `Config`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.config.corpus_section import WHERE, SourceConfig
from mixopt.config.design_section import CONTROL, anneal_faults
from mixopt.config.experiment import COMMAND, Config, command_faults
from mixopt.config.loss_choice import chosen_losses, objective_faults
from mixopt.config.objective_section import mixed_units
from mixopt.config.section import folder_fault
from mixopt.config.stated_sizes import size_faults, with_stated_sizes
from mixopt.config.yaml_sections import Location, dump_sections, first_of, read_sections
from mixopt.errors import ConfigError, MixoptError, did_you_mean
from mixopt.system import (
    PluginKind,
    choice_fault,
    is_url,
    load_plugin,
    name_fault,
    plugin_names,
    shown_name,
    url_fault,
    value_fault,
    without_secrets,
)

if TYPE_CHECKING:
    from mixopt.config.experiment import Config
    from mixopt.config.yaml_sections import Location


def absent_texts(sections: Mapping[Location, Mapping[str, SourceConfig]]) -> Iterable[Location]:
    """Find the sources, by where their sections are, that do not say where their text is."""
    for place, sources in sections.items():
        yield from ((*place, name) for name, source in sources.items() if not source.has_text)


def absent_text_faults(config: Config) -> Iterable[tuple[Location, str]]:
    """Find what cannot be right of domains and targets without text."""
    if config.corpus.prepared is not None:  # it has their text
        return
    sections: dict[Location, Mapping[str, SourceConfig]] = {
        ("corpus", "domains"): config.corpus.domains,
        ("evaluation",): config.evaluation,
        **{
            ("corpus", "domains", name, "mixed", "domains"): mixed.domains
            for name, mixed in config.corpus.mixed.items()
        },
    }
    found = list(absent_texts(sections))
    if found and config.proxy.name != COMMAND:
        message = f"{WHERE}; only a trainer of your own (proxy.name: {COMMAND}) needs no text"
        yield from ((location, message) for location in found)
        return
    for location in found:
        if "mixed" in location:
            yield location, f"{WHERE}; a mixed domain is prepared from the text of its parts"
        elif location[0] == "corpus" and config.corpus.inventory is None:
            name = str(location[-1])
            if config.corpus.domains[name].tokens is None:
                yield location, "its text is not here, so its size is unknown: give tokens"
    unit, wanted = config.proxy.unit or "nats_per_token", config.objective.unit
    if found and unit != wanted:
        yield (
            ("objective", "unit"),
            (
                f"is {wanted}, and losses of {found[0][-1]!r}, whose text is not available here, "
                f"are known only in proxy.unit: set objective.unit: {unit}"
            ),
        )


CONTINUED = "continued"
_FROM_NOTHING = ("decoder", "ngram", "command")


def start_faults(config: Config) -> Iterable[tuple[Location, str]]:
    """Find what cannot be right of what trials begin with: where, and what."""
    proxy, rails = config.proxy, config.constraints.guardrails
    if proxy.name == CONTINUED and proxy.start is None:
        message = "is missing: name: continued needs a run of mixopt pretrain, a checkpoint, or"
        yield ("proxy", "from"), f"{message} a folder of transformers"
    if proxy.name in _FROM_NOTHING and proxy.start is not None:
        message = f"trials of proxy {proxy.name!r} begin with random weights: give name:"
        yield ("proxy", "from"), f"{message} {CONTINUED}, or leave it out"
    if proxy.start_hash is not None and proxy.start is None:
        yield ("proxy", "from_hash"), "is written by mixopt, beside 'from'; leave it out"
    if rails is not None and rails.reference == "base" and proxy.start is None:
        message = "base is the checkpoint that trials begin with, and these begin with none: give"
        place = ("constraints", "guardrails", "reference")
        yield place, f"{message} proxy: {{name: continued, from: ...}}, or natural"


_TRAINED = "bpe:"


def token_source_faults(config: Config) -> Iterable[tuple[Location, str]]:
    """Find tokens beside a tokenizer that the run would train, which cannot be theirs."""
    places: dict[Location, Mapping[str, SourceConfig]] = {
        ("corpus", "domains"): config.corpus.sources,
        ("evaluation",): config.evaluation,
    }
    found = [
        (*place, name)
        for place, sources in places.items()
        for name, source in sources.items()
        if source.is_tokens
    ]
    if found and config.corpus.tokenizer.startswith(_TRAINED):
        message = (
            f"{config.corpus.tokenizer} is trained by the run, but {found[0][-1]!r} is already "
            "tokens: name the tokenizer that made them, or a folder with its tokenizer.json"
        )
        yield ("corpus", "tokenizer"), message


_FILES = ("path", "data_files", "validation")


def experiment_urls(config: Config) -> Iterable[tuple[Location, str]]:
    """Yield each URL of a store that an experiment reads, with where it stands."""
    tasks = config.tasks
    items = {} if tasks is None else {name: tasks.path(name) for name in tasks.sets}
    fields: list[tuple[Location, object]] = [
        (("corpus", "root"), config.corpus.root),
        (("corpus", "inventory"), config.corpus.inventory),
        (("corpus", "prepared"), config.corpus.prepared),
        *((("tasks", "sets", name, "path"), path) for name, path in items.items()),
    ]
    yield from ((place, str(value)) for place, value in fields if is_url(value))
    domains: dict[Location, Mapping[str, SourceConfig]] = {
        ("corpus", "domains"): config.corpus.sources
    }
    yield from source_urls({**domains, ("evaluation",): config.evaluation})


def source_urls(
    sections: Mapping[Location, Mapping[str, SourceConfig]],
) -> Iterable[tuple[Location, str]]:
    """Yield each URL of a store that sources name, with where it stands."""
    for place, sources in sections.items():
        for name, source in sources.items():
            for field in _FILES:
                given = getattr(source, field)
                for value in given if isinstance(given, list) else [given]:
                    if is_url(value):
                        yield (*place, name, field), value


def url_faults(urls: Iterable[tuple[Location, str]]) -> Iterable[tuple[Location, str]]:
    """Find URLs that cannot be read, or would be kept with a secret."""
    for location, url in urls:
        fault = url_fault(url)
        if fault is not None:
            yield location, f"{without_secrets(url)}: {fault}"


def mixed_faults(config: Config) -> Iterable[tuple[Location, str]]:
    """Find parts whose name is taken or no folder's, and sizes of parts that nothing reads."""
    corpus = config.corpus
    if corpus.mixed and corpus.prepared is not None:
        yield (
            ("corpus", "prepared"),
            "a mixed domain is prepared here, from its parts; leave it out",
        )
    taken = {**dict.fromkeys(corpus.domains, "a training domain")}
    taken |= dict.fromkeys(config.evaluation, "a target")
    for name, mixed in corpus.mixed.items():
        place: Location = ("corpus", "domains", name, "mixed", "domains")
        for part in mixed.domains:
            if part in taken:
                message = f"is already the name of {taken[part]}: a part is a target by its name;"
                yield (*place, part), f"{message} rename it"
            fault = folder_fault(part)
            if fault is not None:
                yield (*place, part), fault
            taken[part] = f"a part of {name!r}"


def load_config(path: str | Path, overrides: Sequence[str] = (), *, trust: bool = True) -> Config:
    """Read, override and check a configuration."""
    example = "'corpus:' and 'objective:'"
    sections = read_sections(path, Config, overrides, example=example, files=trust)
    mistakes: list[ConfigError] = []
    try:
        for location, message in _inconsistencies(sections.values, trust):
            mistakes.append(sections.mistake(location, message))
    except MixoptError:
        if not mistakes:  # what is wrong already may make more of it wrong
            raise
    if mistakes:
        raise first_of(mistakes)
    return with_stated_sizes(sections.values, trust=trust)


def dump_config(config: Config) -> dict[str, Any]:
    """Return the resolved configuration as plain values, defaults included but for null ones."""
    return dump_sections(config)


def plugins_named(config: Config) -> Iterable[tuple[Location, PluginKind, str]]:
    """Yield the plug-ins that a configuration names: where, of which kind, and how."""
    yield ("proxy", "name"), "proxy", config.proxy.name
    yield ("sweep", "executor"), "executor", config.sweep.executor
    for place, name in enumerate(config.fit.regressors):
        yield ("fit", "regressors", place), "regressor", name
    if config.design.acquisition_regressor is not None:
        name = config.design.acquisition_regressor
        yield ("design", "acquisition_regressor"), "regressor", name


def unusable_names(
    domains: Sequence[str], targets: Sequence[str], section: str = "corpus"
) -> Iterable[tuple[Location, str]]:
    """Find names of domains of a section, and of targets, that no corpus can have."""
    places: list[tuple[Location, Sequence[str]]] = [
        ((section, "domains"), domains),
        (("evaluation",), targets),
    ]
    for place, known in places:
        for name in known:
            fault = folder_fault(name)
            if fault is not None:
                yield (*place, name), fault
    for name in targets:
        if name in domains:
            yield ("evaluation", name), "is already a training domain; leave it out"


def _inconsistencies(config: Config, trust: bool) -> Iterable[tuple[Location, str]]:
    domains, targets = list(config.corpus.domains), list(config.evaluation)
    both = domains + list(config.targets)
    yield from unusable_names(domains, targets)
    yield from mixed_faults(config)
    yield from _task_names(config)
    yield from url_faults(experiment_urls(config))
    yield from _aimed(config)
    yield from _guarded(config, config.losses)
    yield from size_faults(config)
    for location, name in _names_of_domains(config):
        if name not in domains:
            yield location, f"unknown domain {name!r}{did_you_mean(name, domains)}"
    for location, kind, name in plugins_named(config):
        known = plugin_names(kind)
        if ":" not in name and name not in known:
            yield location, f"unknown {kind} {name!r}{did_you_mean(name, known)}"
    if config.constraints.max_epochs is not None and config.propose.target_tokens is None:
        yield ("constraints", "max_epochs"), "needs propose.target_tokens, the length of the run"
    if config.objective.leave_out == "noise" and config.design.replicates == 0:
        message = "noise is estimated from replicates, but design.replicates is 0; raise it to 2 or"
        yield ("objective", "leave_out"), f"{message} more, or leave this out"
    yield from command_faults(config.proxy.name, config.proxy, config.proxy.options, both)
    yield from start_faults(config)
    yield from absent_text_faults(config)
    yield from token_source_faults(config)
    yield from _simulated_epochs(config)
    yield from _baselines(config)
    if config.design.anneals is not None:
        yield from anneal_faults(config.design.anneals, domains)
    yield from _without_gradient(config, trust)


def _task_names(config: Config) -> Iterable[tuple[Location, str]]:
    """Find names of tasks and families that cannot be part of a column's name."""
    sets = {} if config.tasks is None else config.tasks.sets
    for name, task in sets.items():
        for kind, given in (("task", name), ("family", task.family)):
            fault = None if given is None else name_fault(given)
            if fault is not None:
                yield ("tasks", "sets", name), f"{kind} {shown_name(given)}: {fault}; rename it"


def _aimed(config: Config) -> Iterable[tuple[Location, str]]:
    """Find what cannot be right of the objective over evaluation domains and tasks."""
    try:
        aim = config.aim
    except ValueError as error:
        yield ("objective",), str(error)
        return
    faults = list(objective_faults(aim, config.losses))
    for place, pattern, message in faults:
        yield (*place, *([] if pattern is None else [pattern])), message
    if not faults:
        mixed = mixed_units(aim, chosen_losses(aim, config.losses).weights)
        if mixed is not None:
            yield ("objective",), mixed


def _without_gradient(config: Config, trust: bool) -> Iterable[tuple[Location, str]]:
    """Find regressors that the search could not use, which would show after the fit only."""
    if config.propose.method != "gradient":
        return
    for name in config.fit.regressors:
        if ":" in name and not trust:
            continue
        found = load_plugin("regressor", name)
        if isinstance(found, type) and not hasattr(found, "gradient"):
            message = f"gradient: regressor {name!r}, which cross-validation may choose, has none"
            yield ("propose", "method"), f"{message}; use auto, or leave it out of fit.regressors"


def _simulated_epochs(config: Config) -> Iterable[tuple[Location, str]]:
    proxy, most = config.proxy, config.propose.target_tokens
    if not proxy.simulate_epochs:
        return
    if most is None:
        yield ("proxy", "simulate_epochs"), "needs propose.target_tokens, the length of the run"
        return
    validation = config.validation_tokens
    for section, tokens in (("proxy", proxy.tokens), ("validate", validation)):
        if tokens > most:
            message = f"{tokens} is longer than the full run (propose.target_tokens: {most})"
            yield (section, "tokens"), f"{message}, so its epochs cannot be simulated"


def _guarded(config: Config, names: Sequence[str]) -> Iterable[tuple[Location, str]]:
    """Find what cannot be right of the evaluation domains that guardrails name."""
    rails, place = config.constraints.guardrails, ("constraints", "guardrails", "targets")
    targets = {} if rails is None else rails.targets
    for pattern in targets:
        fault = choice_fault(pattern, names, "evaluation domain")
        if fault is not None:
            yield (*place, pattern), fault
            return
    fault = value_fault(targets, names)
    if fault is not None:
        yield place, fault


def _baselines(config: Config) -> Iterable[tuple[Location, str]]:
    """Find own mixtures with other domains."""
    domains = list(config.corpus.domains)
    for place, baseline in enumerate(config.validation.baselines):
        location: Location = ("validate", "baselines", place)
        if baseline.name == CONTROL and config.design.anneals is None:
            yield location, f"{CONTROL!r} is that of microanneals: design.method: anneals has one"
        for name in baseline.weights or ():
            if name not in domains:
                near = did_you_mean(name, domains)
                yield location, f"{baseline.name}: unknown domain {name!r}{near}"
        missing = [name for name in domains if name not in (baseline.weights or domains)]
        if missing:
            yield location, f"{baseline.name}: no weight of {', '.join(missing)}; 0 is allowed"


def _names_of_domains(config: Config) -> Iterable[tuple[Location, str]]:
    for name in config.constraints.bounds:
        yield ("constraints", "bounds", name), name
    for name in config.design.max_weights:
        yield ("design", "max_weights", name), name
