"""Estimators that change the mixture while training runs, by the entry points `mixopt.estimators`.

One frame for the family that Aioli calls linear mixing optimisation: an estimator makes one plan
at a time, is told what was consumed and lost under it, and makes the next (`base`). numpy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt_regressors.online.ado import ADOEstimator as ADOEstimator
    from mixopt_regressors.online.aioli import AioliEstimator as AioliEstimator
    from mixopt_regressors.online.doge import DoGEEstimator as DoGEEstimator
    from mixopt_regressors.online.doremi import DoReMiEstimator as DoReMiEstimator
    from mixopt_regressors.online.odm import ODMEstimator as ODMEstimator
    from mixopt_regressors.online.robust import RobustEstimator as RobustEstimator
    from mixopt_regressors.online.skill_it import SkillItEstimator as SkillItEstimator
    from mixopt_regressors.online.static import (
        NaturalEstimator as NaturalEstimator,
        StratifiedEstimator as StratifiedEstimator,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "ado": ["ADOEstimator"],
            "aioli": ["AioliEstimator"],
            "doge": ["DoGEEstimator"],
            "doremi": ["DoReMiEstimator"],
            "odm": ["ODMEstimator"],
            "robust": ["RobustEstimator"],
            "skill_it": ["SkillItEstimator"],
            "static": ["NaturalEstimator", "StratifiedEstimator"],
        },
    )
