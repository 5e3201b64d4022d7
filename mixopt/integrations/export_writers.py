"""Writers of each trainer's configuration fragment in YAML or JSON: entries to its content.

A name or path that a format cannot express is refused, never changed.
"""

import json
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from mixopt.errors import ConfigError
from mixopt.integrations.export_interface import (
    Entry,
    Facts,
    Noted,
    StageEntries,
    builder_of,
    loader_of,
)

LEVANTER_BLOCK = 2048  # sequences; the default of Levanter's mixture_block_size
MAX_AXOLOTL_PASSES = 1000

Entries = Sequence[Entry]


def megatron(entries: Entries, facts: Facts) -> Any:
    """Return alternating weights and paths by split."""
    return {"train": _pairs(entries), "valid": None, "test": None}


def megatron_bridge(entries: Entries, facts: Facts) -> Any:
    """Return a blend: paths, then weights."""
    paths = [entry.path for entry in entries]
    weights = [entry.amount for entry in entries]
    return {"dataset": {"blend": [paths, weights]}}


def nemo(entries: Entries, facts: Facts) -> Any:
    """Return alternating weights and paths."""
    return {"dataset": {"paths": _pairs(entries)}}


def _pairs(entries: Entries) -> list[str]:
    """Return alternating weights and paths, as Megatron's get_blend_from_list reads them."""
    pairs: list[str] = []
    for entry in entries:
        pairs += [repr(entry.amount), entry.path]
    return pairs


def megatron_bridge_sft(entries: Entries, facts: Facts) -> Any:
    """Return sources of rows: files, or folders and hub datasets by name."""
    sources: list[dict[str, Any]] = []
    for entry in entries:
        builder = builder_of(entry.path)
        source: dict[str, Any] = {"path_or_dataset": entry.path, "split": "train"}
        if builder is not None or len(entry.paths) > 1:
            files = list(entry.paths) if len(entry.paths) > 1 else entry.path
            source["path_or_dataset"] = builder or "json"
            source["load_kwargs"] = {"data_files": {"train": files}}
        sources.append(source)
    weights = [entry.amount for entry in entries]
    return {"dataset": {"source": sources, "source_weights": weights}}


def olmo_core(entries: Entries, facts: Facts) -> Any:
    """Return sources with target ratios, and with maximum repetitions if they are known."""
    sources = []
    for entry in entries:
        source: dict[str, Any] = {
            "source_name": entry.domain,
            "target_ratio": entry.amount,
            "paths": list(entry.paths),
        }
        if facts.tokens is not None and entry.domain in facts.inventory:
            epochs = entry.amount * facts.tokens / facts.size(entry.domain)
            # 1% more than needed: OLMo-core rounds sequences up.
            source["max_repetition_ratio"] = max(1.0, math.ceil(101 * epochs) / 100)
        sources.append(source)
    return {"sources": sources}


def levanter(entries: Entries, facts: Facts) -> Any:
    """Return components and their weights."""
    weights = {entry.domain: entry.amount for entry in entries}
    return {"data": {"components": _components(entries, facts), "train_weights": weights}}


def _components(entries: Entries, facts: Facts) -> dict[str, Any]:
    """Return the sources of Levanter's components: text files, or a token cache."""
    components: dict[str, Any] = {}
    for entry in entries:
        if entry.named or builder_of(entry.path) is not None:
            components[entry.domain] = {"source": {"type": "url", "train_urls": list(entry.paths)}}
        elif len(entry.paths) == 1:
            components[entry.domain] = {"cache_dir": entry.path}
        else:
            raise ConfigError(
                f"{facts.tool}: domain {entry.domain!r}: {entry.path!r} is read as a token cache, "
                "and a domain has at most one; give one path, or text files such as .jsonl"
            )
    return components


def levanter_stages(stages: Sequence[StageEntries], facts: Facts, batch: int) -> Any:
    """Return weights by first step, rounded to the ends of Levanter's blocks of sequences."""
    interval = LEVANTER_BLOCK // math.gcd(LEVANTER_BLOCK, batch)  # steps
    starts = [(stage.start + interval // 2) // interval * interval for stage in stages]
    for k, (start, next_start) in enumerate(pairwise(starts)):
        if start >= next_start:
            length = stages[k + 1].start - stages[k].start
            raise ConfigError(
                f"{facts.tool}: weights change at most every {interval} steps ({LEVANTER_BLOCK}"
                f" sequences), but stage {stages[k].name!r} has {length}; make it longer"
            )
    entries: list[Entry] = []
    weights: list[Any] = []
    moved: list[str] = []
    for stage, start in zip(stages, starts, strict=True):
        entries += stage.entries
        weights.append([start, {entry.domain: entry.amount for entry in stage.entries}])
        if stage.start != start:
            moved.append(f"{stage.name} from {stage.start:,} to {start:,}")
    content = {"data": {"components": _components(entries, facts), "train_weights": weights}}
    if not moved:
        return content
    blocks = f"Weights change at the ends of blocks of {LEVANTER_BLOCK:,} sequences"
    moves = f"moved first steps: {', '.join(moved)}"
    return Noted(content, [f"{blocks}, every {interval} steps; {moves}."])


def nanotron(entries: Entries, facts: Facts) -> Any:
    """Return one data stage from the first step on."""
    return nanotron_stages([StageEntries("mixture", 0, entries)], facts, batch=1)


def nanotron_stages(stages: Sequence[StageEntries], facts: Facts, batch: int) -> Any:
    """Return data stages; nanotron counts its steps from 1."""
    written = []
    for stage in stages:
        dataset = {
            "dataset_folder": [entry.path for entry in stage.entries],
            "dataset_weights": [entry.amount for entry in stage.entries],
        }
        data = {"dataset": dataset, "num_loading_workers": 1, "seed": 42}
        first = stage.start + 1
        written.append({"name": stage.name, "start_training_step": first, "data": data})
    return {"data_stages": written}


def axolotl(entries: Entries, facts: Facts) -> Any:
    """Return one source per pass, and slices."""
    sources: list[dict[str, Any]] = []
    for entry in entries:
        sources += _axolotl_passes(entry, facts)
    return {"datasets": sources}


def _axolotl_passes(entry: Entry, facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield one source per complete pass over a domain, and a slice for the remainder."""
    pieces = len(facts.places(entry.domain))
    rows = max(1, round(facts.size(entry.domain) / facts.sample(entry.domain) / pieces))
    passes, rest = divmod(max(1, round(entry.amount)), rows)
    if passes > MAX_AXOLOTL_PASSES:
        raise ConfigError(
            f"{facts.tool}: domain {entry.domain!r} would be listed {passes} times, once per pass;"
            f" the maximum is {MAX_AXOLOTL_PASSES}. Are {facts.size(entry.domain):g} tokens right?"
        )
    splits = ["train"] * passes
    if rest:
        splits.append(f"train[:{rest}]")
    for split in splits:
        yield {"path": entry.path, "type": "completion", "split": split}


def llamafactory(entries: Entries, facts: Facts) -> Any:
    """Return names and probabilities, with a dataset_info.json for known paths."""
    for entry in entries:
        if "," in entry.label or entry.label != entry.label.strip():
            raise ConfigError(
                f"{facts.tool}: domain {entry.label!r}: names are separated by commas and lose the"
                " spaces around them; rename the domain"
            )
    content = {
        "dataset": ",".join(entry.label for entry in entries),
        "mix_strategy": "interleave_over",
        "interleave_probs": ",".join(repr(entry.amount) for entry in entries),
    }
    info: list[str] = []
    for entry in entries:
        if not entry.named:
            fields = {"file_name": entry.path, "columns": {"prompt": "text"}}
            info.append(f" {json.dumps(entry.label)}: {json.dumps(fields)}")
    if not info:
        return Noted(content, [])
    lines = ["dataset_info.json of dataset_dir:", "{"]
    lines += [f"{line}," for line in info[:-1]]
    lines += [info[-1], "}"]
    return Noted(content, lines)


def swift(entries: Entries, facts: Facts) -> Any:
    """Return paths with numbers of samples."""
    for entry in entries:  # of `hub::path:subset#count`
        hub, _, rest = entry.path.partition("::")
        where = f"{entry.path!r} of domain {entry.domain!r}"
        if (entry.named and ":" in entry.path) or (rest and hub.lower() not in {"hf", "ms"}):
            raise ConfigError(
                f"{facts.tool}: reads a part of {where} as a hub or a subset, because of its ':';"
                " give another path with --paths"
            )
        if entry.path.startswith("-"):
            raise ConfigError(
                f"{facts.tool}: reads {where} as an option; give another path with --paths, such"
                " as ./..."
            )
    return {"dataset": [f"{entry.path}#{max(1, round(entry.amount))}" for entry in entries]}


def trl(entries: Entries, facts: Facts) -> Any:
    """Return sources with the fraction of each."""
    sources: list[dict[str, Any]] = []
    for entry in entries:
        builder = loader_of(entry, facts)
        source: dict[str, Any] = {"path": builder or entry.path}
        if builder is not None:
            source["data_files"] = list(entry.paths)
        source["split"] = "train"
        source["fraction"] = entry.amount
        sources.append(source)
    return {"datasets": sources}


def open_instruct(entries: Entries, facts: Facts) -> Any:
    """Return alternating datasets and numbers of rows."""
    pairs: list[str] = []
    for entry in entries:
        # A number without a decimal point counts rows; with one it is a fraction of the dataset.
        pairs += [entry.path, str(round(entry.amount))]
    return {"dataset_mixer_list": pairs, "dataset_mixer_list_splits": ["train"]}


def energon(entries: Entries, facts: Facts) -> Any:
    """Return a blend of a metadataset."""
    return {
        "__module__": "megatron.energon",
        "__class__": "MetadatasetV2",
        "splits": {
            "train": {"blend": [{"weight": entry.amount, "path": entry.path} for entry in entries]}
        },
    }
