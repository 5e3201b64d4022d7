"""The effective-data power law: each loss falls as a power of how much useful data there is.

    L_m(w) = c_m + k_m (e_m + sum_j A_mj w_j)^(-g_m)

A domain is worth A_mj of what target m learns from, which saturates: the first percent of the
domain that matters lowers a loss more than the next ten. It is the simplest law with that, it is
convex in the mixture, and with few trials it extrapolates better than what interpolates. Fits work
with an equal form that has no redundant parameters (`mixopt_regressors.laws.power_fit`); how they
are found is in `mixopt_regressors.laws.power_fit`.

The penalty is chosen on held-out folds of the training rows, one for all targets: a few dozen
trials say too little about each.

The standard deviation is that of a new trial by the delta method: residual spread times
sqrt(1 + j' H^-1 j), where j is the gradient by the parameters and H the fit's curvature.

Shapes: N trials, D domains, M targets, F fits side by side, P = D + 2 parameters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.fitting import grouped_folds, row_groups
from mixopt.system import Array
from mixopt_regressors.laws.power_fit import (
    STEPS,
    PowerFits,
    PowerMeans,
    leverage,
)
from mixopt_regressors.mixture_regressor import (
    MixtureRegressor,
    plain_roots,
    root_of,
)

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-6)
WARM_STEPS = 6  # of a refit; it then moves .93 as far as one that starts from scratch
FOLD_STEPS = 10  # enough to compare penalties; each starts where the one before it ended


class PowerRegressor(MixtureRegressor):
    """The effective-data power law, one for each target.

    Attributes:
        penalty: Strength of the prior on how much the mixture moves the loss, in variances of
            the loss; None chooses from `PENALTIES` on held-out folds of the training rows.
        huber: Residuals beyond so many standard deviations (robustly estimated) count linearly,
            not squared; None squares all.
        starts: Points of the grid from which each fit goes downhill; the lowest is kept.
        folds: Held-out folds that choose the penalty.
        random_state: Seed of the folds.
    """

    # fmt: off
    by_target = (
        "floors_M", "log_decays_M", "logs_MD", "scales_M", "noise_M", "inverse_MPP",
    )
    # fmt: on
    shared = ("penalty_",)

    def __init__(
        self,
        penalty: float | None = None,
        huber: float | None = 3.0,
        starts: int = 4,
        folds: int = 5,
        random_state: int = 0,
    ) -> None:
        self.penalty = penalty
        self.huber = huber
        self.starts = starts
        self.folds = folds
        self.random_state = random_state

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the slope of each loss by each weight at one mixture, shape (M, D)."""
        weights = self._checked(np.atleast_2d(np.asarray(weights_D, dtype=np.float64)))
        slopes_MD = self.scales_M[:, None] * self._means(weights).by_weight()[0]
        return np.asarray(slopes_MD, dtype=np.float64)

    def covariance(self, weights_KD: ArrayLike, loads_M: ArrayLike) -> Array:
        """Return the covariance of a weighted sum of the losses, noise left out, shape (K, K)."""
        weights, scales_M = self._checked(weights_KD), np.asarray(loads_M) * self.noise_M
        total_KK = np.zeros((len(weights), len(weights)))
        for target in np.flatnonzero(scales_M):
            means = PowerMeans(weights, self.logs_MD[[target]], self.log_decays_M[[target]])
            jacobian_KP = scales_M[target] * means.by_parameter()[0]
            total_KK += jacobian_KP @ self.inverse_MPP[target] @ jacobian_KP.T
        return total_KK

    def plain_law(self) -> dict[str, Any]:
        """Return the law as plain numbers (mixopt.fitting.capabilities)."""
        return {
            "kind": "power",
            "floors_M": self.floors_M,
            "scales_M": self.scales_M,
            "log_decays_M": self.log_decays_M,
            "logs_MD": self.logs_MD,
            "noise_M": self.noise_M,
            **plain_roots(np.array([root_of(inverse_PP) for inverse_PP in self.inverse_MPP])),
        }

    def tuned(self) -> Self:
        """Return a copy to fit again with the penalty that this one chose."""
        copy = self.chosen()
        copy._start = (self.floors_M, self.log_decays_M, self.logs_MD, self.scales_M)
        return copy

    def chosen(self) -> Self:
        """Return a copy to fit again with the penalty that this one chose."""
        copy: Self = super().tuned()
        return copy.set_params(penalty=float(self.penalty_))  # type: ignore[no-any-return]

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        centres_M, scales_M = losses_NM.mean(axis=0), losses_NM.std(axis=0)
        scales_M = np.where(scales_M > 1e-12 * (1.0 + np.abs(centres_M)), scales_M, 1.0)
        scaled_MN = ((losses_NM - centres_M) / scales_M).T
        given = self.penalty
        penalty = self._chosen(weights_ND, scaled_MN) if given is None else float(given)
        self.penalty_ = np.array(penalty)
        fits = PowerFits(weights_ND, scaled_MN, np.ones_like(scaled_MN), penalty)
        start_FP = self._start_at(centres_M, scales_M, fits)
        if start_FP is None:
            steps, fits = STEPS, fits.best(self.starts)
        else:
            steps = WARM_STEPS
            fits = replace(fits, parameters_FP=start_FP).inside().descend(steps)
        if self.huber is not None:
            fits = fits.robust(self.huber, steps)
        self._keep(fits, centres_M, scales_M)

    def _start_at(self, centres_M: Array, scales_M: Array, fits: PowerFits) -> Array | None:
        """Return where a refit starts, shape (M, P); None where it starts from scratch."""
        floors_M, log_decays_M, logs_MD, own_M = getattr(self, "_start", [np.empty((0, 0))] * 4)
        if logs_MD.shape != (len(fits.losses_FN), fits.weights_ND.shape[1]):
            return None
        logs_MD = logs_MD + np.log(own_M / scales_M)[:, None]
        floors_M = (floors_M - centres_M) / scales_M
        return np.column_stack([floors_M, log_decays_M, logs_MD])

    def _chosen(self, weights_ND: Array, losses_MN: Array) -> float:
        """Return the penalty with the least squared error on held-out folds."""
        groups = row_groups(weights_ND)
        folds = min(self.folds, len(set(groups)))
        if folds < 2:
            return max(PENALTIES)
        fold_N = grouped_folds(groups, folds, self.random_state)
        seen_FN = np.repeat(np.arange(folds)[:, None] != fold_N, len(losses_MN), axis=0)
        losses_FN = np.tile(losses_MN, (folds, 1))
        fits = PowerFits(weights_ND, losses_FN, seen_FN.astype(np.float64), PENALTIES[0]).best(1)
        errors = []
        for penalty in PENALTIES:
            fits = replace(fits, penalty=penalty).descend(FOLD_STEPS)
            errors.append(float((fits.residuals() ** 2)[~seen_FN].sum()))
        return PENALTIES[int(np.argmin(errors))]

    def _keep(self, fits: PowerFits, centres_M: Array, scales_M: Array) -> None:
        noise_M, inverse_MPP = fits.spread()
        self.floors_M = centres_M + scales_M * fits.parameters_FP[:, 0]
        self.log_decays_M = fits.parameters_FP[:, 1]
        self.logs_MD = fits.parameters_FP[:, 2:]
        self.scales_M = scales_M
        self.noise_M = scales_M * noise_M
        self.inverse_MPP = inverse_MPP

    def _means(self, weights_ND: Array) -> PowerMeans:
        return PowerMeans(weights_ND, self.logs_MD, self.log_decays_M)

    def _predict(self, weights_ND: Array) -> Array:
        predicted: Array = self.floors_M + self.scales_M * self._means(weights_ND).heights_NK
        return predicted

    def _std(self, weights_ND: Array) -> Array:
        leverage_MN = leverage(self._means(weights_ND).by_parameter(), self.inverse_MPP)
        std: Array = self.noise_M * np.sqrt(1.0 + np.maximum(leverage_MN.T, 0.0))
        return std
