"""The data mixing law: each loss is a floor plus the exponential of a linear function.

    L_m(w) = c_m + exp(sum_j t_mj w_j)

The law of Ye et al. (Data Mixing Laws) is L = c + k exp(sum_j t_j w_j); because weights add up to
1, k is absorbed into t. The law is convex in the mixture. If trials hardly varied a domain, its
exponential is arbitrary, so predictions are capped at one range of the trials' losses above the
highest.

Data Mixing Laws and Olmix fit it from hundreds to thousands of random starts of L-BFGS. But for a
fixed floor c, log(L - c) is linear in the weights. So a grid over c with one small weighted
least-squares problem each finds a good start, and a few Levenberg-Marquardt steps on all parameters
(MINPACK's) converge: milliseconds instead of seconds. Huber weights limit the influence of
outliers. A normal prior keeps fits finite with fewer trials than domains. It is on the slopes minus
their mean, times the height of the losses over the floor: the effect of the mixture on the loss.

Shapes: N trials, D domains, M targets, P = D + 1 parameters (c, then t).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import leastsq

from mixopt.fitting import splits
from mixopt.system import Array
from mixopt_regressors.mixture_regressor import LawByTarget, delta_stds

FLOORS_BELOW = np.geomspace(0.01, 27.0, 16)  # below the lowest loss, in standard deviations
MIN_DECREASE = 1e-4  # relative decrease below which the descent stops
STEPS = 60
MAX_EXPONENT = 30.0  # far above any standardised loss, and its exponential is finite
ROUNDS = 5  # of reweighting by Huber weights
HUBER = 3.0  # robust standard deviations beyond which residuals count linearly
PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)  # a squared slope of 1 costs so many variances
REACH = 1.0  # cap of predictions above the highest loss, in ranges of the losses


class LogLinearRegressor(LawByTarget):
    """The data mixing law, one for each target.

    Attributes:
        folds: Held-out folds that choose the penalty.
        random_state: Seed of the folds.
    """

    by_target = (
        "floors_M",
        "slopes_MD",
        "scales_M",
        "noise_M",
        "inverse_MPP",
        "penalties_M",
        "tops_M",
    )

    def __init__(self, folds: int = 5, random_state: int = 0) -> None:
        self.folds = folds
        self.random_state = random_state

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the gradient of each loss at one mixture, shape (M, D)."""
        weights = self._checked(np.atleast_2d(weights_D))
        excess_M = _exponential(weights, self.slopes_MD.T)[0]
        gradient: Array = (excess_M * self.scales_M)[:, None] * self.slopes_MD
        return gradient

    def _penalty(self, target: int, weights_ND: Array, losses_N: Array, fold_N: Any) -> float:
        if self._before is not None:
            return float(self._before.penalties_M[target])
        if fold_N is None:
            return max(PENALTIES)
        errors = dict.fromkeys(PENALTIES, 0.0)
        for penalty in PENALTIES:
            for train_N, out_N in splits(fold_N):
                law_P, _ = fitted(weights_ND[train_N], losses_N[train_N], penalty)
                off_N = _law(weights_ND[out_N], law_P) - losses_N[out_N]
                errors[penalty] += (off_N**2).sum()
        return min(errors, key=errors.__getitem__)

    def _fit_target(
        self, target: int, weights_ND: Array, losses_N: Array, scale: float, fold_N: Any
    ) -> dict[str, Any]:
        penalty = self._penalty(target, weights_ND, losses_N, fold_N)
        law_P, jacobian_RP = fitted(weights_ND, losses_N, penalty)
        for _ in range(ROUNDS):
            size_N = np.abs(_law(weights_ND, law_P) - losses_N)
            limit = HUBER * max(1.4826 * float(np.median(size_N)), 1e-6)
            if (size_N <= limit).all():
                break
            trust_N = np.minimum(1.0, limit / np.maximum(size_N, limit * 1e-3))
            law_P, jacobian_RP = fitted(weights_ND, losses_N, penalty, trust_N, law_P)
        inverse_PP = np.linalg.pinv(jacobian_RP.T @ jacobian_RP, hermitian=True)
        data_NP = jacobian_RP[: len(losses_N)]
        effective_parameters = float(((data_NP @ inverse_PP) * data_NP).sum())
        freedom = max(len(losses_N) - effective_parameters, 1.0)
        noise = np.sqrt(((_law(weights_ND, law_P) - losses_N) ** 2).sum() / freedom)
        return {
            "floors_M": law_P[0] * scale,
            "slopes_MD": law_P[1:],
            "scales_M": scale,
            "noise_M": noise * scale,
            "inverse_MPP": inverse_PP,
            "penalties_M": penalty,
            "tops_M": (losses_N.max() + REACH * np.ptp(losses_N)) * scale,
        }

    def _predict(self, weights_ND: Array) -> Array:
        excess_NM = _exponential(weights_ND, self.slopes_MD.T)
        predicted: Array = np.minimum(self.floors_M + self.scales_M * excess_NM, self.tops_M)
        return predicted

    def _std(self, weights_ND: Array) -> Array:
        excess_MN = _exponential(weights_ND, self.slopes_MD.T).T
        by_slopes_MND = excess_MN[:, :, None] * weights_ND
        jacobian_MNP = np.dstack([np.ones_like(excess_MN), by_slopes_MND])
        return delta_stds(self.noise_M, jacobian_MNP, self.inverse_MPP)


def fitted(
    weights_ND: Array,
    losses_N: Array,
    penalty: float,
    trust_N: Array | None = None,
    start_P: Array | None = None,
) -> tuple[Array, Array]:
    """Fit one target; return floor and slopes, (P,), and the Jacobian of the residuals."""
    domains = weights_ND.shape[1]
    mean = losses_N.mean()
    median = float(np.median(losses_N))
    if trust_N is None:
        trust_N = np.ones(len(losses_N))
    root_N1 = np.sqrt(trust_N)[:, None]
    center_DD = np.eye(domains) - 1.0 / domains
    hold = np.sqrt(penalty)

    def residuals(free_P: Array) -> Array:
        """Return the residuals; the floor is the median minus the exponential of parameter 0."""
        floor = median - np.exp(min(free_P[0], MAX_EXPONENT))
        slopes_D = free_P[1:]
        off_N = floor + _exponential(weights_ND, slopes_D) - losses_N
        penalty_D = hold * (mean - floor + 1.0) * (slopes_D - slopes_D.mean())
        return np.append(root_N1[:, 0] * off_N, penalty_D)

    def jacobian(free_P: Array) -> Array:
        depth = np.exp(min(free_P[0], MAX_EXPONENT))
        slopes_D = free_P[1:]
        by_slopes_ND = weights_ND * _exponential(weights_ND, slopes_D)[:, None]
        by_floor_D = depth * hold * (slopes_D - slopes_D.mean())
        penalty_DD = hold * (mean - median + depth + 1.0) * center_DD
        off_NP = root_N1 * np.hstack([np.full_like(root_N1, -depth), by_slopes_ND])
        return np.vstack([off_NP, np.column_stack([by_floor_D, penalty_DD])])

    if start_P is None:
        start_P = _start(weights_ND, losses_N, penalty)
    freed_P = np.append(np.log(max(median - start_P[0], 1e-9)), start_P[1:])
    solution_P = leastsq(
        residuals,
        freed_P,
        Dfun=jacobian,
        ftol=MIN_DECREASE,
        xtol=MIN_DECREASE,
        maxfev=STEPS,
        full_output=True,
    )[0]
    depth = np.exp(min(solution_P[0], MAX_EXPONENT))
    free_by_law_P: Array = np.append(-1.0 / depth, np.ones(domains))
    law_P = np.append(median - depth, solution_P[1:])
    return law_P, jacobian(solution_P) * free_by_law_P


def _start(weights_ND: Array, losses_N: Array, penalty: float) -> Array:
    """Return the best floor of a grid, with the best slopes on the log scale."""
    domains = weights_ND.shape[1]
    center_DD = np.eye(domains) - 1.0 / domains
    floors_F = losses_N.min() - FLOORS_BELOW
    excess_FN = losses_N - floors_F[:, None]
    hold_F = penalty * (losses_N.mean() - floors_F + 1.0) ** 2
    weighted_FDN = weights_ND.T * excess_FN[:, None]
    products_FDD = weighted_FDN @ weighted_FDN.transpose(0, 2, 1)
    curvature_FDD = products_FDD + hold_F[:, None, None] * center_DD
    curvature_FDD += 1e-9 * np.eye(domains)
    aim_FD1 = weighted_FDN @ (excess_FN * np.log(excess_FN))[:, :, None]
    slopes_FD = np.linalg.solve(curvature_FDD, aim_FD1)[:, :, 0]
    off_FN = _exponential(weights_ND, slopes_FD.T).T - excess_FN
    squares_F = (off_FN**2).sum(axis=1) + hold_F * ((slopes_FD @ center_DD) ** 2).sum(axis=1)
    best = int(np.argmin(squares_F))
    return np.append(floors_F[best], slopes_FD[best])


def _exponential(weights_ND: Array, slopes: Array) -> Array:
    """Return exp(weights @ slopes), kept finite."""
    return np.exp(np.minimum(weights_ND @ slopes, MAX_EXPONENT))


def _law(weights_ND: Array, law_P: Array) -> Array:
    predicted: Array = law_P[0] + _exponential(weights_ND, law_P[1:])
    return predicted
