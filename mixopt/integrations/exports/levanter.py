"""Levanter (Marin): YAML with `data.components` and `data.train_weights`.

Weights are probabilities of packed sequences, and components have names, so that the names of
domains come back as they are. Older versions call the components `configs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mixopt.errors import ConfigError, MixtureError
from mixopt.integrations.exports.export_tool import Entry, ExportTool, StageEntries, Weighed
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.loading_code import builder_of
from mixopt.integrations.exports.units import Sequences
from mixopt.integrations.exports.yaml_fragment import missing, part, read_mapping, yaml_fragment

_BLOCK = 2048  # sequences; Levanter's mixture_block_size where nothing else is said


def _write(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
    data = {
        "components": {entry.domain: _component(entry, facts) for entry in entries},
        "train_weights": {entry.domain: entry.amount for entry in entries},
    }
    return yaml_fragment(header, {"data": data})


def _write_stages(
    stages: Sequence[StageEntries], header: Sequence[str], facts: Facts, batch: int
) -> str:
    """Write weights from steps on, rounded to the ends of Levanter's blocks of sequences."""
    apart = _BLOCK // math.gcd(_BLOCK, batch)  # steps
    starts = [(one.start + apart // 2) // apart * apart for one in stages]
    for k, (before, start) in enumerate(pairwise(starts)):
        if before >= start:
            length = stages[k + 1].start - stages[k].start
            raise ConfigError(
                f"{facts.tool}: weights change every {apart} steps at most ({_BLOCK} sequences),"
                f" and stage {stages[k].name!r} has {length}; make it longer"
            )
    moved = [
        f"{one.name} from {one.start:,} to {start:,}"
        for one, start in zip(stages, starts, strict=True)
        if one.start != start
    ]
    if moved:
        blocks = (
            f"Weights change at the ends of blocks of {_BLOCK:,} sequences, every {apart} steps"
        )
        header = [*header, f"{blocks}; first steps that were moved: {', '.join(moved)}."]
    data = {
        "components": {e.domain: _component(e, facts) for one in stages for e in one.entries},
        "train_weights": [
            [start, {e.domain: e.amount for e in one.entries}]
            for one, start in zip(stages, starts, strict=True)
        ],
    }
    return yaml_fragment(header, {"data": data})


def _component(entry: Entry, facts: Facts) -> dict[str, Any]:
    """Return where a component is: files of text, or a cache of tokens."""
    if entry.named or builder_of(entry.paths[0]) is not None:
        return {"source": {"type": "url", "train_urls": list(entry.paths)}}
    if len(entry.paths) > 1:
        raise ConfigError(
            f"{facts.tool}: domain {entry.domain!r}: {entry.paths[0]!r} is read as a cache of "
            "tokens, and only one is allowed; give one, or files of text such as .jsonl"
        )
    return {"cache_dir": entry.paths[0]}


def _read(text: str, facts: Facts) -> list[Weighed]:
    content = read_mapping(text, facts.tool)
    weights = part(content, "data", "train_weights") or part(content, "train_weights")
    if isinstance(weights, list):
        weights = _only_stage(weights, facts.tool)
    if not isinstance(weights, dict):
        raise missing(facts.tool, "data.train_weights with a weight for each component")
    return [Weighed((str(name),), weight) for name, weight in weights.items()]


def _only_stage(stages: list[Any], where: str) -> Any:
    if len(stages) != 1 or not isinstance(stages[0], list) or len(stages[0]) != 2:
        raise MixtureError(
            f"{where}: data.train_weights has {len(stages)} stages; one mixture is read, so keep"
            " the stage that is meant"
        )
    return stages[0][1]


LEVANTER = ExportTool(
    name="levanter",
    title="Levanter",
    version="marin-levanter 0.2.20",
    unit=Sequences(),
    place="YAML, `data.train_weights`",
    command="python -m levanter.main.train_lm --config_path FILE",
    write=_write,
    read=_read,
    takes_zero=True,
    write_stages=_write_stages,
)
