"""Megatron-LM: the JSON file of `--per-split-data-args-path`.

Read as well: the file of `--data-args-path` (weights and paths between spaces) and a command line
or script with `--data-path` or `--train-data-path`. Megatron's BlendedDataset takes no weight of 0.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from mixopt.errors import MixtureError
from mixopt.integrations.exports.blend import blend_of, found_in_blend
from mixopt.integrations.exports.export_tool import Entry, ExportTool, Weighed
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.units import Sequences
from mixopt.integrations.exports.yaml_fragment import missing
from mixopt.system import parse_json

_OPTIONS = ("--data-path", "--train-data-path")


def _write(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
    train = [part for weight, path in blend_of(entries, facts) for part in (repr(weight), path)]
    content = {"comment": list(header), "train": train, "valid": None, "test": None}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _read(text: str, facts: Facts) -> list[Weighed]:
    if text.lstrip().startswith(("{", "[")):
        return _read_json(parse_json(text, facts.tool, error=MixtureError), facts.tool)
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise MixtureError(f"{facts.tool}: cannot be read: {error}") from None
    return found_in_blend(_after_option(words, facts.tool), facts.tool)


def _read_json(content: Any, where: str) -> list[Weighed]:
    blend = content.get("train") if isinstance(content, dict) else content
    if isinstance(blend, str):
        blend = blend.split()
    if not isinstance(blend, list):
        raise missing(where, "'train' with weights and paths")
    return found_in_blend(blend, where)


def _after_option(words: list[str], where: str) -> list[str]:
    """Return the words of `--data-path`, or all where no option is."""
    start = next((n for n, word in enumerate(words) if word in _OPTIONS), None)
    if start is None:
        if any(word.startswith("--") for word in words):
            raise missing(where, "--data-path with weights and paths")
        return words
    found = words[start + 1 :]
    end = next((n for n, word in enumerate(found) if word.startswith("--")), len(found))
    return [word for word in found[:end] if word not in {"(", ")"}]


MEGATRON = ExportTool(
    name="megatron",
    title="Megatron-LM",
    version="core 0.16.1 and main of 2026-08",
    unit=Sequences(),
    place="JSON, `train`: weight and path of each indexed dataset, one after the other",
    command="pretrain_gpt.py --per-split-data-args-path FILE, without --split and --data-path",
    write=_write,
    read=_read,
    single_path=True,
    notes=("A path is the prefix of a .bin and an .idx file; valid and test are yours to fill.",),
)
