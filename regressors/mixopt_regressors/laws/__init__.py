"""Parametric laws from shares or epochs to losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt_regressors.laws.epochs import EpochsRegressor as EpochsRegressor
    from mixopt_regressors.laws.log_linear import LogLinearRegressor as LogLinearRegressor
    from mixopt_regressors.laws.power import PowerRegressor as PowerRegressor
    from mixopt_regressors.laws.skills import SkillsRegressor as SkillsRegressor
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "epochs": ["EpochsRegressor"],
            "log_linear": ["LogLinearRegressor"],
            "power": ["PowerRegressor"],
            "skills": ["SkillsRegressor"],
        },
    )
