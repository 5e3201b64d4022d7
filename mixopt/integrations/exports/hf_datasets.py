"""Hugging Face datasets: Python with `interleave_datasets(..., probabilities=...)`.

A probability is of drawing an example, so that shares of the tokens are divided by the mean tokens
of an example. With `all_exhausted` a dataset that is never drawn would never be exhausted, so that
weights of 0 are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.integrations.exports.export_tool import Entry, ExportTool
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.loading_code import interleaved, loading_call
from mixopt.integrations.exports.units import Samples
from mixopt.integrations.exports.yaml_fragment import commented


def _write(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
    loads = "".join(f"        {loading_call(entry, facts)},\n" for entry in entries)
    chances = "".join(f"        {entry.amount!r},\n" for entry in entries)
    return (
        f"{commented(header)}from datasets import interleave_datasets, load_dataset\n\n"
        "train_dataset = interleave_datasets(\n"
        f"    [\n{loads}    ],\n"
        f"    probabilities=[\n{chances}    ],\n"
        '    seed=0,\n    stopping_strategy="all_exhausted",\n)\n'
    )


DATASETS = ExportTool(
    name="datasets",
    title="Hugging Face datasets",
    version="5.2.0",
    unit=Samples(),
    place="Python, `probabilities` of interleave_datasets",
    command="from FILE import train_dataset",
    write=_write,
    read=interleaved,
)
