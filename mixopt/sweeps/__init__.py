"""Train a list of trials in worker processes, on this machine or on a cluster's, resumably."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.sweeps.contract import (
        Executor as Executor,
        GroupOutcome as GroupOutcome,
        Job as Job,
        Place as Place,
        Report as Report,
        Site as Site,
        make_executor as make_executor,
    )
    from mixopt.sweeps.devices import WorkerDevice as WorkerDevice, worker_devices as worker_devices
    from mixopt.sweeps.groups_file import read_groups as read_groups
    from mixopt.sweeps.ledger import AttemptRecord as AttemptRecord, read_attempts as read_attempts
    from mixopt.sweeps.local_executor import LocalExecutor as LocalExecutor
    from mixopt.sweeps.progress_file import SweepState as SweepState, read_progress as read_progress
    from mixopt.sweeps.ray_executor import RayExecutor as RayExecutor
    from mixopt.sweeps.resumable import Means as Means, run_trials as run_trials
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "contract": [
                "Executor",
                "GroupOutcome",
                "Job",
                "Place",
                "Report",
                "Site",
                "make_executor",
            ],
            "devices": ["WorkerDevice", "worker_devices"],
            "groups_file": ["read_groups"],
            "ledger": ["AttemptRecord", "read_attempts"],
            "local_executor": ["LocalExecutor"],
            "progress_file": ["SweepState", "read_progress"],
            "ray_executor": ["RayExecutor"],
            "resumable": ["Means", "run_trials"],
        },
    )
