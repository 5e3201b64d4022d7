"""The contents of a run directory, and whether each output matches the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.run_directory.opening import (
        load_run as load_run,
        open_run as open_run,
        working_in as working_in,
    )
    from mixopt.run_directory.run import Run as Run
    from mixopt.run_directory.step import (
        DESIGN as DESIGN,
        FIT as FIT,
        LATER_PROPOSALS as LATER_PROPOSALS,
        PREPARE as PREPARE,
        PROPOSE as PROPOSE,
        RECOMMENDATION as RECOMMENDATION,
        REPORT as REPORT,
        STEPS as STEPS,
        SWEEP as SWEEP,
        VALIDATE as VALIDATE,
        Step as Step,
        step_named as step_named,
        steps_before as steps_before,
    )
    from mixopt.run_directory.step_fingerprints import differences as differences
    from mixopt.run_directory.step_records import recorded_files as recorded_files
    from mixopt.run_directory.trial_collapses import collapsed_trials as collapsed_trials
    from mixopt.run_directory.verification import (
        CheckedPart as CheckedPart,
        verify_run as verify_run,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "opening": ["load_run", "open_run", "working_in"],
            "run": ["Run"],
            "trial_collapses": ["collapsed_trials"],
            "step_fingerprints": ["differences"],
            "step_records": ["recorded_files"],
            "verification": ["CheckedPart", "verify_run"],
            "step": [
                "DESIGN",
                "FIT",
                "LATER_PROPOSALS",
                "PREPARE",
                "PROPOSE",
                "RECOMMENDATION",
                "REPORT",
                "STEPS",
                "SWEEP",
                "Step",
                "VALIDATE",
                "step_named",
                "steps_before",
            ],
        },
    )
