from .checks import (
    MIN_MIXTURES as MIN_MIXTURES,
    check_trials as check_trials,
    trials_fingerprint as trials_fingerprint,
    without_flat_tasks as without_flat_tasks,
)
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
from .noise import (
    Noise as Noise,
    NoiseSource as NoiseSource,
    mixtures_and_sizes as mixtures_and_sizes,
    pooled_std as pooled_std,
)
from .readiness import (
    Readiness as Readiness,
    State as State,
    noise_of_trials as noise_of_trials,
    readiness_of as readiness_of,
    settled as settled,
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
