from .opening import load_run as load_run, open_run as open_run, working_in as working_in
from .run import (
    Outcome as Outcome,
    Run as Run,
    base_losses as base_losses,
    carried_trials as carried_trials,
    commit_of as commit_of,
    is_sent as is_sent,
    repetition_of as repetition_of,
    request_of as request_of,
    stated_objective as stated_objective,
    usable_trials as usable_trials,
    verify_run as verify_run,
)
from .step_log import CheckedPart as CheckedPart
from .steps import (
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
    steps_until as steps_until,
)
from .trial_records import (
    StartRecord as StartRecord,
    TrialExperts as TrialExperts,
    collapsed_trials as collapsed_trials,
    measure_start as measure_start,
)
