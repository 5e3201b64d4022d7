"""Train a list of trials in worker processes, resumably."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.sweeps.executors import Job as Job
    from mixopt.sweeps.resumable import run_trials as run_trials
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "executors": ["Job"],
            "resumable": ["run_trials"],
        },
    )
