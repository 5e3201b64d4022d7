"""Megatron-Bridge: YAML that is merged into a recipe's ConfigContainer.

Pretraining (GPTDatasetConfig) has Megatron's blend, a share of the sequences. Fine-tuning on rows
(DirectHFSFTDatasetConfig) has `source_weights`, which are epochs of each source. OmegaConf reads
both, so that `${` in a path would be a variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixopt.errors import MixtureError
from mixopt.integrations.exports.blend import (
    blend_of,
    check_no_interpolation,
    found_in_blend,
)
from mixopt.integrations.exports.export_tool import Entry, ExportTool, Weighed
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.loading_code import builder_of
from mixopt.integrations.exports.units import Epochs, Sequences
from mixopt.integrations.exports.yaml_fragment import (
    missing,
    names_of,
    part,
    plain_list,
    read_mapping,
    yaml_fragment,
)

_COMMAND = "process_config_with_overrides(recipe, config_filepath=FILE), then"


def _write(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
    check_no_interpolation(entries, facts)
    blend = blend_of(entries, facts)
    content = [[path for _, path in blend], [weight for weight, _ in blend]]
    return yaml_fragment(header, {"dataset": {"blend": content}})


def _read(text: str, facts: Facts) -> list[Weighed]:
    content = read_mapping(text, facts.tool)
    dataset = content.get("dataset", content)
    blend, flat = part(dataset, "blend"), part(dataset, "data_path")
    if blend is None and flat is not None:
        return found_in_blend(flat.split() if isinstance(flat, str) else flat, facts.tool)
    if not isinstance(blend, (list, tuple)) or len(blend) != 2:
        raise missing(facts.tool, "dataset.blend: [paths, weights], or dataset.data_path")
    paths, weights = map(plain_list, blend)
    if len(paths) != len(weights):
        raise MixtureError(f"{facts.tool}: {len(weights)} weights for {len(paths)} paths")
    pairs = zip(weights, paths, strict=True)
    return found_in_blend([value for pair in pairs for value in pair], facts.tool)


def _write_sources(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
    check_no_interpolation(entries, facts)
    dataset = {
        "source": [_source(entry) for entry in entries],
        "source_weights": [entry.amount for entry in entries],
    }
    return yaml_fragment(header, {"dataset": dataset})


def _source(entry: Entry) -> dict[str, Any]:
    builder = builder_of(entry.paths[0])
    if builder is None and len(entry.paths) == 1:
        return {"path_or_dataset": entry.paths[0], "split": "train"}
    files = list(entry.paths) if len(entry.paths) > 1 else entry.paths[0]
    return {
        "path_or_dataset": builder or "json",
        "split": "train",
        "load_kwargs": {"data_files": {"train": files}},
    }


def _read_sources(text: str, facts: Facts) -> list[Weighed]:
    content = read_mapping(text, facts.tool)
    dataset = content.get("dataset", content)
    sources, weights = plain_list(part(dataset, "source")), part(dataset, "source_weights")
    if not sources:
        raise missing(facts.tool, "dataset.source with dataset.source_weights")
    weights = [1.0] * len(sources) if weights is None else plain_list(weights)
    if len(sources) != len(weights):
        raise MixtureError(f"{facts.tool}: {len(weights)} weights for {len(sources)} sources")
    pairs = zip(sources, weights, strict=True)
    return [Weighed(_names(source, facts.tool), weight) for source, weight in pairs]


def _names(source: Any, where: str) -> tuple[str, ...]:
    files = part(source, "load_kwargs", "data_files")
    files = part(files, "train") or files
    name = part(source, "dataset_name") or part(source, "path_or_dataset")
    return names_of(files or name, where)


MEGATRON_BRIDGE = ExportTool(
    name="megatron-bridge",
    title="Megatron-Bridge, pretraining",
    version="0.3.1 and main of 2026-08",
    unit=Sequences(),
    place="YAML, `dataset.blend` of GPTDatasetConfig: paths, then weights",
    command=f"{_COMMAND} pretrain",
    write=_write,
    read=_read,
    single_path=True,
    notes=("A path is the prefix of a .bin and an .idx file.",),
)
MEGATRON_BRIDGE_SFT = ExportTool(
    name="megatron-bridge-sft",
    title="Megatron-Bridge, fine-tuning on rows",
    version="main of 2026-08",
    unit=Epochs(),
    place="YAML, `dataset.source_weights` of DirectHFSFTDatasetConfig",
    command=f"{_COMMAND} finetune, for one pass over the blended rows",
    write=_write_sources,
    read=_read_sources,
)
