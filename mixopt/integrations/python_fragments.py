"""Python files that build a trainer's dataset: templates, and their placeholder lines."""

from collections.abc import Sequence

from mixopt.integrations.export_interface import Entry, Facts, builder_of, loader_of

# Lines that are replaced by one line per entry.
PLACEHOLDERS = ("SOURCE", "LOADS", "CHANCES", "FILE_ROWS")

# Sources are packed before they are interleaved, so that a weight is a share of the tokens.
TORCHTITAN = """\
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
TRANSFORMERS = '''\
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

DATASETS = """\
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

VERL = '''\
import datasets
from verl.utils.dataset.rl_dataset import RLHFDataset

ROWS = {  # rows of one epoch, by file of data.train_files; larger numbers repeat the file
    FILE_ROWS,
}


class MixtureDataset(RLHFDataset):
    """The rows of each file in ROWS; other files, such as validation files, are read completely."""

    def _read_files_and_tokenize(self):
        if not set(self.original_data_files) <= set(ROWS):
            super()._read_files_and_tokenize()
            return
        parts = []
        for local, file in zip(self.data_files, self.original_data_files):
            kind = "json" if file.endswith(".json") else "parquet"
            rows = datasets.load_dataset(kind, data_files=local)["train"].shuffle(seed=0)
            parts.append(rows.select([row % len(rows) for row in range(ROWS[file])]))
        self.dataframe = self.maybe_filter_out_long_prompts(datasets.concatenate_datasets(parts))
'''


def python_fragment(template: str, entries: Sequence[Entry], facts: Facts) -> str:
    """Replace the placeholder lines of a template by one line per entry."""
    lines: list[str] = []
    for line in template.splitlines():
        text = line.lstrip()
        indent = line[: len(line) - len(text)]
        placeholder = text.rstrip(",")
        if placeholder in PLACEHOLDERS:
            lines += [f"{indent}{_content(placeholder, entry, facts)}," for entry in entries]
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _content(placeholder: str, entry: Entry, facts: Facts) -> str:
    """Return what replaces a placeholder for one entry."""
    if placeholder == "SOURCE":
        return repr((builder_of(entry.path), entry.path, entry.amount))
    if placeholder == "LOADS":
        return _loading_call(entry, facts)
    if placeholder == "FILE_ROWS":
        return f"{entry.path!r}: {round(entry.amount)}"
    return repr(entry.amount)


def _loading_call(entry: Entry, facts: Facts) -> str:
    """Return the Python call that loads a domain: its files, or a folder or hub dataset by name."""
    builder = loader_of(entry, facts)
    if builder is None:
        return f'load_dataset({entry.path!r}, split="train", streaming=True)'
    files = list(entry.paths)
    return f'load_dataset("{builder}", data_files={files!r}, split="train", streaming=True)'
