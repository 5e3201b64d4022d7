"""Train a list of trials in worker processes, resumably."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.sweeps.executors import worker_devices as worker_devices
    from mixopt.sweeps.groups_file import read_groups as read_groups
    from mixopt.sweeps.progress_file import SweepState as SweepState, read_progress as read_progress
    from mixopt.sweeps.resumable import run_trials as run_trials
    from mixopt.sweeps.worker_process import Job as Job
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "executors": ["worker_devices"],
            "groups_file": ["read_groups"],
            "progress_file": ["SweepState", "read_progress"],
            "resumable": ["run_trials"],
            "worker_process": ["Job"],
        },
    )
