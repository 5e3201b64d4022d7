"""Writers of each trainer's configuration fragment, and the table of all tools.

A name or path that a format cannot express is refused, never changed.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from mixopt.errors import ConfigError
from mixopt.integrations.row_trainers import ROW_TOOLS
from mixopt.integrations.weight_units import (
    COUNTS,
    EPOCHS,
    ROW_SLICES,
    SAMPLES,
    SEQUENCES,
    Entry,
    ExportTool,
    Facts,
    Noted,
    StageEntries,
    builder_of,
    loader_of,
)

LEVANTER_BLOCK = 2048  # sequences; the default of Levanter's mixture_block_size
MAX_AXOLOTL_PASSES = 1000
INDEXED = "A path is the prefix of a .bin and an .idx file."

Entries = Sequence[Entry]


def _pairs(entries: Entries) -> list[str]:
    """Return alternating weights and paths, as Megatron's get_blend_from_list reads them."""
    return [part for entry in entries for part in (repr(entry.amount), entry.path)]


def _bridge_sft(entries: Entries, facts: Facts) -> Any:
    sources: list[dict[str, Any]] = []
    for entry in entries:
        builder = builder_of(entry.path)
        source: dict[str, Any] = {"path_or_dataset": entry.path, "split": "train"}
        if builder is not None or len(entry.paths) > 1:
            files = list(entry.paths) if len(entry.paths) > 1 else entry.path
            source["path_or_dataset"] = builder or "json"
            source["load_kwargs"] = {"data_files": {"train": files}}
        sources.append(source)
    return {"dataset": {"source": sources, "source_weights": [entry.amount for entry in entries]}}


def _olmo_core(entries: Entries, facts: Facts) -> Any:
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


def _levanter(entries: Entries, facts: Facts) -> Any:
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


def _levanter_stages(stages: Sequence[StageEntries], facts: Facts, batch: int) -> Any:
    """Return weights by first step, rounded to the ends of Levanter's blocks of sequences."""
    interval = LEVANTER_BLOCK // math.gcd(LEVANTER_BLOCK, batch)  # steps
    starts = [(stage.start + interval // 2) // interval * interval for stage in stages]
    for k, (before, start) in enumerate(pairwise(starts)):
        if before >= start:
            length = stages[k + 1].start - stages[k].start
            raise ConfigError(
                f"{facts.tool}: weights change at most every {interval} steps ({LEVANTER_BLOCK}"
                f" sequences), but stage {stages[k].name!r} has {length}; make it longer"
            )
    pairs = list(zip(stages, starts, strict=True))
    components = _components([entry for stage in stages for entry in stage.entries], facts)
    weights = [[at, {entry.domain: entry.amount for entry in s.entries}] for s, at in pairs]
    content = {"data": {"components": components, "train_weights": weights}}
    moved = [f"{s.name} from {s.start:,} to {at:,}" for s, at in pairs if s.start != at]
    if not moved:
        return content
    blocks = f"Weights change at the ends of blocks of {LEVANTER_BLOCK:,} sequences"
    moves = f"moved first steps: {', '.join(moved)}"
    return Noted(content, [f"{blocks}, every {interval} steps; {moves}."])


def _nanotron(stages: Sequence[StageEntries], facts: Facts, batch: int) -> Any:
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


# Sources are packed before they are interleaved, so that a weight is a share of the tokens.
_TITAN = """\
SOURCES = [  # of `load_dataset`: builder of files, or None; files, or a name; share of the tokens
    SOURCE,
]

try:  # the main branch
    from torchtitan.components.data import (
        ConcatThenSplitPackingConfig,
        DatasetMixConfig,
        GrainDataLoader,
        HuggingFaceStreamingSource,
        SingleDatasetConfig,
        WeightedDataset,
    )
    from torchtitan.hf_datasets.text_datasets import TextProcessor
except ImportError:  # 0.3
    from datasets import load_dataset
    from torchtitan.hf_datasets import DatasetConfig
    from torchtitan.hf_datasets.text_datasets import (
        DATASETS,
        HFDataSource,
        InterleavedHuggingFaceTextDataLoader,
    )

    def stream(builder):
        files = {"path": builder} if builder else {}
        name = "data_files" if builder else "path"
        return lambda path: load_dataset(**files, **{name: path}, split="train", streaming=True)

    for builder in {one[0] for one in SOURCES}:
        DATASETS[builder or "hub"] = DatasetConfig(
            path="", loader=stream(builder), sample_processor=lambda sample: sample["text"]
        )
    sources = [
        HFDataSource(dataset=builder or "hub", dataset_path=path, infinite=True, weight=weight)
        for builder, path, weight in SOURCES
    ]
    dataloader = InterleavedHuggingFaceTextDataLoader.Config(sources=sources)
else:

    def packed(builder, path):
        files = {"data_files": path} if builder else {}
        texts = SingleDatasetConfig(
            source=HuggingFaceStreamingSource.Config(
                path=builder or path, split="train", load_dataset_kwargs=files
            ),
            processor=TextProcessor.Config(),
            post_filters=(lambda sample: sample is not None,),
        )
        return ConcatThenSplitPackingConfig(dataset=texts)

    datasets = [
        WeightedDataset(dataset=packed(builder, path), weight=weight)
        for builder, path, weight in SOURCES
    ]
    dataloader = GrainDataLoader.Config(dataset=DatasetMixConfig(datasets=tuple(datasets)))
"""


# Domains are packed into sequences first, so that a probability is a share of the tokens.
_TRANSFORMERS = '''\
from datasets import interleave_datasets, load_dataset


def mixture(tokenizer, length=2048, text="text"):
    """Return sequences of `length` tokens, a dataset for `Trainer(train_dataset=...)`."""

    def packed(batch):
        end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        ids = [token for one in tokenizer(batch[text])["input_ids"] for token in one + end]
        rows = [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]
        return {"input_ids": rows, "labels": rows}

    domains = [
        LOADS,
    ]
    return interleave_datasets(
        [
            domain.map(packed, batched=True, remove_columns=domain.column_names)
            for domain in domains
        ],
        probabilities=[
            CHANCES,
        ],
        seed=0,
        stopping_strategy="all_exhausted",
    )
'''
_DATASETS = """\
from datasets import interleave_datasets, load_dataset

train_dataset = interleave_datasets(
    [
        LOADS,
    ],
    probabilities=[
        CHANCES,
    ],
    seed=0,
    stopping_strategy="all_exhausted",
)
"""


def _python(template: str, entries: Entries, facts: Facts) -> str:
    """Replace the placeholder lines of a template by one line per domain."""
    output = []
    for line in template.splitlines():
        text = line.lstrip()
        make = _LINES.get(text.rstrip(","))
        indent = line[: len(line) - len(text)]
        lines = None if make is None else [make(entry, facts) for entry in entries]
        output += [line] if lines is None else [f"{indent}{content}," for content in lines]
    return "\n".join(output) + "\n"


def _loading_call(entry: Entry, facts: Facts) -> str:
    """Return the Python call that loads a domain: its files, or a folder or hub dataset by name."""
    builder = loader_of(entry, facts)
    if builder is None:
        return f'load_dataset({entry.path!r}, split="train", streaming=True)'
    files = list(entry.paths)
    return f'load_dataset("{builder}", data_files={files!r}, split="train", streaming=True)'


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
    for split in ["train"] * passes + ([f"train[:{rest}]"] if rest else []):
        yield {"path": entry.path, "type": "completion", "split": split}


def _llamafactory(entries: Entries, facts: Facts) -> Any:
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
    info = [
        f" {json.dumps(entry.label)}:"
        f" {json.dumps({'file_name': entry.path, 'columns': {'prompt': 'text'}})}"
        for entry in entries
        if not entry.named
    ]
    lines = ["dataset_info.json of dataset_dir:", "{", *",\n".join(info).split("\n"), "}"]
    return Noted(content, lines if info else [])


def _swift(entries: Entries, facts: Facts) -> Any:
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


_LINES: dict[str, Callable[[Entry, Facts], str]] = {
    "SOURCE": lambda entry, facts: repr((builder_of(entry.path), entry.path, entry.amount)),
    "LOADS": _loading_call,
    "CHANCES": lambda entry, facts: repr(entry.amount),
}
_BRIDGE_COMMAND = "process_config_with_overrides(recipe, config_filepath=FILE), then"
_TOOLS = (
    ExportTool(
        name="megatron",
        title="Megatron-LM",
        version="core 0.16.1 and main of 2026-08",
        unit=SEQUENCES,
        place="JSON, `train`: alternating weights and paths of indexed datasets",
        command="pretrain_gpt.py --per-split-data-args-path FILE, without --split and --data-path",
        write=lambda entries, facts: {"train": _pairs(entries), "valid": None, "test": None},
        suffix=".json",
        strips=True,
        single_path=True,
        notes=(f"{INDEXED[:-1]}; fill in valid and test yourself.",),
    ),
    ExportTool(
        name="megatron-bridge",
        title="Megatron-Bridge, pretraining",
        version="0.3.1 and main of 2026-08",
        unit=SEQUENCES,
        place="YAML, `dataset.blend` of GPTDatasetConfig: paths, then weights",
        command=f"{_BRIDGE_COMMAND} pretrain",
        write=lambda entries, facts: {
            "dataset": {"blend": [[e.path for e in entries], [e.amount for e in entries]]}
        },
        strips=True,
        interpolates=True,
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
        write=_bridge_sft,
        interpolates=True,
    ),
    ExportTool(
        name="nemo",
        title="NeMo Automodel",
        version="0.7.0",
        unit=SEQUENCES,
        place="YAML, `dataset.paths`: alternating weights and paths of indexed datasets",
        command="put it into a recipe whose dataset is MegatronPretraining; automodel FILE",
        write=lambda entries, facts: {"dataset": {"paths": _pairs(entries)}},
        strips=True,
        interpolates=True,
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
        notes=(
            "max_repetition_ratio is written if --tokens and --inventory are known.",
            "Files are rounded down to whole sequences: if fewer are selected than requested, the",
            "last steps belong to a second epoch; end the run at the selected number.",
        ),
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
    # nanotron's greedy order can draw from a folder of weight 0.
    ExportTool(
        name="nanotron",
        title="nanotron",
        version="main of 2026-04",
        unit=SEQUENCES,
        place="YAML, `data_stages[0].data.dataset.dataset_weights` of a Nanoset",
        command="put it into a configuration; run_train.py --config-file FILE",
        write=lambda entries, facts: _nanotron([StageEntries("mixture", 0, entries)], facts, 1),
        single_path=True,
        write_stages=_nanotron,
    ),
    ExportTool(
        name="torchtitan",
        title="torchtitan",
        version="0.3.0 and main of 2026-08",
        unit=SEQUENCES,
        place="Python, `weight` of each HFDataSource, or WeightedDataset of the main branch",
        command="in a config_registry function: from FILE import dataloader",
        write=partial(_python, _TITAN),
        suffix=".py",
        single_path=True,
    ),
    ExportTool(
        name="transformers",
        title="Hugging Face transformers",
        version="5.24.0",
        unit=SEQUENCES,
        place="Python, a train_dataset of packed sequences",
        command="from FILE import mixture; Trainer(train_dataset=mixture(tokenizer), ...)",
        write=partial(_python, _TRANSFORMERS),
        suffix=".py",
    ),
    ExportTool(
        name="axolotl",
        title="axolotl",
        version="0.19.0",
        unit=ROW_SLICES,
        place="YAML, `datasets`: one entry per pass, and a `split` for the remainder",
        command="axolotl train FILE, with num_epochs: 1",
        write=lambda entries, facts: {
            "datasets": [item for entry in entries for item in _axolotl_passes(entry, facts)]
        },
        single_path=True,
        notes=("A slice takes the first rows: shuffle files whose rows are sorted.",),
    ),
    ExportTool(
        name="llamafactory",
        title="LLaMA-Factory",
        version="0.9.5",
        unit=SAMPLES,
        place="YAML, `interleave_probs`",
        command="llamafactory-cli train FILE, with model and training in the same file",
        write=_llamafactory,
        interpolates=True,
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
        strips=True,
        single_path=True,
    ),
    # With `all_exhausted` a dataset of probability 0 would never be exhausted.
    ExportTool(
        name="datasets",
        title="Hugging Face datasets",
        version="5.2.0",
        unit=SAMPLES,
        place="Python, `probabilities` of interleave_datasets",
        command="from FILE import train_dataset",
        write=partial(_python, _DATASETS),
        suffix=".py",
    ),
)
EXPORT_TOOLS: Mapping[str, ExportTool] = {tool.name: tool for tool in (*_TOOLS, *ROW_TOOLS)}
