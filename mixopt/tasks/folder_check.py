"""Check a folder of tasks: items, sizes, oddities and duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mixopt.tasks.encoding import TextTokens, encode_task
from mixopt.tasks.items import Item
from mixopt.tasks.oddities import item_warnings
from mixopt.tasks.task_folder import FolderTask
from mixopt.tasks.task_windows import cut_counts

MEASURED = "bits_per_byte"


@dataclass(frozen=True)
class TaskSizes:
    """What there is of a task.

    Attributes:
        name: The task.
        family: Its family, where it has one.
        items: How many.
        choices: Most answers of an item.
        context_bytes: Mean bytes of the context of the gold answer.
        answer_bytes: Mean bytes of the gold answer.
        tokens: Tokens to read for the gold answers of all items; None without a tokenizer.
        scored_tokens: How many of them are scored.
        contexts_cut: Items whose context does not fit a model's length; None without one.
        answers_in_pieces: Items whose answer does not.
        warnings: What is odd of its items, a line each.
    """

    name: str
    family: str | None
    items: int
    choices: int
    context_bytes: float
    answer_bytes: float
    tokens: int | None
    scored_tokens: int | None
    contexts_cut: int | None
    answers_in_pieces: int | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class FolderCheck:
    """What there is of a folder of tasks.

    Attributes:
        tasks: Each task, in the order of the names.
        doubled: A line for each two tasks that have items of the same text.
    """

    tasks: tuple[TaskSizes, ...]
    doubled: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return {"tasks": [one.to_json() for one in self.tasks], "doubled": list(self.doubled)}


def check_tasks(
    tasks: Mapping[str, FolderTask], tokenizer: TextTokens | None = None, length: int | None = None
) -> FolderCheck:
    """Read all items of some tasks, and measure them.

    Args:
        tasks: By name, as `read_task_folder` found them.
        tokenizer: Counts tokens; not counted when None.
        length: Most tokens that a model predicts at once; asks for a tokenizer.

    Raises:
        ConfigError: A file cannot be read, or an item is wrong.
    """
    sizes, texts = [], {}
    for name, task in tasks.items():
        items = list(task.items())
        sizes.append(_sizes(task, items, tokenizer, length))
        texts[name] = {hash((item.contexts, item.choices)) for item in items}
    return FolderCheck(tuple(sizes), tuple(_doubled(texts)))


def _sizes(
    task: FolderTask, items: list[Item], tokenizer: TextTokens | None, length: int | None
) -> TaskSizes:
    contexts = [len(item.contexts[item.gold].encode()) for item in items]
    answers = [len(item.answer.encode()) for item in items]
    encoded = tokenizer and encode_task(task.name, items, [MEASURED], "none", tokenizer)
    cut = cut_counts(encoded, length) if encoded and length else {}
    return TaskSizes(
        task.name,
        task.notes.family,
        len(items),
        max(len(item.choices) for item in items),
        float(np.mean(contexts)),
        float(np.mean(answers)),
        len(encoded.tokens_T) if encoded else None,
        encoded.scored_tokens if encoded else None,
        cut.get("contexts_cut"),
        cut.get("answers_in_pieces"),
        tuple(item_warnings(items)),
    )


def _doubled(texts: Mapping[str, set[int]]) -> Iterator[str]:
    for first, second in combinations(texts, 2):
        both = len(texts[first] & texts[second])
        if both:
            smaller = min(len(texts[first]), len(texts[second]))
            again = "all" if both == smaller else f"{both:,}"
            yield f"{first} and {second} share {again} of {smaller:,} items: use only one of them"
