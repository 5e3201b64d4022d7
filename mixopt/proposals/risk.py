"""What a search adds to a prediction to account for its uncertainty.

A regressor's optimum is where its errors are lucky. Minimising the mean plus some standard
deviations, or a high quantile over refits on resampled trials, prefers a mixture that the trials
are sure about over one that is predicted a little better.

Shapes: N mixtures, B refits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from mixopt.errors import ConfigError
from mixopt.fitting import Predictor, predict_with_std
from mixopt.objective import Objective
from mixopt.system import Array

if TYPE_CHECKING:
    from mixopt.config import RiskConfig
    from mixopt.fitting import Fit


@dataclass(frozen=True, eq=False)
class Risk:
    """Either so many standard deviations, or a quantile over refits.

    Attributes:
        deviations: Of the regressor's own standard deviations, added to its mean.
        quantile: Of the refits' objectives, in place of the mean; needs `refits`.
        refits: Regressors fitted on resampled trials, of the same losses.
    """

    deviations: float = 0.0
    quantile: float | None = None
    refits: Sequence[Predictor] = ()

    @classmethod
    def from_config(
        cls, config: RiskConfig | None, fit: Fit, refits: Sequence[Predictor]
    ) -> Self | None:
        """Build the risk that a configuration states; None where it states none.

        Raises:
            ConfigError: A quantile without refits, or deviations of a regressor without any.
        """
        if config is None:
            return None
        if config.quantile is not None:
            if not refits:
                raise ConfigError("propose.risk.quantile: needs propose.bootstrap of at least 1")
            return cls(quantile=config.quantile, refits=refits)
        assert config.std is not None
        if not fit.held_out_stds().any():
            raise ConfigError(
                f"propose.risk.std: {fit.name} gives no standard deviations; use"
                " propose.risk.quantile, or a regressor that gives them, such as auto"
            )
        return cls(deviations=config.std)

    def value(self, regressor: Predictor, objective: Objective, weights_ND: Array) -> Array:
        """Return what is minimised in place of the predicted objective, shape (N,)."""
        if self.quantile is not None:
            values_BN = [
                objective.value(np.asarray(one.predict(weights_ND)).reshape(len(weights_ND), -1))
                for one in self.refits
            ]
            high_N: Array = np.quantile(values_BN, self.quantile, axis=0)
            return high_N
        losses_NM, stds_NM = predict_with_std(regressor, weights_ND)
        return objective.value(losses_NM) + self.deviations * objective.spread(stds_NM)
