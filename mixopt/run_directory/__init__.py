"""What a run has on disk, and whether each output is of this configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.run_directory.run import (
        EXPERTS_OF as EXPERTS_OF,
        STEPS as STEPS,
        TRIAL_FOLDERS as TRIAL_FOLDERS,
        Run as Run,
        collapsed_trials as collapsed_trials,
        differences as differences,
        load_run as load_run,
        open_run as open_run,
        working_in as working_in,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "run": [
                "EXPERTS_OF",
                "Run",
                "STEPS",
                "TRIAL_FOLDERS",
                "collapsed_trials",
                "differences",
                "load_run",
                "open_run",
                "working_in",
            ],
        },
    )
