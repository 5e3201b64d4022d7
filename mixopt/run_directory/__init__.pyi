from .expert_table import TrialExperts as TrialExperts, write_experts as write_experts
from .opening import load_run as load_run, open_run as open_run, working_in as working_in
from .run import Run as Run, collapsed_trials as collapsed_trials
from .start_record import (
    START_FILE as START_FILE,
    StartRecord as StartRecord,
    measure_start as measure_start,
)
from .step import (
    ACTING as ACTING,
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
    differences as differences,
    step_named as step_named,
    steps_before as steps_before,
    steps_from as steps_from,
)
from .verification import CheckedPart as CheckedPart, verify_run as verify_run
