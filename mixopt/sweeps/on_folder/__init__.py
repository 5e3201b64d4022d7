"""Train trials by tasks that share a folder: started with `mixopt work`, or a Slurm array."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.sweeps.on_folder.folder_executor import FolderExecutor as FolderExecutor
    from mixopt.sweeps.on_folder.slurm_executor import SlurmExecutor as SlurmExecutor
    from mixopt.sweeps.on_folder.work_folder import WorkFolder as WorkFolder, WorkOrder as WorkOrder
    from mixopt.sweeps.on_folder.work_gathering import (
        check_no_tasks as check_no_tasks,
        gather_results as gather_results,
    )
    from mixopt.sweeps.on_folder.work_share import WorkShare as WorkShare
    from mixopt.sweeps.on_folder.work_task import TaskServer as TaskServer
    from mixopt.sweeps.on_folder.work_view import (
        WorkTask as WorkTask,
        cancel_work as cancel_work,
        trial_log as trial_log,
        work_tasks as work_tasks,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "folder_executor": ["FolderExecutor"],
            "slurm_executor": ["SlurmExecutor"],
            "work_folder": ["WorkFolder", "WorkOrder"],
            "work_gathering": ["check_no_tasks", "gather_results"],
            "work_share": ["WorkShare"],
            "work_task": ["TaskServer"],
            "work_view": ["WorkTask", "cancel_work", "trial_log", "work_tasks"],
        },
    )
