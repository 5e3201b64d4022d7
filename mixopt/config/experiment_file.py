"""Read an experiment's YAML file, with overrides, into a checked `Config`.

Fields are checked one by one first (mixopt.config.yaml_sections), then against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mixopt.config.absent_text import absent_text_faults
from mixopt.config.anneals_section import anneal_faults
from mixopt.config.command_section import command_faults
from mixopt.config.experiment import Config
from mixopt.config.loss_choice import chosen_losses, objective_faults
from mixopt.config.mixed_domains import mixed_faults
from mixopt.config.names_of_domains import folder_fault
from mixopt.config.start_faults import start_faults
from mixopt.config.stated_sizes import size_faults, with_stated_sizes
from mixopt.config.store_urls import experiment_urls, url_faults
from mixopt.config.task_objective import mixed_units
from mixopt.config.token_sources import token_source_faults
from mixopt.config.validation_section import CONTROL
from mixopt.config.yaml_sections import Location, dump_sections, first_of, read_sections
from mixopt.errors import ConfigError, MixoptError, did_you_mean
from mixopt.system import (
    PluginKind,
    choice_fault,
    load_plugin,
    name_fault,
    plugin_names,
    shown_name,
    value_fault,
)


def load_config(path: str | Path, overrides: Sequence[str] = (), *, trust: bool = True) -> Config:
    """Read, override and check a configuration.

    Args:
        path: The YAML file.
        overrides: `a.b=value` each, the value in YAML; later ones win.
        trust: Whether code that the file names may be imported; a user's own file is trusted, the
            record in a run directory is not.

    Raises:
        ConfigError: The file cannot be read, or a field is unknown, of the wrong type, out of
            range, or names something that is not there; one line with file, line and field.
    """
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
