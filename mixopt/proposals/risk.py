"""What a search adds to a prediction for being unsure of it.

A regressor's optimum is where its errors are lucky. Minimising the mean plus some standard
deviations, or a high quantile over refits on resampled trials, prefers a mixture of which the
trials are sure over one that is predicted a little better.

Shapes: N mixtures, B refits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixopt.fitting import predict_with_std
from mixopt.objective import Objective
from mixopt.system import Array


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
    refits: Sequence[Any] = ()

    def value(self, regressor: Any, objective: Objective, weights_ND: Array) -> Array:
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
