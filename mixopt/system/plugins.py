"""Find proxies, regressors, estimators, models, executors, exporters and constraints by name.

A plug-in is a class (an exporter an `ExportTool`) behind an entry point in one of seven groups;
`package.module:Name` works in place of a name. Importing a path executes code: paths are accepted
from the user, and from a run directory only with the user's trust (`check_trusted`).
"""

import importlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from mixopt.errors import ConfigError, PluginError, did_you_mean
from mixopt.system.files import PlainMapping

PluginKind = Literal[
    "proxy", "regressor", "estimator", "model", "executor", "exporter", "constraint"
]
Trust = bool | Collection[str]
# Required methods of plug-ins; full interfaces: mixopt.sweeps.proxy, mixopt.fitting.regressor,
# mixopt.online.contract, mixopt.pretraining.models, mixopt.sweeps.contract,
# mixopt.integrations.export_interface, mixopt.constraints.convex_limits.
METHODS: dict[PluginKind, tuple[str, ...]] = {
    "proxy": ("group_size", "train"),
    "regressor": ("fit", "predict"),
    "estimator": ("plan", "observe", "state_dict", "load_state_dict"),
    "model": ("forward",),
    "executor": ("start", "states", "cancel", "close"),
    "exporter": ("write",),
    "constraint": ("value", "gradient", "describe"),
}
NEED_TORCH: tuple[PluginKind, ...] = ("proxy", "model")

_REINSTALL = "reinstall its package if the entry point is new"
_ELSEWHERE = "the package that has it, or name its folder in PYTHONPATH"


def plugin_names(kind: PluginKind) -> list[str]:
    """Return the names of the installed plug-ins of one kind, sorted."""
    return sorted({entry.name for entry in _entries(kind)})


def load_plugin(kind: PluginKind, name: str) -> Any:
    """Import the class of a plug-in."""
    if ":" in name:
        plugin = load_object(kind, name)
    else:
        extra = "all" if kind in NEED_TORCH else "cli"
        with needed_by(f"{kind} {name!r}", f"'mixopt[{extra}]'"):
            plugin = _entry(kind, name).load()
    _check_methods(kind, name, plugin)
    return plugin


def load_object(kind: str, name: str) -> Any:
    """Import an object by `package.module:Name`, which need not be a plug-in."""
    module, _, attribute = name.partition(":")
    if not attribute:
        raise PluginError(f"{kind} {name!r}: give package.module:Name")
    try:
        with needed_by(f"{kind} {name!r}", _ELSEWHERE):
            return getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        raise PluginError(f"{kind} {name!r}: {module} has no {attribute!r}") from error


@contextmanager
def needed_by(user: str, source: str = "'mixopt[all]'") -> Iterator[None]:
    """Turn an ImportError of the block into one line with what to install."""
    try:
        yield
    except ImportError as error:
        # fsspec raises from the error that has the name.
        missing = error.name or getattr(error.__cause__, "name", None) or error
        raise PluginError(f"{user} needs {missing}: pip install {source}") from error


def check_trusted(kind: PluginKind, name: str, where: str, trust: Trust) -> None:
    """Raise PluginError unless a plug-in named in a file may be imported."""
    trusted = trust if isinstance(trust, bool) else name in trust
    if ":" in name and not trusted:
        module, _, attribute = name.partition(":")
        raise PluginError(
            f"{where}: names the {kind} {name!r}: Python would import {module!r} and run its code"
            f" to get {attribute!r}; if you trust whoever made this directory, add --trust"
            " (in Python trust=True)"
        )


def build_plugin(
    kind: PluginKind, name: str, options: PlainMapping, given: Mapping[str, object] | None = None
) -> Any:
    """Load a plug-in and create it with `options`."""
    factory = load_plugin(kind, name)
    given = given or {}
    unset = [option for option in _option_names(factory) if option not in given]
    for option in options:
        if option not in unset:
            raise ConfigError(
                f"{kind} {name!r}: unknown option {option!r}{did_you_mean(option, unset)}"
            )
    try:
        return factory(**given, **options)
    except TypeError as error:
        raise PluginError(f"{kind} {name!r}: {error}; is it a {kind}?") from error


def _option_names(factory: Callable[..., Any]) -> list[str]:
    """Return a plug-in's parameters, and its `option_names` if it takes keywords."""
    names: list[str] = []
    for name, parameter in inspect.signature(factory).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            names += getattr(factory, "option_names", ())
        else:
            names.append(name)
    return names


def _check_methods(kind: PluginKind, name: str, plugin: object) -> None:
    """Raise PluginError for a class without the required methods."""
    lacking = [method for method in METHODS[kind] if not callable(getattr(plugin, method, None))]
    if lacking:
        raise PluginError(f"{kind} {name!r}: has no {lacking[0]!r}; is it a {kind}?")
    if not callable(plugin) and kind not in {"regressor", "exporter"}:
        raise PluginError(f"{kind} {name!r}: is not a class; name the class")


def _entry(kind: PluginKind, name: str) -> EntryPoint:
    entries = [entry for entry in _entries(kind) if entry.name == name]
    if not entries:
        near = did_you_mean(name, plugin_names(kind))
        raise PluginError(f"unknown {kind} {name!r}{near} ({_REINSTALL})")
    if len({entry.value for entry in entries}) > 1:
        origins = " and ".join(sorted(entry.value for entry in entries))
        raise PluginError(
            f"{kind} {name!r} is given by {origins}; name one as 'package.module:Name'"
        )
    return entries[0]


@lru_cache
def _entries(kind: PluginKind) -> tuple[EntryPoint, ...]:
    group = "proxies" if kind == "proxy" else f"{kind}s"
    return tuple(entry_points(group=f"mixopt.{group}"))
