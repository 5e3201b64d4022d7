"""Gaussian processes over mixtures, and over mixtures and model sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt_regressors.gaussian.gaussian_process import (
        GaussianProcessRegressor as GaussianProcessRegressor,
    )
    from mixopt_regressors.gaussian.scaling import ScalingRegressor as ScalingRegressor
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "gaussian_process": ["GaussianProcessRegressor"],
            "scaling": ["ScalingRegressor"],
        },
    )
