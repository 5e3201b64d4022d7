from .aimed_regressor import aimed as aimed
from .capabilities import (
    Abilities as Abilities,
    Learner as Learner,
    Predictor as Predictor,
    Regressor as Regressor,
    SupportsDeviations as SupportsDeviations,
    parameters_called as parameters_called,
    supports as supports,
    supports_deviations as supports_deviations,
    supports_repetition as supports_repetition,
    supports_saving as supports_saving,
    supports_sizes as supports_sizes,
)
from .competition import fit_table as fit_table, fit_trials as fit_trials
from .cross_validation import (
    grouped_folds as grouped_folds,
    out_of_fold as out_of_fold,
    row_groups as row_groups,
    spearman as spearman,
    splits as splits,
)
from .evaluation import evaluate as evaluate
from .fit_data import (
    FitData as FitData,
    ObjectiveLike as ObjectiveLike,
    objective_over as objective_over,
)
from .fit_files import check_fit_files as check_fit_files, held_out_tables as held_out_tables
from .fitted import Fit as Fit
from .held_out import (
    CEILING as CEILING,
    OBJECTIVE as OBJECTIVE,
    controls as controls,
    replicate_spread as replicate_spread,
)
from .intervals import conformal_quantile as conformal_quantile
from .loss_readiness import (
    FitReadiness as FitReadiness,
    LossReadiness as LossReadiness,
    readiness as readiness,
)
from .model_sizes import ModelSize as ModelSize, asked_size as asked_size
from .pilot_correction import ObjectiveResidual as ObjectiveResidual, correct as correct
from .pilots import aligned as aligned
from .refits import (
    Refitter as Refitter,
    ResampledFits as ResampledFits,
    resampled_fits as resampled_fits,
)
from .regressor import (
    OFTEN as OFTEN,
    Repetition as Repetition,
    fit_regressor as fit_regressor,
    make_regressor as make_regressor,
    predict_with_std as predict_with_std,
    read_regressor as read_regressor,
    select_targets as select_targets,
)
