"""The piece of configuration that each trainer reads, by tool.

A fragment is text as the tool's own parser reads it, below a header of comments. A name or a path
that a format cannot carry is refused, never changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import yaml

from mixopt.errors import ConfigError
from mixopt.exports.units import (
    COUNTS,
    EPOCHS,
    ROW_SLICES,
    SAMPLES,
    SEQUENCES,
    Entry,
    ExportTool,
    Facts,
    StageEntries,
)

LEVANTER_BLOCK = 2048  # sequences; Levanter's mixture_block_size where nothing else is said
MAX_AXOLOTL_PASSES = 1000
# Builders of `datasets` by the suffix of their files.
BUILDERS = {
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    ".txt": "text",
}
COMPRESSED = {".gz", ".zst", ".xz", ".bz2"}
INDEXED = "A path is the prefix of a .bin and an .idx file."

Entries = Sequence[Entry]
Header = Sequence[str]


def commented(lines: Header) -> str:
    """Return lines as comments of YAML and Python."""
    return "".join(f"# {line}\n" for line in lines)


def yaml_fragment(header: Header, content: Any) -> str:
    """Return YAML below a header of comments."""
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000)
    return commented(header) + body


def builder_of(path: str) -> str | None:
    """Return the builder of `datasets` for a file, by its suffix; None for a folder or a name."""
    suffixes = PurePosixPath(path).suffixes
    last = next((suffix for suffix in reversed(suffixes) if suffix not in COMPRESSED), "")
    return BUILDERS.get(last)


def loading_call(entry: Entry, facts: Facts) -> str:
    """Return the Python call that loads a domain: its files, or a folder or hub dataset by name."""
    builder = builder_of(entry.paths[0])
    if builder is not None:
        files = list(entry.paths)
        return f'load_dataset("{builder}", data_files={files!r}, split="train", streaming=True)'
    if len(entry.paths) > 1:
        raise ConfigError(
            f"{facts.tool}: domain {entry.domain!r}: {entry.paths[0]!r} does not show its format; "
            f"give one folder, or files that end with {', '.join(BUILDERS)}"
        )
    return f'load_dataset({entry.paths[0]!r}, split="train", streaming=True)'


def check_stripped(entries: Entries, facts: Facts) -> None:
    """Refuse paths with outer spaces, which the tool's reader strips."""
    for entry in entries:
        for path in entry.paths:
            if path != path.strip():
                raise ConfigError(
                    f"{facts.tool}: strips the spaces around {path!r} of domain {entry.domain!r};"
                    " give another path with --paths"
                )


def check_no_interpolation(entries: Entries, facts: Facts) -> None:
    """Refuse `${`, which OmegaConf and others read as a variable."""
    for entry in entries:
        for text in (entry.label, *entry.paths):
            if "${" in text:
                raise ConfigError(
                    f"{facts.tool}: reads ${{...}} in {text!r} of domain {entry.domain!r} as a"
                    " variable; give another path with --paths"
                )


def _megatron(entries: Entries, header: Header, facts: Facts) -> str:
    # get_blend_from_list takes a list of weights and paths, one after the other.
    check_stripped(entries, facts)
    train = [part for entry in entries for part in (repr(entry.amount), entry.paths[0])]
    content = {"comment": list(header), "train": train, "valid": None, "test": None}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _megatron_bridge(entries: Entries, header: Header, facts: Facts) -> str:
    check_no_interpolation(entries, facts)
    check_stripped(entries, facts)
    blend = [[entry.paths[0] for entry in entries], [entry.amount for entry in entries]]
    return yaml_fragment(header, {"dataset": {"blend": blend}})


def _megatron_bridge_sft(entries: Entries, header: Header, facts: Facts) -> str:
    check_no_interpolation(entries, facts)
    dataset = {
        "source": [_bridge_source(entry) for entry in entries],
        "source_weights": [entry.amount for entry in entries],
    }
    return yaml_fragment(header, {"dataset": dataset})


def _bridge_source(entry: Entry) -> dict[str, Any]:
    builder = builder_of(entry.paths[0])
    if builder is None and len(entry.paths) == 1:
        return {"path_or_dataset": entry.paths[0], "split": "train"}
    files = list(entry.paths) if len(entry.paths) > 1 else entry.paths[0]
    return {
        "path_or_dataset": builder or "json",
        "split": "train",
        "load_kwargs": {"data_files": {"train": files}},
    }


def _nemo(entries: Entries, header: Header, facts: Facts) -> str:
    check_no_interpolation(entries, facts)
    check_stripped(entries, facts)
    blend = [part for entry in entries for part in (repr(entry.amount), entry.paths[0])]
    return yaml_fragment(header, {"dataset": {"paths": blend}})


def _olmo_core(entries: Entries, header: Header, facts: Facts) -> str:
    sources = []
    for entry in entries:
        source: dict[str, Any] = {
            "source_name": entry.domain,
            "target_ratio": entry.amount,
            "paths": list(entry.paths),
        }
        if facts.tokens is not None and entry.domain in facts.inventory:
            epochs = entry.amount * facts.tokens / facts.size(entry.domain)
            # A hundredth more than is needed: OLMo-core rounds sequences up.
            source["max_repetition_ratio"] = max(1.0, math.ceil(101 * epochs) / 100)
        sources.append(source)
    return yaml_fragment(header, {"sources": sources})


def _levanter(entries: Entries, header: Header, facts: Facts) -> str:
    data = {
        "components": {entry.domain: _levanter_component(entry, facts) for entry in entries},
        "train_weights": {entry.domain: entry.amount for entry in entries},
    }
    return yaml_fragment(header, {"data": data})


def _levanter_component(entry: Entry, facts: Facts) -> dict[str, Any]:
    """Return where a component is: files of text, or a cache of tokens."""
    if entry.named or builder_of(entry.paths[0]) is not None:
        return {"source": {"type": "url", "train_urls": list(entry.paths)}}
    if len(entry.paths) > 1:
        raise ConfigError(
            f"{facts.tool}: domain {entry.domain!r}: {entry.paths[0]!r} is read as a cache of "
            "tokens, and only one is allowed; give one, or files of text such as .jsonl"
        )
    return {"cache_dir": entry.paths[0]}


def _levanter_stages(
    stages: Sequence[StageEntries], header: Header, facts: Facts, batch: int
) -> str:
    """Write weights from steps on, rounded to the ends of Levanter's blocks of sequences."""
    apart = LEVANTER_BLOCK // math.gcd(LEVANTER_BLOCK, batch)  # steps
    starts = [(one.start + apart // 2) // apart * apart for one in stages]
    for k, (before, start) in enumerate(pairwise(starts)):
        if before >= start:
            length = stages[k + 1].start - stages[k].start
            raise ConfigError(
                f"{facts.tool}: weights change every {apart} steps at most ({LEVANTER_BLOCK}"
                f" sequences), and stage {stages[k].name!r} has {length}; make it longer"
            )
    moved = [
        f"{one.name} from {one.start:,} to {start:,}"
        for one, start in zip(stages, starts, strict=True)
        if one.start != start
    ]
    if moved:
        blocks = f"Weights change at the ends of blocks of {LEVANTER_BLOCK:,} sequences"
        moves = f"first steps that were moved: {', '.join(moved)}"
        header = [*header, f"{blocks}, every {apart} steps; {moves}."]
    components = {e.domain: _levanter_component(e, facts) for one in stages for e in one.entries}
    weights = [
        [start, {e.domain: e.amount for e in one.entries}]
        for one, start in zip(stages, starts, strict=True)
    ]
    return yaml_fragment(header, {"data": {"components": components, "train_weights": weights}})


def _nanotron(entries: Entries, header: Header, facts: Facts) -> str:
    return _nanotron_stages([StageEntries("mixture", 0, tuple(entries))], header, facts, 1)


def _nanotron_stages(
    stages: Sequence[StageEntries], header: Header, facts: Facts, batch: int
) -> str:
    """Write data stages; nanotron counts its steps from 1."""
    written = []
    for one in stages:
        dataset = {
            "dataset_folder": [entry.paths[0] for entry in one.entries],
            "dataset_weights": [entry.amount for entry in one.entries],
        }
        data = {"dataset": dataset, "num_loading_workers": 1, "seed": 42}
        written.append({"name": one.name, "start_training_step": one.start + 1, "data": data})
    return yaml_fragment(header, {"data_stages": written})


_TITAN_IMPORTS = """\
from datasets import load_dataset
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import (
    DATASETS,
    HFDataSource,
    InterleavedHuggingFaceTextDataLoader,
)

"""


def _torchtitan(entries: Entries, header: Header, facts: Facts) -> str:
    # Each source is packed before they are interleaved, so that a weight is a share of the tokens.
    kinds = sorted({builder_of(entry.paths[0]) or "" for entry in entries})
    sources = "".join(
        f'        HFDataSource(dataset="{builder_of(entry.paths[0]) or "hub"}",'
        f" dataset_path={entry.paths[0]!r}, infinite=True, weight={entry.amount!r}),\n"
        for entry in entries
    )
    return (
        f"{commented(header)}{_TITAN_IMPORTS}"
        + "".join(map(_titan_dataset, kinds))
        + "\ndataloader = InterleavedHuggingFaceTextDataLoader.Config(\n"
        + f"    sources=[\n{sources}    ],\n)\n"
    )


def _titan_dataset(kind: str) -> str:
    loads = f'"{kind}", data_files=path' if kind else "path"
    return (
        f'DATASETS["{kind or "hub"}"] = DatasetConfig(\n    path="",\n'
        f'    loader=lambda path: load_dataset({loads}, split="train", streaming=True),\n'
        '    sample_processor=lambda sample: sample["text"],\n)\n'
    )


_PACKING = '''

def mixture(tokenizer, length=2048, text="text"):
    """Return sequences of `length` tokens, a dataset for `Trainer(train_dataset=...)`."""

    def packed(batch):
        end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        ids = [token for one in tokenizer(batch[text])["input_ids"] for token in one + end]
        rows = [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]
        return {"input_ids": rows, "labels": rows}

'''


def _transformers(entries: Entries, header: Header, facts: Facts) -> str:
    # Each domain is packed into sequences first, so that a probability is a share of the tokens.
    loads = "".join(f"        {loading_call(entry, facts)},\n" for entry in entries)
    chances = "".join(f"            {entry.amount!r},\n" for entry in entries)
    return (
        f"{commented(header)}from datasets import interleave_datasets, load_dataset\n{_PACKING}"
        f"    domains = [\n{loads}    ]\n"
        "    return interleave_datasets(\n"
        "        [\n"
        "            domain.map(packed, batched=True, remove_columns=domain.column_names)\n"
        "            for domain in domains\n"
        "        ],\n"
        f"        probabilities=[\n{chances}        ],\n"
        '        seed=0,\n        stopping_strategy="all_exhausted",\n    )\n'
    )


def _datasets(entries: Entries, header: Header, facts: Facts) -> str:
    loads = "".join(f"        {loading_call(entry, facts)},\n" for entry in entries)
    chances = "".join(f"        {entry.amount!r},\n" for entry in entries)
    return (
        f"{commented(header)}from datasets import interleave_datasets, load_dataset\n\n"
        "train_dataset = interleave_datasets(\n"
        f"    [\n{loads}    ],\n"
        f"    probabilities=[\n{chances}    ],\n"
        '    seed=0,\n    stopping_strategy="all_exhausted",\n)\n'
    )


def _axolotl(entries: Entries, header: Header, facts: Facts) -> str:
    listed = [one for entry in entries for one in _axolotl_passes(entry, facts)]
    return yaml_fragment(header, {"datasets": listed})


def _axolotl_passes(entry: Entry, facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield a domain as often as all of it is seen, and the rest of it as a slice."""
    pieces = len(facts.places(entry.domain))
    rows = max(1, round(facts.size(entry.domain) / facts.sample(entry.domain) / pieces))
    passes, rest = divmod(max(1, round(entry.amount)), rows)
    if passes > MAX_AXOLOTL_PASSES:
        raise ConfigError(
            f"{facts.tool}: domain {entry.domain!r} would be listed {passes} times, once a pass; at"
            f" most {MAX_AXOLOTL_PASSES} are written. Are its {facts.size(entry.domain):g} tokens"
            " right?"
        )
    for _ in range(passes):
        yield {"path": entry.paths[0], "type": "completion", "split": "train"}
    if rest:
        yield {"path": entry.paths[0], "type": "completion", "split": f"train[:{rest}]"}


def _llamafactory(entries: Entries, header: Header, facts: Facts) -> str:
    check_no_interpolation(entries, facts)
    for entry in entries:
        if "," in entry.label or entry.label != entry.label.strip():
            raise ConfigError(
                f"{facts.tool}: domain {entry.label!r}: names stand between commas there, and lose"
                " the spaces around them; rename the domain"
            )
    content = {
        "dataset": ",".join(entry.label for entry in entries),
        "mix_strategy": "interleave_over",
        "interleave_probs": ",".join(repr(entry.amount) for entry in entries),
    }
    return yaml_fragment([*header, *_dataset_info(entries)], content)


def _dataset_info(entries: Entries) -> list[str]:
    """Return LLaMA-Factory's dataset_info.json for domains that have a path."""
    lines = [
        f" {json.dumps(entry.label)}:"
        f" {json.dumps({'file_name': entry.paths[0], 'columns': {'prompt': 'text'}})}"
        for entry in entries
        if not entry.named
    ]
    if not lines:
        return []
    return ["dataset_info.json of dataset_dir:", "{", *",\n".join(lines).split("\n"), "}"]


def _swift(entries: Entries, header: Header, facts: Facts) -> str:
    check_stripped(entries, facts)
    for entry in entries:
        _check_swift_path(entry, facts)
    counts = [f"{entry.paths[0]}#{max(1, round(entry.amount))}" for entry in entries]
    return yaml_fragment(header, {"dataset": counts})


def _check_swift_path(entry: Entry, facts: Facts) -> None:
    """Check that `hub::path:subset#count` is read as the path that is meant."""
    path = entry.paths[0]
    hub, _, rest = path.partition("::")
    if (entry.named and ":" in path) or (rest and hub.lower() not in {"hf", "ms"}):
        raise ConfigError(
            f"{facts.tool}: reads a part of {path!r} of domain {entry.domain!r} as a hub or a"
            " subset, by its ':'; give another path with --paths"
        )
    if path.startswith("-"):
        raise ConfigError(
            f"{facts.tool}: takes {path!r} of domain {entry.domain!r} for an option; give another"
            " path with --paths, such as ./..."
        )


_BRIDGE_COMMAND = "process_config_with_overrides(recipe, config_filepath=FILE), then"
_TOOLS = (
    ExportTool(
        name="megatron",
        title="Megatron-LM",
        version="core 0.16.1 and main of 2026-08",
        unit=SEQUENCES,
        place="JSON, `train`: weight and path of each indexed dataset, one after the other",
        command="pretrain_gpt.py --per-split-data-args-path FILE, without --split and --data-path",
        write=_megatron,
        single_path=True,
        notes=(f"{INDEXED[:-1]}; valid and test are yours to fill.",),
    ),
    ExportTool(
        name="megatron-bridge",
        title="Megatron-Bridge, pretraining",
        version="0.3.1 and main of 2026-08",
        unit=SEQUENCES,
        place="YAML, `dataset.blend` of GPTDatasetConfig: paths, then weights",
        command=f"{_BRIDGE_COMMAND} pretrain",
        write=_megatron_bridge,
        single_path=True,
        notes=(INDEXED,),
    ),
    ExportTool(
        name="megatron-bridge-sft",
        title="Megatron-Bridge, fine-tuning on rows",
        version="main of 2026-08",
        unit=EPOCHS,
        place="YAML, `dataset.source_weights` of DirectHFSFTDatasetConfig",
        command=f"{_BRIDGE_COMMAND} finetune, for one pass over the blended rows",
        write=_megatron_bridge_sft,
    ),
    ExportTool(
        name="nemo",
        title="NeMo Automodel",
        version="0.7.0",
        unit=SEQUENCES,
        place="YAML, `dataset.paths`: weight and path of each indexed dataset, one after the other",
        command="put it into a recipe whose dataset is MegatronPretraining; automodel FILE",
        write=_nemo,
        single_path=True,
        notes=(INDEXED,),
    ),
    ExportTool(
        name="olmo-core",
        title="OLMo-core",
        version="3.0.0",
        unit=SEQUENCES,
        place="YAML, `sources`: target_ratio of each source",
        command="SourceMixtureDatasetConfig(source_list=SourceMixtureList.from_yaml(FILE))",
        write=_olmo_core,
        takes_zero=True,
        notes=("max_repetition_ratio is written where --tokens and --inventory are known.",),
    ),
    ExportTool(
        name="levanter",
        title="Levanter",
        version="marin-levanter 0.2.20",
        unit=SEQUENCES,
        place="YAML, `data.train_weights`",
        command="python -m levanter.main.train_lm --config_path FILE",
        write=_levanter,
        takes_zero=True,
        write_stages=_levanter_stages,
    ),
    # With a weight of 0 nanotron's greedy order can still draw from a folder.
    ExportTool(
        name="nanotron",
        title="nanotron",
        version="main of 2026-04",
        unit=SEQUENCES,
        place="YAML, `data_stages[0].data.dataset.dataset_weights` of a Nanoset",
        command="put it into a configuration; run_train.py --config-file FILE",
        write=_nanotron,
        single_path=True,
        write_stages=_nanotron_stages,
    ),
    ExportTool(
        name="torchtitan",
        title="torchtitan",
        version="0.3.0",
        unit=SEQUENCES,
        place="Python, `weight` of each HFDataSource",
        command="in a config_registry function: from FILE import dataloader",
        write=_torchtitan,
        single_path=True,
    ),
    ExportTool(
        name="transformers",
        title="Hugging Face transformers",
        version="5.24.0",
        unit=SEQUENCES,
        place="Python, a train_dataset of packed sequences",
        command="from FILE import mixture; Trainer(train_dataset=mixture(tokenizer), ...)",
        write=_transformers,
    ),
    ExportTool(
        name="axolotl",
        title="axolotl",
        version="0.19.0",
        unit=ROW_SLICES,
        place="YAML, `datasets`, an entry for each pass and `split` for the rest",
        command="axolotl train FILE, with num_epochs: 1",
        write=_axolotl,
        single_path=True,
        notes=("A slice is of the first rows: shuffle a file whose order means something before.",),
    ),
    ExportTool(
        name="llamafactory",
        title="LLaMA-Factory",
        version="0.9.5",
        unit=SAMPLES,
        place="YAML, `interleave_probs`",
        command="llamafactory-cli train FILE, with model and training in the same file",
        write=_llamafactory,
        single_path=True,
    ),
    ExportTool(
        name="swift",
        title="ms-swift",
        version="4.6.0",
        unit=COUNTS,
        place="YAML, `dataset: [path#count, ...]`",
        command="swift pt FILE --model ... (or swift sft), for one epoch",
        write=_swift,
        single_path=True,
    ),
    # With `all_exhausted` a dataset that is never drawn would never be exhausted.
    ExportTool(
        name="datasets",
        title="Hugging Face datasets",
        version="5.2.0",
        unit=SAMPLES,
        place="Python, `probabilities` of interleave_datasets",
        command="from FILE import train_dataset",
        write=_datasets,
    ),
)
EXPORT_TOOLS: Mapping[str, ExportTool] = {tool.name: tool for tool in _TOOLS}
