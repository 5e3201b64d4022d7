"""Hugging Face transformers: Python that packs each domain into sequences and interleaves them.

transformers has no mixture of its own: its Trainer takes a dataset. Each domain is cut into
sequences of one length first, and those are interleaved, so that a probability is a share of the
tokens. Without packing, probabilities are of samples (`mixopt export --to datasets`).
"""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.integrations.exports.export_tool import Entry, ExportTool
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.loading_code import interleaved, loading_call
from mixopt.integrations.exports.units import Sequences
from mixopt.integrations.exports.yaml_fragment import commented

_PACKING = '''

def mixture(tokenizer, length=2048, text="text"):
    """Return sequences of `length` tokens, a dataset for `Trainer(train_dataset=...)`."""

    def packed(batch):
        end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        ids = [token for one in tokenizer(batch[text])["input_ids"] for token in one + end]
        rows = [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]
        return {"input_ids": rows, "labels": rows}

'''


def _write(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
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


TRANSFORMERS = ExportTool(
    name="transformers",
    title="Hugging Face transformers",
    version="5.24.0",
    unit=Sequences(),
    place="Python, a train_dataset of packed sequences",
    command="from FILE import mixture; Trainer(train_dataset=mixture(tokenizer), ...)",
    write=_write,
    read=interleaved,
)
