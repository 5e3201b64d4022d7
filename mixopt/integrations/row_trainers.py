"""Export tools of trainers that count rows: TRL, open-instruct, verl, Energon's metadatasets."""

from collections.abc import Sequence
from typing import Any

from mixopt.integrations.weight_units import COUNTS, SAMPLES, Entry, ExportTool, Facts, loader_of


def _trl(entries: Sequence[Entry], facts: Facts) -> Any:
    sources: list[dict[str, Any]] = []
    for entry in entries:
        builder = loader_of(entry, facts)
        files = {} if builder is None else {"data_files": list(entry.paths)}
        source = {"path": builder or entry.path, **files, "split": "train"}
        sources.append({**source, "fraction": entry.amount})
    return {"datasets": sources}


def _open_instruct(entries: Sequence[Entry], facts: Facts) -> Any:
    # A number without a decimal point counts rows; with one it is a fraction of the dataset.
    pairs = [part for entry in entries for part in (entry.path, str(round(entry.amount)))]
    return {"dataset_mixer_list": pairs, "dataset_mixer_list_splits": ["train"]}


def _energon(entries: Sequence[Entry], facts: Facts) -> Any:
    blend = [{"weight": entry.amount, "path": entry.path} for entry in entries]
    head = {"__module__": "megatron.energon", "__class__": "MetadatasetV2"}
    return {**head, "splits": {"train": {"blend": blend}}}


_VERL = '''\
import datasets
from verl.utils.dataset.rl_dataset import RLHFDataset

ROWS = {  # rows of one epoch, by file of data.train_files; larger numbers repeat the file
%s
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
            parts.append(rows.select([row %% len(rows) for row in range(ROWS[file])]))
        self.dataframe = self.maybe_filter_out_long_prompts(datasets.concatenate_datasets(parts))
'''


ROW_TOOLS = (
    ExportTool(
        name="trl",
        title="TRL",
        version="main of 2026-07 (1.10.0.dev0)",
        unit=SAMPLES,
        place="YAML, `fraction` of each of `datasets`",
        command="trl sft --config FILE, with the model in the same file, without streaming",
        write=_trl,
        notes=(
            "Takes the first rows of a domain, none twice: the scarcest domain limits the size.",
        ),
    ),
    ExportTool(
        name="open-instruct",
        title="open-instruct",
        version="main of 2026-08",
        unit=COUNTS,
        place="YAML, `dataset_mixer_list`: alternating datasets and numbers of rows",
        command="finetune.py FILE, for one epoch",
        write=_open_instruct,
        single_path=True,
    ),
    ExportTool(
        name="verl",
        title="verl",
        version="main of 2026-01 (0.8.0.dev)",
        unit=COUNTS,
        place="Python, a data.custom_cls that takes a number of rows of each file",
        command=(
            "data.custom_cls.path=FILE data.custom_cls.name=MixtureDataset and the files of ROWS"
            " as data.train_files"
        ),
        write=lambda entries, facts: (
            _VERL % "\n".join(f"    {entry.path!r}: {round(entry.amount)}," for entry in entries)
        ),
        suffix=".py",
        single_path=True,
    ),
    ExportTool(
        name="energon",
        title="Megatron-Energon",
        version="main of 2026-06 (7.4.0)",
        unit=SAMPLES,
        place="YAML, `splits.train.blend` of a MetadatasetV2",
        command="get_train_dataset(FILE, ...); add val and test yourself",
        write=_energon,
        single_path=True,
    ),
)
