from .columns import (
    ITEMS as ITEMS,
    LOSS as LOSS,
    MAX_LOSS as MAX_LOSS,
    PREFIX as PREFIX,
    WEIGHT as WEIGHT,
    Unit as Unit,
    listed as listed,
    loss_column as loss_column,
    schema as schema,
)
from .first_round import (
    ANNEAL as ANNEAL,
    CONTROL as CONTROL,
    MIN_WEIGHT as MIN_WEIGHT,
    SAME_MIXTURE as SAME_MIXTURE,
    anneal_mixtures as anneal_mixtures,
    design_constraints as design_constraints,
    first_stage as first_stage,
    make_design as make_design,
    read_design as read_design,
    trial_seeds as trial_seeds,
    write_design as write_design,
)
from .readiness import (
    MIN_MIXTURES as MIN_MIXTURES,
    Readiness as Readiness,
    Replicates as Replicates,
    State as State,
    check_trials as check_trials,
    noise_by_seeds as noise_by_seeds,
    readiness_of as readiness_of,
    settled as settled,
    trials_fingerprint as trials_fingerprint,
    without_flat_tasks as without_flat_tasks,
)
from .reindexing import carried_to as carried_to
from .stages import stage_limits as stage_limits
from .table import Trials as Trials
from .trial import (
    Losses as Losses,
    Role as Role,
    Status as Status,
    Trial as Trial,
    TrialResult as TrialResult,
)
