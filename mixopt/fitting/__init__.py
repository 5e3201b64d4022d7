"""From a table of trials to a `Fit` that predicts losses with 90% intervals.

Regressors compete on held-out folds beside trivial controls and the noise ceiling. What a
regressor can do beyond `fit` and `predict` is typed in `mixopt.fitting.regressor`; pilots, model
sizes and repetition change what a fit predicts for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.fitting.competition import fit_trials as fit_trials
    from mixopt.fitting.cross_validation import (
        grouped_folds as grouped_folds,
        out_of_fold as out_of_fold,
        row_groups as row_groups,
        spearman as spearman,
        splits as splits,
    )
    from mixopt.fitting.evaluation import evaluate as evaluate
    from mixopt.fitting.fit_report import CEILING as CEILING, OBJECTIVE as OBJECTIVE
    from mixopt.fitting.fitted import Fit as Fit
    from mixopt.fitting.model_sizes import Size as Size, asked_size as asked_size
    from mixopt.fitting.noise_ceiling import replicate_spread as replicate_spread
    from mixopt.fitting.pilot_correction import correct as correct
    from mixopt.fitting.pilots import aligned as aligned
    from mixopt.fitting.regressor import (
        can_be_saved as can_be_saved,
        fit_regressor as fit_regressor,
        make_regressor as make_regressor,
        predict_with_std as predict_with_std,
        read_regressor as read_regressor,
        select_targets as select_targets,
    )
    from mixopt.fitting.repetition import Repetition as Repetition
    from mixopt.fitting.table_fit import ObjectiveLike as ObjectiveLike, fit_table as fit_table
    from mixopt.fitting.trivial_controls import controls as controls
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "competition": ["fit_trials"],
            "cross_validation": [
                "grouped_folds",
                "out_of_fold",
                "row_groups",
                "spearman",
                "splits",
            ],
            "evaluation": ["evaluate"],
            "fit_report": ["CEILING", "OBJECTIVE"],
            "fitted": ["Fit"],
            "model_sizes": ["Size", "asked_size"],
            "noise_ceiling": ["replicate_spread"],
            "pilot_correction": ["correct"],
            "pilots": ["aligned"],
            "regressor": [
                "can_be_saved",
                "fit_regressor",
                "make_regressor",
                "predict_with_std",
                "read_regressor",
                "select_targets",
            ],
            "repetition": ["Repetition"],
            "table_fit": ["ObjectiveLike", "fit_table"],
            "trivial_controls": ["controls"],
        },
    )
