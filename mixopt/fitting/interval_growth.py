"""By how much intervals widen beyond the sizes of the trials.

Held-out folds of mixtures tell nothing of a size that no trial has. So the largest size is held
out: the regressor is fitted on the smaller ones and predicts it. Intervals that hold 90% of its
trials on 90% of the losses are wider than the fit's by some factor. What that factor is above 1,
for a unit of log size that the held-out trials are beyond the others, is the growth. Intervals at a
size are wider by 1 + growth times how far it is beyond all trials.

Shapes: N trials, M evaluation domains.
"""

from __future__ import annotations

import numpy as np

from mixopt.fitting.fitted import Fit
from mixopt.fitting.intervals import conformal_quantile
from mixopt.fitting.regressor import fit_regressor, predict_with_std


def growth_beyond(fit: Fit) -> float:
    """Return the growth of a fit's intervals for a unit of log size, >= 0.

    Args:
        fit: Of mixtures and sizes, whose intervals do not grow yet; 0 where it predicts within the
            sizes of its trials, or where those are of one size.
    """
    sizes = fit.data.sizes
    if fit.size is None or sizes.count < 2 or not sizes.beyond(fit.size):
        return 0.0
    size, held_N = sizes.largest()
    rows, losses_NM = fit.rows(), fit.data.losses_NM
    smaller = fit.data.make(fit.name)
    fitted = fit_regressor(fit.name, smaller, rows[~held_N], losses_NM[~held_N])
    means_NM, stds_NM = predict_with_std(fitted, rows[held_N])
    pairs = zip(fit.calibrations, stds_NM.T, strict=True)
    halves_NM = np.stack([one.halves(std_N) for one, std_N in pairs], axis=1)
    times_NM = np.abs(losses_NM[held_N] - means_NM) / halves_NM
    # A loss is off at a size in all mixtures together: losses count, not trials.
    times_M = np.array([conformal_quantile(times_N) for times_N in times_NM.T])
    return max(conformal_quantile(times_M) - 1.0, 0.0) / sizes.beyond(size, ~held_N)
