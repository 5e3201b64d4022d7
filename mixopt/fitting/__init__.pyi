from .backtest import Backtest as Backtest, backtest_trials as backtest_trials
from .competition import (
    fit_table as fit_table,
    fit_trials as fit_trials,
    fit_unit as fit_unit,
    prepared as prepared,
)
from .evaluation import evaluate as evaluate
from .factors import Factor as Factor, Offer as Offer
from .fit_data import (
    FitData as FitData,
    ModelSize as ModelSize,
    ObjectiveLike as ObjectiveLike,
    objective_over as objective_over,
    size_groups as size_groups,
)
from .fit_files import fit_content as fit_content, held_out_report as held_out_report
from .fitted import SAME as SAME, Fit as Fit
from .held_out import CEILING as CEILING, OBJECTIVE as OBJECTIVE, controls as controls
from .intervals import conformal_quantile as conformal_quantile
from .pilots import (
    CarriedRegressor as CarriedRegressor,
    Correction as Correction,
    Lines as Lines,
    aligned as aligned,
)
from .power import ArmPower as ArmPower, power as power
from .rank_correlation import rank_correlations as rank_correlations, spearman as spearman
from .regressor import (
    OFTEN as OFTEN,
    Abilities as Abilities,
    Predictor as Predictor,
    Regressor as Regressor,
    Repetition as Repetition,
    fit_regressor as fit_regressor,
    grouped_folds as grouped_folds,
    make_regressor as make_regressor,
    out_of_fold as out_of_fold,
    parameters_called as parameters_called,
    predict_losses as predict_losses,
    predict_with_std as predict_with_std,
    read_regressor as read_regressor,
    roots_alike as roots_alike,
    row_groups as row_groups,
    select_targets as select_targets,
    splits as splits,
    supports as supports,
    supports_deviations as supports_deviations,
    supports_repetition as supports_repetition,
    supports_saving as supports_saving,
    supports_sizes as supports_sizes,
)
from .signal import (
    FitReadiness as FitReadiness,
    LossReadiness as LossReadiness,
    noise_of as noise_of,
    objective_noise as objective_noise,
    readiness as readiness,
)
