"""torchtitan: Python with `InterleavedHuggingFaceTextDataLoader.Config`.

Each source is packed before they are interleaved, so that a weight is a share of the tokens. Read
as well: `WeightedDataset(dataset=..., weight=...)` of torchtitan's main branch, whose children are
taken to be packed (ConcatThenSplitPackingConfig) before they are mixed.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from mixopt.errors import MixtureError
from mixopt.integrations.exports.export_tool import Entry, ExportTool, Weighed
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.loading_code import (
    argument,
    builder_of,
    calls,
    literal,
    loaded_from,
    parsed,
)
from mixopt.integrations.exports.units import Sequences
from mixopt.integrations.exports.yaml_fragment import commented, missing

_IMPORTS = """\
from datasets import load_dataset
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import (
    DATASETS,
    HFDataSource,
    InterleavedHuggingFaceTextDataLoader,
)

"""


def _write(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
    kinds = sorted({builder_of(entry.paths[0]) or "" for entry in entries})
    sources = "".join(f"        {_source(entry)},\n" for entry in entries)
    return (
        f"{commented(header)}{_IMPORTS}"
        + "".join(map(_registered, kinds))
        + "\ndataloader = InterleavedHuggingFaceTextDataLoader.Config(\n"
        + f"    sources=[\n{sources}    ],\n)\n"
    )


def _source(entry: Entry) -> str:
    kind = builder_of(entry.paths[0]) or "hub"
    return (
        f'HFDataSource(dataset="{kind}", dataset_path={entry.paths[0]!r}, infinite=True,'
        f" weight={entry.amount!r})"
    )


def _registered(kind: str) -> str:
    loads = f'"{kind}", data_files=path' if kind else "path"
    return (
        f'DATASETS["{kind or "hub"}"] = DatasetConfig(\n    path="",\n'
        f'    loader=lambda path: load_dataset({loads}, split="train", streaming=True),\n'
        '    sample_processor=lambda sample: sample["text"],\n)\n'
    )


def _read(text: str, facts: Facts) -> list[Weighed]:
    tree = parsed(text, facts.tool)
    found = list(calls(tree, "HFDataSource", "WeightedDataset"))
    if not found:
        raise missing(facts.tool, "HFDataSource(..., weight=...)")
    return [
        Weighed(_names(call, tree, facts.tool), _weight(call, tree, facts.tool)) for call in found
    ]


def _names(call: ast.Call, tree: ast.Module, where: str) -> tuple[str, ...]:
    dataset = argument(call, "dataset")
    name = literal(argument(call, "dataset_path"), tree) or literal(dataset, tree)
    if isinstance(name, str):
        return (name,)
    loads = [] if dataset is None else list(calls(dataset, "load_dataset"))
    if loads and loaded_from(loads[0], tree):
        return loaded_from(loads[0], tree)
    if isinstance(dataset, ast.Name):
        return (dataset.id,)
    raise MixtureError(
        f"{where}:{call.lineno}: the domain of a weight cannot be read; write it out"
    )


def _weight(call: ast.Call, tree: ast.Module, where: str) -> float:
    given = argument(call, "weight")
    weight = 1.0 if given is None else literal(given, tree)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise MixtureError(f"{where}:{call.lineno}: weight cannot be read as a number")
    return float(weight)


TORCHTITAN = ExportTool(
    name="torchtitan",
    title="torchtitan",
    version="0.3.0",
    unit=Sequences(),
    place="Python, `weight` of each HFDataSource",
    command="in a config_registry function: from FILE import dataloader",
    write=_write,
    read=_read,
    single_path=True,
)
