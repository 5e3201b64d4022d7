"""The data mixing law: each loss is a floor plus the exponential of a linear function.

    L_m(w) = c_m + exp(sum_j t_mj w_j)

It is the law of Ye et al. (Data Mixing Laws), L = c + k exp(sum_j t_j w_j): because weights add
up to 1, k is the exponential of the mean of t, so it is not a parameter of its own. It is convex
in the mixture. Where trials hardly varied a domain the exponential is anything, and a prediction
is cut off at one range of the trials' losses above the highest.

Data Mixing Laws and Olmix fit it from hundreds to thousands of random starts of L-BFGS. Given the
floor c, though, log(L - c) is linear in the weights, so a grid over c with one small weighted
least-squares problem each finds the valley, and a few Levenberg-Marquardt steps on all parameters
find its floor: seconds become milliseconds. Huber's weights keep single outlying trials from
pulling. A normal prior keeps fits finite with fewer trials than domains. It is on how far slopes
are from their mean times the height of the losses over the floor, which is how much the mixture
moves the loss.

Shapes: N trials, D domains, M targets, P = D + 1 parameters (c, then t).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.fitting import splits
from mixopt.system import Array
from mixopt_regressors.mixture_regressor import MixtureRegressor, delta_stds

LOWEST_FLOOR = 30.0  # standard deviations below the least loss
FLOORS_BELOW = np.geomspace(0.01, 27.0, 16)
STARTS = 3
STEPS = 60
ENOUGH = 1e-5  # a step that gains a smaller part of the loss is the last
MAX_EXPONENT = 30.0  # far above any loss in standard deviations, and the exponential is finite


@dataclass(frozen=True)
class ExponentialFit:
    """Penalised weighted least squares for one target, and the parameters reached so far."""

    weights_ND: Array
    losses_N: Array
    penalty: float
    trust_N: Array | None = None
    parameters_P: Array = None  # type: ignore[assignment]

    def best(self, starts: int = STARTS, steps: int = STEPS) -> ExponentialFit:
        """Return the fit at the lowest point that the best starts lead to."""
        grid = (self._at(self.losses_N.min() - below) for below in FLOORS_BELOW)
        ranked = sorted(grid, key=ExponentialFit.loss)[:starts]
        return min((start.descend(steps) for start in ranked), key=ExponentialFit.loss)

    def predict(self, weights_ND: Array) -> Array:
        """Return losses, shape (N,)."""
        predicted: Array = self.parameters_P[0] + exponential(weights_ND, self.parameters_P[1:])
        return predicted

    def loss(self) -> float:
        """Return the penalised sum of squares."""
        apart_D = self._apart()
        squares = self._trusted() @ self.residuals() ** 2
        return float(squares + self.penalty * self._height() ** 2 * (apart_D @ apart_D))

    def descend(self, steps: int = STEPS) -> ExponentialFit:
        """Go downhill by Levenberg-Marquardt until a step gains nothing."""
        here, loss, damping = self, self.loss(), 1e-3
        for _ in range(steps):
            there = here._step(damping)
            gain = loss - there.loss()
            if gain > 0:
                here, loss, damping = there, loss - gain, max(damping / 5, 1e-9)
            else:
                damping *= 4
            if damping > 1e6 or 0 < gain < ENOUGH * loss:
                break
        return here

    def robust(self, cut: float, rounds: int = 5) -> ExponentialFit:
        """Weigh down residuals beyond `cut` robust standard deviations, and fit again."""
        fit = self
        for _ in range(rounds):
            size_N = np.abs(fit.residuals())
            limit = cut * max(1.4826 * float(np.median(size_N)), 1e-6)
            if (size_N <= limit).all():
                break
            fit = replace(
                fit, trust_N=np.minimum(1.0, limit / np.maximum(size_N, limit * 1e-3))
            ).descend()
        return fit

    def spread(self) -> tuple[float, Array]:
        """Return the residuals' standard deviation and the inverse of the curvature, (P, P)."""
        _, curvature_PP, jacobian_NP = self._local()
        inverse_PP = np.linalg.pinv(curvature_PP, hermitian=True)
        fitted = np.einsum("n,np,pq,nq->", self._trusted(), jacobian_NP, inverse_PP, jacobian_NP)
        freedom = max(len(self.losses_N) - float(fitted), 1.0)
        noise = float(np.sqrt((self.residuals() ** 2).sum() / freedom))
        return noise, np.asarray(inverse_PP, dtype=np.float64)

    def residuals(self) -> Array:
        """Predicted less observed losses."""
        return self.predict(self.weights_ND) - self.losses_N

    def _trusted(self) -> Array:
        return np.ones(len(self.losses_N)) if self.trust_N is None else self.trust_N

    def _apart(self) -> Array:
        """Return how far each slope is from their mean."""
        slopes_D = self.parameters_P[1:]
        apart: Array = slopes_D - slopes_D.mean()
        return apart

    def _height(self) -> float:
        """Return how high a typical loss is over the floor; never 0."""
        return float(self.losses_N.mean() - self.parameters_P[0]) + 1.0

    def _at(self, floor: float) -> ExponentialFit:
        """Return the fit with this floor and the best slopes on the logarithm's scale."""
        excess_N = self.losses_N - floor
        weighted_ND = self.weights_ND * excess_N[:, None]
        domains = self.weights_ND.shape[1]
        height = float(self.losses_N.mean()) - floor + 1.0
        curvature_DD = weighted_ND.T @ weighted_ND + 1e-9 * np.eye(domains)
        curvature_DD += self.penalty * height**2 * (np.eye(domains) - 1.0 / domains)
        slopes_D = np.linalg.solve(curvature_DD, weighted_ND.T @ (excess_N * np.log(excess_N)))
        return replace(self, parameters_P=np.concatenate([[floor], slopes_D]))

    def _step(self, damping: float) -> ExponentialFit:
        gradient_P, curvature_PP, _ = self._local()
        lowest, highest = self.losses_N.min() - LOWEST_FLOOR, np.median(self.losses_N)
        floor = self.parameters_P[0]
        if (floor <= lowest and gradient_P[0] > 0) or (floor >= highest and gradient_P[0] < 0):
            # The floor would leave its bounds: the slopes move without it.
            gradient_P[0], curvature_PP[0, 1:], curvature_PP[1:, 0] = 0.0, 0.0, 0.0
        damped_PP = curvature_PP + damping * np.diag(np.diag(curvature_PP) + 1e-9)
        parameters_P = self.parameters_P - np.linalg.solve(damped_PP, gradient_P)
        parameters_P[0] = min(max(parameters_P[0], lowest), highest)
        return replace(self, parameters_P=parameters_P)

    def _local(self) -> tuple[Array, Array, Array]:
        """Return half the gradient, half the Gauss-Newton curvature, and the Jacobian."""
        excess_N = exponential(self.weights_ND, self.parameters_P[1:])
        jacobian_NP = jacobian(self.weights_ND, excess_N)
        weighted_NP = jacobian_NP * self._trusted()[:, None]
        gradient_P = weighted_NP.T @ (self.parameters_P[0] + excess_N - self.losses_N)
        curvature_PP = weighted_NP.T @ jacobian_NP
        # The prior is the square of height x apart, and the height falls as the floor rises.
        apart_D, height, domains = self._apart(), self._height(), self.weights_ND.shape[1]
        prior_DP = np.column_stack([-apart_D, height * (np.eye(domains) - 1.0 / domains)])
        gradient_P += self.penalty * prior_DP.T @ (height * apart_D)
        curvature_PP += self.penalty * prior_DP.T @ prior_DP
        return gradient_P, curvature_PP, jacobian_NP


def exponential(weights_ND: Array, slopes: Array) -> Array:
    """Return exp(weights @ slopes), kept finite."""
    excess: Array = np.exp(np.minimum(weights_ND @ slopes, MAX_EXPONENT))
    return excess


def jacobian(weights_ND: Array, excess_N: Array) -> Array:
    """Return derivatives of the predictions by (c, t), shape (N, P)."""
    ones_N1 = np.ones((len(weights_ND), 1))
    derivatives: Array = np.concatenate([ones_N1, weights_ND * excess_N[:, None]], axis=1)
    return derivatives


PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
REACH = 1.0  # ranges of the trials' losses above the highest: more is not a prediction
LAW_STEPS = 15  # enough to compare penalties; the fit itself continues until a step gains nothing


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

    def tuned(self) -> Self:
        """Return a copy to fit again with the penalties that this one chose."""
        return self._unfitted(slope_penalty=self.penalties_M.tolist())

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        fold_N, fits = self._fold_of(weights_ND), []
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
        jacobian_MNP = np.stack([jacobian(weights_ND, excess_N) for excess_N in excess_NM.T])
        return delta_stds(self.noise_M, jacobian_MNP, self.inverse_MPP)


def _held_out(weights_ND: Array, losses_N: Array, fold_N: Any, penalty: float) -> float:
    """Return the squared error on held-out folds."""
    error = 0.0
    for train_N, held_out_N in splits(fold_N):
        fit = ExponentialFit(weights_ND[train_N], losses_N[train_N], penalty).best(
            starts=1, steps=LAW_STEPS
        )
        error += float(((fit.predict(weights_ND[held_out_N]) - losses_N[held_out_N]) ** 2).sum())
    return error
