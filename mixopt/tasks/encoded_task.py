"""A task as token ids: the scored tokens of each row, and its item and choice.

Shapes: I items, R rows (a context with an answer), T tokens of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.system import Array, IntArray

TASK_FOLDER = "tasks"  # of a corpus


@dataclass(frozen=True)
class EncodedTask:
    """Rows of a task. A row begins with the end-of-document token, as training documents do.

    Attributes:
        name: The task.
        metrics: What is measured; the first is the task's own.
        normalisation: What choices are compared by.
        tokens_T: Token ids of all rows, one after the other.
        start_R: Where each row begins, and at last where the last one ends, shape (R + 1,).
        scored_R: Where in its row the first token is that is scored; all after it are.
        bytes_R: Bytes of UTF-8 that these tokens stand for.
        characters_R: Characters of the answer.
        item_R: Number of the item.
        choice_R: Number of the choice; -1 - choice where the context has no question.
        gold_I: The gold choice of each item.
        weight_I: How much each item counts.
        ids: Ids of the items.
    """

    name: str
    metrics: tuple[str, ...]
    normalisation: str
    tokens_T: NDArray[Any]
    start_R: IntArray
    scored_R: IntArray
    bytes_R: IntArray
    characters_R: IntArray
    item_R: IntArray
    choice_R: IntArray
    gold_I: IntArray
    weight_I: Array
    ids: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Count the rows."""
        return len(self.scored_R)

    @property
    def items(self) -> int:
        """Count the items."""
        return len(self.gold_I)

    @property
    def scored_tokens(self) -> int:
        """Count the tokens that are scored."""
        return int((np.diff(self.start_R) - self.scored_R).sum())

    def row(self, number: int) -> NDArray[Any]:
        """Return the tokens of a row."""
        return self.tokens_T[self.start_R[number] : self.start_R[number + 1]]
