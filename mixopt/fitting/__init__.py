"""From a table of trials to a `Fit` that predicts losses with 90% intervals.

Regressors compete on held-out folds beside trivial controls and the noise ceiling. What a
regressor can do beyond `fit` and `predict` is typed in `mixopt.fitting.capabilities`; pilots, model
sizes and repetition change what a fit predicts for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.fitting.aim import (
        ObjectiveLike as ObjectiveLike,
        objective_over as objective_over,
    )
    from mixopt.fitting.aimed_regressor import aimed as aimed
    from mixopt.fitting.capabilities import (
        Learner as Learner,
        Predictor as Predictor,
        Regressor as Regressor,
        SupportsCovariance as SupportsCovariance,
        SupportsCrossFit as SupportsCrossFit,
        SupportsDeviations as SupportsDeviations,
        SupportsExplanation as SupportsExplanation,
        SupportsGradient as SupportsGradient,
        SupportsMembers as SupportsMembers,
        SupportsParameters as SupportsParameters,
        SupportsPlainLaw as SupportsPlainLaw,
        SupportsRefit as SupportsRefit,
        SupportsSaving as SupportsSaving,
        SupportsSelection as SupportsSelection,
        SupportsSizes as SupportsSizes,
        SupportsWatching as SupportsWatching,
        parameters_called as parameters_called,
        supports_covariance as supports_covariance,
        supports_cross_fit as supports_cross_fit,
        supports_deviations as supports_deviations,
        supports_explanation as supports_explanation,
        supports_gradient as supports_gradient,
        supports_members as supports_members,
        supports_plain_law as supports_plain_law,
        supports_refit as supports_refit,
        supports_repetition as supports_repetition,
        supports_saving as supports_saving,
        supports_selection as supports_selection,
        supports_sizes as supports_sizes,
        supports_watching as supports_watching,
    )
    from mixopt.fitting.competition import fit_trials as fit_trials
    from mixopt.fitting.cross_validation import (
        grouped_folds as grouped_folds,
        out_of_fold as out_of_fold,
        row_groups as row_groups,
        spearman as spearman,
        splits as splits,
    )
    from mixopt.fitting.evaluation import evaluate as evaluate
    from mixopt.fitting.fit_data import FitData as FitData
    from mixopt.fitting.fit_files import (
        check_fit_files as check_fit_files,
        held_out_tables as held_out_tables,
    )
    from mixopt.fitting.fit_report import CEILING as CEILING
    from mixopt.fitting.fitted import Fit as Fit
    from mixopt.fitting.held_out_predictions import OBJECTIVE as OBJECTIVE
    from mixopt.fitting.intervals import conformal_quantile as conformal_quantile
    from mixopt.fitting.loss_readiness import (
        FitReadiness as FitReadiness,
        readiness as readiness,
    )
    from mixopt.fitting.loss_state import LossReadiness as LossReadiness
    from mixopt.fitting.model_sizes import ModelSize as ModelSize, asked_size as asked_size
    from mixopt.fitting.noise_ceiling import replicate_spread as replicate_spread
    from mixopt.fitting.pilot_correction import correct as correct
    from mixopt.fitting.pilot_objective import ObjectiveResidual as ObjectiveResidual
    from mixopt.fitting.pilots import aligned as aligned
    from mixopt.fitting.prefix_regret import (
        REGRET_COUNTS as REGRET_COUNTS,
        regret_by_trials as regret_by_trials,
    )
    from mixopt.fitting.refits import (
        Refitter as Refitter,
        ResampledFits as ResampledFits,
        resampled_fits as resampled_fits,
    )
    from mixopt.fitting.regressor import (
        fit_regressor as fit_regressor,
        make_regressor as make_regressor,
        predict_with_std as predict_with_std,
        read_regressor as read_regressor,
        select_targets as select_targets,
    )
    from mixopt.fitting.repetition import OFTEN as OFTEN, Repetition as Repetition
    from mixopt.fitting.table_fit import fit_table as fit_table
    from mixopt.fitting.trivial_controls import controls as controls
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "aimed_regressor": ["aimed"],
            "aim": ["ObjectiveLike", "objective_over"],
            "capabilities": [
                "Learner",
                "Predictor",
                "Regressor",
                "parameters_called",
                "supports_covariance",
                "supports_cross_fit",
                "supports_deviations",
                "supports_explanation",
                "supports_gradient",
                "supports_members",
                "supports_plain_law",
                "supports_refit",
                "supports_repetition",
                "supports_saving",
                "supports_selection",
                "supports_sizes",
                "supports_watching",
                "SupportsCovariance",
                "SupportsCrossFit",
                "SupportsDeviations",
                "SupportsExplanation",
                "SupportsGradient",
                "SupportsMembers",
                "SupportsParameters",
                "SupportsPlainLaw",
                "SupportsRefit",
                "SupportsSaving",
                "SupportsSelection",
                "SupportsSizes",
                "SupportsWatching",
            ],
            "competition": ["fit_trials"],
            "cross_validation": [
                "grouped_folds",
                "out_of_fold",
                "row_groups",
                "spearman",
                "splits",
            ],
            "evaluation": ["evaluate"],
            "fit_data": ["FitData"],
            "fit_files": ["check_fit_files", "held_out_tables"],
            "fit_report": ["CEILING"],
            "fitted": ["Fit"],
            "intervals": ["conformal_quantile"],
            "held_out_predictions": ["OBJECTIVE"],
            "loss_readiness": ["FitReadiness", "readiness"],
            "loss_state": ["LossReadiness"],
            "model_sizes": ["ModelSize", "asked_size"],
            "noise_ceiling": ["replicate_spread"],
            "pilot_correction": ["correct"],
            "pilot_objective": ["ObjectiveResidual"],
            "pilots": ["aligned"],
            "prefix_regret": ["REGRET_COUNTS", "regret_by_trials"],
            "refits": ["Refitter", "ResampledFits", "resampled_fits"],
            "regressor": [
                "fit_regressor",
                "make_regressor",
                "predict_with_std",
                "read_regressor",
                "select_targets",
            ],
            "repetition": ["OFTEN", "Repetition"],
            "table_fit": ["fit_table"],
            "trivial_controls": ["controls"],
        },
    )
