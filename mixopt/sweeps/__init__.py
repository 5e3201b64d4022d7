"""Train a list of trials in worker processes, on this machine or on a cluster's, resumably."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.sweeps.contract import (
        Executor as Executor,
        GroupOutcome as GroupOutcome,
        Job as Job,
        OutlivesOwner as OutlivesOwner,
        Place as Place,
        Report as Report,
        Site as Site,
        cancel_submitted as cancel_submitted,
        going_on as going_on,
        make_executor as make_executor,
    )
    from mixopt.sweeps.devices import WorkerDevice as WorkerDevice, worker_devices as worker_devices
    from mixopt.sweeps.gpu_discovery import find_gpus as find_gpus
    from mixopt.sweeps.group_sizes import GroupSizes as GroupSizes
    from mixopt.sweeps.groups_file import read_groups as read_groups
    from mixopt.sweeps.ledger import (
        ATTEMPTS as ATTEMPTS,
        AttemptRecord as AttemptRecord,
        read_attempts as read_attempts,
    )
    from mixopt.sweeps.local_executor import LocalExecutor as LocalExecutor
    from mixopt.sweeps.on_folder.folder_executor import FolderExecutor as FolderExecutor
    from mixopt.sweeps.on_folder.slurm_executor import SlurmExecutor as SlurmExecutor
    from mixopt.sweeps.on_folder.work_folder import WorkFolder as WorkFolder, WorkOrder as WorkOrder
    from mixopt.sweeps.on_folder.work_share import WorkShare as WorkShare
    from mixopt.sweeps.on_folder.work_task import TaskServer as TaskServer
    from mixopt.sweeps.on_folder.work_view import (
        WorkTask as WorkTask,
        cancel_work as cancel_work,
        trial_log as trial_log,
        work_tasks as work_tasks,
    )
    from mixopt.sweeps.on_ray.ray_executor import RayExecutor as RayExecutor
    from mixopt.sweeps.progress_file import (
        GroupState as GroupState,
        SweepState as SweepState,
        read_progress as read_progress,
    )
    from mixopt.sweeps.resumable import FILES as FILES, Means as Means, run_trials as run_trials
    from mixopt.sweeps.sweep_metrics import METRICS as METRICS
    from mixopt.sweeps.totals import (
        NodeTotals as NodeTotals,
        SweepTotals as SweepTotals,
        sweep_totals as sweep_totals,
    )
    from mixopt.sweeps.worker_logs import (
        LogPart as LogPart,
        is_plain as is_plain,
        logs_in as logs_in,
        part_of as part_of,
    )
    from mixopt.sweeps.workplace import Workplace as Workplace
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "contract": [
                "Executor",
                "GroupOutcome",
                "Job",
                "OutlivesOwner",
                "Place",
                "Report",
                "Site",
                "cancel_submitted",
                "going_on",
                "make_executor",
            ],
            "devices": ["WorkerDevice", "worker_devices"],
            "gpu_discovery": ["find_gpus"],
            "group_sizes": ["GroupSizes"],
            "groups_file": ["read_groups"],
            "ledger": ["ATTEMPTS", "AttemptRecord", "read_attempts"],
            "local_executor": ["LocalExecutor"],
            "on_folder.folder_executor": ["FolderExecutor"],
            "on_folder.slurm_executor": ["SlurmExecutor"],
            "on_folder.work_folder": ["WorkFolder", "WorkOrder"],
            "on_folder.work_share": ["WorkShare"],
            "on_folder.work_task": ["TaskServer"],
            "on_folder.work_view": ["WorkTask", "cancel_work", "trial_log", "work_tasks"],
            "on_ray.ray_executor": ["RayExecutor"],
            "progress_file": ["GroupState", "SweepState", "read_progress"],
            "resumable": ["FILES", "Means", "run_trials"],
            "sweep_metrics": ["METRICS"],
            "totals": ["NodeTotals", "SweepTotals", "sweep_totals"],
            "worker_logs": ["LogPart", "is_plain", "logs_in", "part_of"],
            "workplace": ["Workplace"],
        },
    )
