"""The rows of a task as windows of a model's length: nothing is dropped, each token scored once.

A context that does not fit is cut from the left. An answer that is longer than the window goes in
pieces, each with half a window before it.

Shapes: W windows, T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.system import IntArray
from mixopt.tasks.encoded_task import EncodedTask


class TaskWindow(NamedTuple):
    """A part of a row that a model reads at once.

    Attributes:
        row: Number of the row in its task.
        tokens: What is read, and the last token that is predicted; at least two tokens.
        scored: Where the first token is that is scored, >= 1; all after it are.
    """

    row: int
    tokens: NDArray[Any]
    scored: int


def windows_of(task: EncodedTask, length: int) -> Iterator[TaskWindow]:
    """Give the windows of a task's rows, in order.

    Args:
        task: The task.
        length: Most tokens that a model predicts at once, >= 1; a window has one more.
    """
    for number, scored in enumerate(task.scored_R.tolist()):
        yield from row_windows(number, task.row(number), scored, length)


def row_windows(
    number: int, tokens: NDArray[Any], scored: int, length: int
) -> Iterator[TaskWindow]:
    """Give the windows of one row.

    Args:
        number: That of the row.
        tokens: Its tokens.
        scored: Where the first one is that is scored, >= 1.
        length: Most tokens that a model predicts at once, >= 1.
    """
    first, end = scored, len(tokens)
    while first < end:
        fits = end - first <= length
        stop = end if fits else min(first + max(length // 2, 1), end)
        begin = max(0, stop - length - 1)
        yield TaskWindow(number, tokens[begin:stop], first - begin)
        first = stop


def cut_counts(task: EncodedTask, length: int) -> dict[str, int]:
    """Return how many rows have their context cut at a length, and how many go in pieces."""
    sizes_R = np.diff(task.start_R)
    answers_R: IntArray = sizes_R - task.scored_R
    long_R = answers_R > length
    cut_R = (sizes_R - 1 > length) & ~long_R
    return {"contexts_cut": int(cut_R.sum()), "answers_in_pieces": int(long_R.sum())}
