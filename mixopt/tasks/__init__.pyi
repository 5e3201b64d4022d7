from .batching import (
    TaskBatches as TaskBatches,
    WindowBatch as WindowBatch,
    sums_by_row as sums_by_row,
    window_batches as window_batches,
)
from .encoded_task import TASK_FOLDER as TASK_FOLDER, EncodedTask as EncodedTask
from .encoding import (
    Spans as Spans,
    TextTokens as TextTokens,
    encode_task as encode_task,
    scored_from as scored_from,
)
from .folder_check import (
    FolderCheck as FolderCheck,
    TaskSizes as TaskSizes,
    check_tasks as check_tasks,
)
from .items import (
    Item as Item,
    chosen_items as chosen_items,
    read_items as read_items,
    text_fingerprint as text_fingerprint,
)
from .oddities import item_warnings as item_warnings
from .overlap import AnswerFinder as AnswerFinder
from .request_sets import find_sets as find_sets
from .scores import item_scores as item_scores, task_metrics as task_metrics
from .task_files import open_tasks as open_tasks, write_task as write_task
from .task_folder import (
    FolderTask as FolderTask,
    TaskNotes as TaskNotes,
    read_task_folder as read_task_folder,
)
from .task_import import ImportedTask as ImportedTask, import_tasks as import_tasks
from .task_windows import (
    TaskWindow as TaskWindow,
    cut_counts as cut_counts,
    row_windows as row_windows,
    windows_of as windows_of,
)
