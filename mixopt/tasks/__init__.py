"""Downstream tasks: items of text, their tokens, and from log-probabilities to metrics.

A task is a file of items, each a context with choices of which one is the gold answer, or the gold
answer alone. `mixopt.corpus` encodes the items once; whoever has a model scores them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.tasks.batching import (
        TaskBatches as TaskBatches,
        WindowBatch as WindowBatch,
        sums_by_row as sums_by_row,
        window_batches as window_batches,
    )
    from mixopt.tasks.encoded_task import (
        TASK_FOLDER as TASK_FOLDER,
        EncodedTask as EncodedTask,
    )
    from mixopt.tasks.encoding import (
        Spans as Spans,
        TextTokens as TextTokens,
        encode_task as encode_task,
        scored_from as scored_from,
    )
    from mixopt.tasks.folder_check import (
        FolderCheck as FolderCheck,
        TaskSizes as TaskSizes,
        check_tasks as check_tasks,
    )
    from mixopt.tasks.items import (
        Item as Item,
        chosen_items as chosen_items,
        read_items as read_items,
        text_fingerprint as text_fingerprint,
    )
    from mixopt.tasks.oddities import (
        item_warnings as item_warnings,
    )
    from mixopt.tasks.overlap import AnswerFinder as AnswerFinder
    from mixopt.tasks.request_sets import (
        find_sets as find_sets,
    )
    from mixopt.tasks.scores import (
        item_scores as item_scores,
        task_metrics as task_metrics,
    )
    from mixopt.tasks.task_files import (
        open_tasks as open_tasks,
        write_task as write_task,
    )
    from mixopt.tasks.task_folder import (
        FolderTask as FolderTask,
        TaskNotes as TaskNotes,
        read_task_folder as read_task_folder,
    )
    from mixopt.tasks.task_import import (
        ImportedTask as ImportedTask,
        import_tasks as import_tasks,
    )
    from mixopt.tasks.task_windows import (
        TaskWindow as TaskWindow,
        cut_counts as cut_counts,
        row_windows as row_windows,
        windows_of as windows_of,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "batching": ["TaskBatches", "WindowBatch", "sums_by_row", "window_batches"],
            "encoded_task": ["EncodedTask", "TASK_FOLDER"],
            "encoding": ["Spans", "TextTokens", "encode_task", "scored_from"],
            "folder_check": ["FolderCheck", "TaskSizes", "check_tasks"],
            "items": ["Item", "chosen_items", "read_items", "text_fingerprint"],
            "oddities": ["item_warnings"],
            "overlap": ["AnswerFinder"],
            "request_sets": ["find_sets"],
            "scores": ["item_scores", "task_metrics"],
            "task_files": ["open_tasks", "write_task"],
            "task_folder": ["FolderTask", "TaskNotes", "read_task_folder"],
            "task_import": ["ImportedTask", "import_tasks"],
            "task_windows": ["TaskWindow", "cut_counts", "row_windows", "windows_of"],
        },
    )
