"""URLs of stores in a configuration: their fields, and faults in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mixopt.config.corpus_section import SourceConfig
from mixopt.system import is_url, url_fault, without_secrets

if TYPE_CHECKING:
    from mixopt.config.experiment import Config
    from mixopt.config.yaml_sections import Location

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
