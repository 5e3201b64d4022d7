"""Encode the tasks of an experiment into its corpus, by the corpus's own tokenizer."""

from __future__ import annotations

from pathlib import Path

from mixopt.config import TasksConfig
from mixopt.corpus.tokenizer import Tokenizer
from mixopt.errors import ConfigError
from mixopt.system import Say, local_copy, naming
from mixopt.tasks import (
    Item,
    chosen_items,
    encode_task,
    item_warnings,
    read_items,
    text_fingerprint,
    write_task,
)


def write_tasks(
    tasks: TasksConfig | None, tokenizer: Tokenizer, corpus: Path, progress: Say
) -> list[str]:
    """Read, choose and encode the items of all tasks; return the tasks' names.

    Args:
        tasks: The section of the configuration; None where there are no tasks.
        tokenizer: The corpus's.
        corpus: The folder of the corpus.
        progress: Receives a line for each task.

    Raises:
        ConfigError: A file of items cannot be read, or is wrong.
    """
    if tasks is None:
        return []
    seen: dict[str, str] = {}
    for name, one in tasks.sets.items():
        items = scored_items(tasks, name)
        normalisation = one.normalisation or tasks.normalisation
        encoded = encode_task(name, items, tasks.metrics(name), normalisation, tokenizer)
        write_task(encoded, corpus)
        counts = f"{encoded.items:,} items, {encoded.scored_tokens:,} tokens to score"
        progress(f"task {name}: {counts} of {len(encoded.tokens_T):,}")
        for line in item_warnings(items):
            progress(f"task {name}: warning: {line}")
        first = seen.setdefault(text_fingerprint(items), name)
        if first != name:
            progress(f"task {name}: warning: has the same items as task {first}, so both count")
    return list(tasks.sets)


def scored_items(tasks: TasksConfig, name: str) -> list[Item]:
    """Return the items of a task that are scored.

    Raises:
        ConfigError: The file of items cannot be read, or is wrong.
    """
    path = tasks.path(name)
    file = local_copy(path, ConfigError)
    with naming(file, path):
        return chosen_items(read_items(file), tasks.sets[name].items or tasks.items)
