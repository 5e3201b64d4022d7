"""Downstream tasks: items of text, their tokens, and from log-probabilities to metrics.

A task is a file of items, each a context with choices of which one is the gold answer, or the gold
answer alone. `mixopt.corpus` encodes the items once; whoever has a model scores them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.tasks.encoded_task import TASK_FOLDER as TASK_FOLDER, EncodedTask as EncodedTask
    from mixopt.tasks.encoding import (
        Spans as Spans,
        TextTokens as TextTokens,
        encode_task as encode_task,
    )
    from mixopt.tasks.items import (
        Item as Item,
        chosen_items as chosen_items,
        read_items as read_items,
        text_fingerprint as text_fingerprint,
    )
    from mixopt.tasks.oddities import item_warnings as item_warnings
    from mixopt.tasks.scores import item_scores as item_scores, task_metrics as task_metrics
    from mixopt.tasks.task_files import open_tasks as open_tasks, write_task as write_task
    from mixopt.tasks.task_folder import (
        FolderTask as FolderTask,
        TaskNotes as TaskNotes,
        read_task_folder as read_task_folder,
    )
    from mixopt.tasks.task_windows import (
        TaskWindow as TaskWindow,
        cut_counts as cut_counts,
        row_windows as row_windows,
        windows_of as windows_of,
    )
    from mixopt.tasks.window_batches import (
        TaskBatches as TaskBatches,
        WindowBatch as WindowBatch,
        batched_windows as batched_windows,
        sums_by_row as sums_by_row,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "encoded_task": ["EncodedTask", "TASK_FOLDER"],
            "encoding": ["Spans", "TextTokens", "encode_task"],
            "oddities": ["item_warnings"],
            "items": ["Item", "chosen_items", "read_items", "text_fingerprint"],
            "scores": ["item_scores", "task_metrics"],
            "task_files": ["open_tasks", "write_task"],
            "task_folder": ["FolderTask", "TaskNotes", "read_task_folder"],
            "task_windows": ["TaskWindow", "cut_counts", "row_windows", "windows_of"],
            "window_batches": ["TaskBatches", "WindowBatch", "batched_windows", "sums_by_row"],
        },
    )
