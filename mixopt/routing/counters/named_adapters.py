"""Adapters that a file names: `package.module:Name` of a RouterAdapter, or of a list of some."""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.errors import RoutingError
from mixopt.routing.counters.adapters import EXAMPLE, RouterAdapter
from mixopt.system import load_object


def named_adapters(names: Sequence[str]) -> tuple[RouterAdapter, ...]:
    """Import adapters, in the order of their names.

    Raises:
        PluginError: Nothing of a name is there, or a package is absent.
        RoutingError: What is there is no adapter.
    """
    return tuple(adapter for name in names for adapter in _named(name))


def _named(name: str) -> Sequence[RouterAdapter]:
    found = load_object("experts.adapters: adapter", name)
    adapters = list(found) if isinstance(found, list | tuple) else [found]
    for adapter in adapters:
        if not isinstance(adapter, RouterAdapter):
            raise RoutingError(
                f"experts.adapters: {name!r} is {adapter!r}; name a RouterAdapter or a list of"
                f" some, such as {EXAMPLE}"
            )
    return adapters
