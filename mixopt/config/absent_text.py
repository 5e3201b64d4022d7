"""Domains and targets without text here: the user's own trainer reads it and reports losses.

Of such a domain the size in tokens is known; of a target nothing but its name. Losses are in the
unit in which the trainer has them, since only text tells how many bytes a token has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mixopt.config.command_section import COMMAND
from mixopt.config.corpus_section import WHERE, SourceConfig

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
