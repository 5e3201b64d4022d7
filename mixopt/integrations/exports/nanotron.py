"""nanotron: the Nanoset of a data stage, `dataset_folder` with `dataset_weights`.

A weight is the share of the sequences. With a weight of 0 nanotron's greedy order can still draw
from a folder where all errors are 0, so that such folders are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixopt.errors import MixtureError
from mixopt.integrations.exports.export_tool import Entry, ExportTool, StageEntries, Weighed
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.units import Sequences
from mixopt.integrations.exports.yaml_fragment import (
    missing,
    part,
    plain_list,
    read_mapping,
    yaml_fragment,
)


def _write(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
    return yaml_fragment(header, {"data_stages": [_stage("mixture", 0, entries)]})


def _write_stages(
    stages: Sequence[StageEntries], header: Sequence[str], facts: Facts, batch: int
) -> str:
    written = [_stage(one.name, one.start, one.entries) for one in stages]
    return yaml_fragment(header, {"data_stages": written})


def _stage(name: str, start: int, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return a data stage; nanotron counts its steps from 1."""
    dataset = {
        "dataset_folder": [entry.paths[0] for entry in entries],
        "dataset_weights": [entry.amount for entry in entries],
    }
    data = {"dataset": dataset, "num_loading_workers": 1, "seed": 42}
    return {"name": name, "start_training_step": start + 1, "data": data}


def _read(text: str, facts: Facts) -> list[Weighed]:
    dataset = _dataset(read_mapping(text, facts.tool), facts.tool)
    folders = plain_list(part(dataset, "dataset_folder"))
    weights = part(dataset, "dataset_weights")
    if isinstance(part(dataset, "dataset_folder"), str):
        weights = [1.0]
    if not folders or weights is None:
        raise missing(facts.tool, "dataset_folder with dataset_weights")
    if len(folders) != len(plain_list(weights)):
        raise MixtureError(
            f"{facts.tool}: {len(plain_list(weights))} dataset_weights for {len(folders)} folders"
        )
    pairs = zip(folders, plain_list(weights), strict=True)
    return [Weighed((str(folder),), weight) for folder, weight in pairs]


def _dataset(content: dict[str, Any], where: str) -> Any:
    stages = plain_list(content.get("data_stages"))
    if len(stages) > 1:
        raise MixtureError(
            f"{where}: data_stages has {len(stages)} stages; one mixture is read, so keep the"
            " stage that is meant"
        )
    if stages:
        return part(stages[0], "data", "dataset")
    return part(content, "data", "dataset") or content


NANOTRON = ExportTool(
    name="nanotron",
    title="nanotron",
    version="main of 2026-04",
    unit=Sequences(),
    place="YAML, `data_stages[0].data.dataset.dataset_weights` of a Nanoset",
    command="put it into a configuration; run_train.py --config-file FILE",
    write=_write,
    read=_read,
    single_path=True,
    write_stages=_write_stages,
)
