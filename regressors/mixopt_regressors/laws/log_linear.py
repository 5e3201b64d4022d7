"""The data mixing law: each loss is a floor plus the exponential of a linear function.

    L_m(w) = c_m + exp(sum_j t_mj w_j)

It is the law of Ye et al. (Data Mixing Laws), L = c + k exp(sum_j t_j w_j): because weights add
up to 1, k is the exponential of the mean of t, so it is not a parameter of its own. It is convex
in the mixture. Where trials hardly varied a domain the exponential is anything, and a prediction
is cut off at one range of the trials' losses above the highest. How it is fitted is in
`mixopt_regressors.laws.exponential`.

The standard deviation is that of a new trial by the delta method: residual spread times
sqrt(1 + j' H^-1 j), where j is the gradient by the parameters and H the fit's curvature.

Shapes: N trials, D domains, M targets, P = D + 1 parameters (c, then t).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.fitting import grouped_folds, row_groups, splits
from mixopt.system import Array
from mixopt_regressors.laws.exponential import ExponentialFit, exponential, jacobian
from mixopt_regressors.mixture_regressor import MixtureRegressor
from mixopt_regressors.plain_arrays import lower_triangles

PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
REACH = 1.0  # ranges of the trials' losses above the highest: more is not a prediction
STEPS = 15  # enough to compare penalties; the fit itself continues until a step gains nothing


class LogLinearRegressor(MixtureRegressor):
    """The data mixing law, one for each target.

    Attributes:
        slope_penalty: Strength of the prior on slopes: how many variances of the loss a squared
            slope of 1 costs. One for all targets or one each; None chooses from `PENALTIES` on
            held-out folds of the training rows.
        huber: Residuals beyond so many standard deviations (robustly estimated) count linearly,
            not squared; None squares all.
        folds: Held-out folds that choose the penalty.
        random_state: Seed of the folds.
    """

    by_target = (
        "floors_M", "slopes_MD", "scales_M", "noise_M", "inverse_MPP", "penalties_M", "tops_M",
    )  # fmt: skip

    def __init__(
        self,
        slope_penalty: float | Sequence[float] | None = None,
        huber: float | None = 3.0,
        folds: int = 5,
        random_state: int = 0,
    ) -> None:
        self.slope_penalty = slope_penalty
        self.huber = huber
        self.folds = folds
        self.random_state = random_state

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the slope of each loss by each weight at one mixture, shape (M, D)."""
        weights = self._checked(np.atleast_2d(np.asarray(weights_D, dtype=np.float64)))
        excess_M = exponential(weights, self.slopes_MD.T)[0]
        gradient: Array = (excess_M * self.scales_M)[:, None] * self.slopes_MD
        return gradient

    def plain_law(self) -> dict[str, Any]:
        """Return the law as plain numbers (mixopt.fitting.capabilities)."""
        return {
            "kind": "log_linear",
            "floors_M": self.floors_M,
            "slopes_MD": self.slopes_MD,
            "scales_M": self.scales_M,
            "tops_M": self.tops_M,
            "noise_M": self.noise_M,
            "inverse_MT": lower_triangles(self.inverse_MPP),
        }

    def tuned(self) -> Self:
        """Return a copy to fit again with the penalties that this one chose."""
        copy: Self = super().tuned()
        return copy.set_params(slope_penalty=[float(p) for p in self.penalties_M])  # type: ignore[no-any-return]

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        groups = row_groups(weights_ND)
        folds = min(self.folds, len(set(groups)))
        fold_N = grouped_folds(groups, folds, self.random_state) if folds > 1 else None
        fits = []
        for target, losses_N in enumerate(losses_NM.T):
            scale = float(losses_N.std()) or 1.0
            scaled_N = losses_N / scale
            penalty = self._penalty(target, weights_ND, scaled_N, fold_N)
            fits.append(self._fit_target(weights_ND, scaled_N, penalty, scale))
        for name in self.by_target:
            setattr(self, name, np.array([fit[name] for fit in fits]))

    def _penalty(self, target: int, weights_ND: Array, losses_N: Array, fold_N: Any) -> float:
        given = self.slope_penalty
        if given is not None:
            return float(given) if isinstance(given, (int, float)) else float(given[target])
        if fold_N is None:
            return max(PENALTIES)
        errors = [_held_out(weights_ND, losses_N, fold_N, penalty) for penalty in PENALTIES]
        return PENALTIES[int(np.argmin(errors))]

    def _fit_target(
        self, weights_ND: Array, losses_N: Array, penalty: float, scale: float
    ) -> dict[str, Any]:
        fit = ExponentialFit(weights_ND, losses_N, penalty).best()
        if self.huber is not None:
            fit = fit.robust(self.huber)
        noise, inverse_PP = fit.spread()
        return {
            "floors_M": fit.parameters_P[0] * scale,
            "slopes_MD": fit.parameters_P[1:],
            "scales_M": scale,
            "noise_M": noise * scale,
            "inverse_MPP": inverse_PP,
            "penalties_M": penalty,
            "tops_M": (losses_N.max() + REACH * np.ptp(losses_N)) * scale,
        }

    def _predict(self, weights_ND: Array) -> Array:
        excess_NM = exponential(weights_ND, self.slopes_MD.T)
        predicted: Array = np.minimum(self.floors_M + self.scales_M * excess_NM, self.tops_M)
        return predicted

    def _std(self, weights_ND: Array) -> Array:
        excess_NM = exponential(weights_ND, self.slopes_MD.T)
        stds = []
        for excess_N, inverse_PP in zip(excess_NM.T, self.inverse_MPP, strict=True):
            jacobian_NP = jacobian(weights_ND, excess_N)
            leverage_N = np.einsum("np,pq,nq->n", jacobian_NP, inverse_PP, jacobian_NP)
            stds.append(np.sqrt(1.0 + np.maximum(leverage_N, 0.0)))
        std: Array = np.stack(stds, axis=1) * self.noise_M
        return std


def _held_out(weights_ND: Array, losses_N: Array, fold_N: Any, penalty: float) -> float:
    """Return the squared error on held-out folds."""
    error = 0.0
    for train_N, held_out_N in splits(fold_N):
        fit = ExponentialFit(weights_ND[train_N], losses_N[train_N], penalty).best(
            starts=1, steps=STEPS
        )
        error += float(((fit.predict(weights_ND[held_out_N]) - losses_N[held_out_N]) ** 2).sum())
    return error
