"""OLMo-core: the YAML of `SourceMixtureList.from_yaml` (olmo_core.data.source_mixture).

`target_ratio` is the share of the tokens. OLMo-core refuses a source that is too small for its
share, unless `max_repetition_ratio` allows to repeat it: that is written where inventory and length
are known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mixopt.errors import MixtureError
from mixopt.integrations.exports.export_tool import Entry, ExportTool, Weighed
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.units import Sequences
from mixopt.integrations.exports.yaml_fragment import (
    missing,
    names_of,
    part,
    plain_list,
    read_mapping,
    yaml_fragment,
)


def _write(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
    return yaml_fragment(header, {"sources": [_source(entry, facts) for entry in entries]})


def _source(entry: Entry, facts: Facts) -> dict[str, Any]:
    source: dict[str, Any] = {
        "source_name": entry.domain,
        "target_ratio": entry.amount,
        "paths": list(entry.paths),
    }
    if facts.tokens is not None and entry.domain in facts.inventory:
        epochs = entry.amount * facts.tokens / facts.size(entry.domain)
        # A hundredth more than is needed: OLMo-core rounds sequences up.
        source["max_repetition_ratio"] = max(1.0, math.ceil(101 * epochs) / 100)
    return source


def _read(text: str, facts: Facts) -> list[Weighed]:
    content = read_mapping(text, facts.tool)
    sources = part(content, "sources") or part(content, "source_list", "sources")
    if not sources:
        raise missing(facts.tool, "'sources' with source_name and target_ratio")
    return [_found(source, facts.tool) for source in plain_list(sources)]


def _found(source: Any, where: str) -> Weighed:
    ratio = part(source, "target_ratio")
    if ratio is None:
        raise MixtureError(f"{where}: {source!r} has no target_ratio")
    return Weighed(names_of(part(source, "source_name"), where), ratio)


OLMO_CORE = ExportTool(
    name="olmo-core",
    title="OLMo-core",
    version="3.0.0",
    unit=Sequences(),
    place="YAML, `sources`: target_ratio of each source",
    command="SourceMixtureList.from_yaml(FILE), for SourceMixtureDatasetConfig(source_list=...)",
    write=_write,
    read=_read,
    takes_zero=True,
    notes=("max_repetition_ratio is written where --tokens and --inventory are known.",),
)
