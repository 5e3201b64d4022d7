"""Regressors made of others: weighed by held-out folds, or averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt_regressors.combinations.auto import AutoRegressor as AutoRegressor
    from mixopt_regressors.combinations.ensemble import EnsembleRegressor as EnsembleRegressor
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "auto": ["AutoRegressor"],
            "ensemble": ["EnsembleRegressor"],
        },
    )
