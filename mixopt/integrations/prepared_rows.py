"""Rows that a trainer prepares itself: TRL's SFTTrainer tokenises, masks and packs its datasets.

It prepares one dataset when it is made. Here it is given each domain in turn, so that its own
chat template, loss masks and packing hold for all, and none of them holds rows of two domains. How
many rows a domain has is known only then, so what makes the batches is a function of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from datasets import Dataset

from mixopt.errors import SamplerError
from mixopt.loading import MixtureDataset

READY = "input_ids"


def checked_domains(domains: Any) -> dict[str, Dataset]:
    """Return the datasets that a trainer is to prepare, by domain."""
    if not isinstance(domains, Mapping) or not domains:
        raise SamplerError(
            "mixture=function makes the batches of rows that the trainer has prepared: give"
            " train_dataset={domain: dataset, ...}"
        )
    found = {name: _dataset(name, source) for name, source in domains.items()}
    for name, dataset in found.items():
        if not len(dataset):
            raise SamplerError(f"train_dataset: domain {name!r} has no rows")
    return found


def telling_row(domains: Mapping[str, Dataset], *, conversational: bool) -> Dataset:
    """Return the row by which a trainer is to tell which kind of losses and masks are asked for."""
    keys = [("messages", "conversations")] if conversational else []
    for wanted in [*keys, ("completion",)]:
        for dataset in domains.values():
            if set(wanted) & set(dataset.column_names):
                return dataset.select([0])
    return next(iter(domains.values())).select([0])


def ready_row(dataset: MixtureDataset, *, packs: bool) -> Dataset:
    """Return a row that stands for rows which need no preparation."""
    for name, columns in dataset.columns.items():
        needs = None if READY in columns else f"have no {READY!r}"
        if packs and "seq_lengths" not in columns:
            needs = "are as long as they are, and the trainer's packing=True packs what it prepares"
        if needs is not None:
            raise SamplerError(
                f"rows of domain {name!r} {needs}: give train_dataset={{domain: dataset, ...}} and"
                " mixture=function, which makes the MixtureLoader of the prepared datasets"
            )
    return Dataset.from_dict({READY: [[0]], "labels": [[0]]})


def prepared(
    domains: Mapping[str, Dataset], prepare: Callable[[Dataset], Any]
) -> dict[str, Dataset]:
    """Return the prepared rows of each domain."""
    rows = {name: prepare(dataset) for name, dataset in domains.items()}
    for name, dataset in rows.items():
        if not len(dataset):
            raise SamplerError(
                f"train_dataset: nothing of domain {name!r} is left when it is prepared: every"
                " token is masked, or cut off by max_length"
            )
    return rows


def _dataset(name: str, source: Any) -> Dataset:
    if isinstance(source, list):
        return Dataset.from_list(source)
    if not isinstance(source, Dataset):
        raise SamplerError(
            f"train_dataset: domain {name!r} is a {type(source).__name__}; a trainer prepares a"
            " datasets.Dataset, or a list of rows, of each domain"
        )
    return source
