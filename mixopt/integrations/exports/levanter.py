"""Levanter (Marin): YAML with `data.components` and `data.train_weights`.

Weights are probabilities of packed sequences, and components have names, so that the names of
domains come back as they are. Older versions call the components `configs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mixopt.errors import ConfigError, MixtureError
from mixopt.integrations.exports.export_tool import Entry, ExportTool, StageEntries, Weighed
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.loading_code import builder_of
from mixopt.integrations.exports.units import Sequences
from mixopt.integrations.exports.yaml_fragment import missing, part, read_mapping, yaml_fragment

_BLOCK = 2048  # sequences; Levanter's own mixture_block_size
_MOST_BLOCK = (1 << 16) - 1
_LEAST_BLOCK = 256  # in a smaller one, shares of less than half a per cent are lost


def _write(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
    data = {
        "components": {entry.domain: _component(entry, facts) for entry in entries},
        "train_weights": {entry.domain: entry.amount for entry in entries},
    }
    return yaml_fragment(header, {"data": data})


def _write_stages(
    stages: Sequence[StageEntries], header: Sequence[str], facts: Facts, batch: int
) -> str:
    """Write weights from steps on; Levanter changes them at the ends of its blocks of sequences."""
    data: dict[str, Any] = {
        "components": {e.domain: _component(e, facts) for one in stages for e in one.entries},
        "train_weights": [[one.start, {e.domain: e.amount for e in one.entries}] for one in stages],
    }
    block = math.gcd(*(one.start * batch for one in stages))
    if block % _BLOCK:
        fitting = max(n for n in range(1, _MOST_BLOCK + 1) if block % n == 0)
        if fitting < _LEAST_BLOCK:
            raise ConfigError(
                f"{facts.tool}: stages begin at multiples of {fitting} sequences, and a block has"
                f" {_LEAST_BLOCK} at least; begin them at steps that these divide"
            )
        data["mixture_block_size"] = fitting
    return yaml_fragment(header, {"data": data})


def _component(entry: Entry, facts: Facts) -> dict[str, Any]:
    """Return where a component is: files of text, or a cache of tokens."""
    if entry.named or builder_of(entry.paths[0]) is not None:
        return {"source": {"type": "url", "train_urls": list(entry.paths)}}
    if len(entry.paths) > 1:
        raise ConfigError(
            f"{facts.tool}: domain {entry.domain!r}: {entry.paths[0]!r} is taken for a cache of"
            " tokens, of which there is one; give one, or files of text such as .jsonl"
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
