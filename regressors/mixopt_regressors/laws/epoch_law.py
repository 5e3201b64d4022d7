"""The effect of epochs over a domain on a loss: a benefit that saturates, a harm that grows.

With E_b the epochs of domain b in a trial,

    eta = beta0 - sum_b alpha_b (1 - exp(-(rho E_b)^p))
                + sum_b gamma_b softplus(log(1 + E_b) - tau)^2

with alpha, gamma >= 0, and the loss is eta itself, or a floor plus exp(eta). It is the law of
Marin's MARINER. The first passes over a domain teach most (Weibull's curve), and from about
e^tau - 1 epochs on each further one costs more. The coefficients of a target are one
non-negative least-squares problem, so that only the shape (rho, p, tau, how strongly coefficients
are held back, where the floor is) needs a search on held-out folds. Coefficients are held back
as they are, not in units of their columns' spread: where no trial repeats a domain, its harm
hardly varies, and is taken to be 0.

Ours differ in the floor, which is that of the fitted rows' losses (the least less their range /
bend; bend 0 is no floor and the loss is eta), in rho, which is in units of the rows' mean epochs,
and in the search, which is along one part of the shape after another.

Losses are in units of their standard deviation.

Shapes: N trials, D domains, P = 2 D + 1 parameters (beta0, alpha, gamma).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy.optimize import nnls

from mixopt.system import Array

RATES = (0.1, 0.3, 1.0, 3.0, 10.0)  # over the mean epochs
POWERS = (0.3, 0.5, 0.75, 1.0)
ONSETS = (0.7, 1.6, 2.8)  # log(1 + E): from about 1, 4 and 16 epochs on
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
BENDS = (0.0, 0.5, 2.0, 10.0)
PASSES = 2
LEAST_RANGE = 1e-3  # a loss that never changes still needs a floor below it
MOST_EXPONENT = 30.0


@dataclass(frozen=True)
class Shape:
    """What is not a coefficient.

    Attributes:
        rate: rho, in 1 / epochs.
        power: p; below 1 the first passes count even more.
        onset: tau.
        penalty: What a squared coefficient costs, in variances of the loss for each row.
        bend: Range of the losses over the distance from the least of them to the floor; 0 where
            there is no floor.
    """

    rate: float
    power: float
    onset: float
    penalty: float
    bend: float

    def columns(self, epochs_ND: Array) -> Array:
        """Return what the coefficients multiply, shape (N, 2 D): benefits, then harms."""
        benefits_ND = np.expm1(-((self.rate * epochs_ND) ** self.power))
        harms_ND = np.logaddexp(0.0, np.log1p(epochs_ND) - self.onset) ** 2
        return np.hstack([benefits_ND, harms_ND])

    def slopes(self, epochs_D: Array) -> Array:
        """Return the derivative of each column by its domain's epochs (> 0), shape (2 D,)."""
        reached_D = (self.rate * epochs_D) ** self.power
        benefits_D = -np.exp(-reached_D) * self.power * reached_D / epochs_D
        over_D = np.log1p(epochs_D) - self.onset
        rising_D = 1.0 / (1.0 + np.exp(-over_D))
        harms_D = 2.0 * np.logaddexp(0.0, over_D) * rising_D / (1.0 + epochs_D)
        return np.concatenate([benefits_D, harms_D])


@dataclass(frozen=True)
class EpochLaw:
    """The law of one target.

    Attributes:
        shape: What the search chose.
        floor: Below all fitted losses; None where the loss is eta.
        parameters_P: beta0, then alpha and gamma of each domain.
    """

    shape: Shape
    floor: float | None
    parameters_P: Array

    @classmethod
    def fitted(cls, shape: Shape, columns_NC: Array, losses_N: Array) -> EpochLaw:
        """Fit the coefficients.

        Args:
            shape: The shape.
            columns_NC: What `shape.columns` returned.
            losses_N: Losses.
        """
        if not shape.bend:
            return cls(shape, None, _solved(columns_NC, losses_N, 1.0, shape.penalty))
        span = max(float(np.ptp(losses_N)), LEAST_RANGE)
        floor = float(losses_N.min()) - span / shape.bend
        height_N = losses_N - floor
        # An error of the loss is one of its logarithm times the height over the floor.
        parameters_P = _solved(columns_NC, np.log(height_N), height_N, shape.penalty)
        return cls(shape, floor, parameters_P)

    def predict(self, columns_NC: Array) -> Array:
        """Return losses, shape (N,)."""
        eta_N = self.parameters_P[0] + columns_NC @ self.parameters_P[1:]
        return eta_N if self.floor is None else self.floor + _exp(eta_N)

    def heights(self, columns_NC: Array) -> Array:
        """Return the derivative of the loss by eta, shape (N,)."""
        if self.floor is None:
            return np.ones(len(columns_NC))
        return _exp(self.parameters_P[0] + columns_NC @ self.parameters_P[1:])

    def jacobian(self, columns_NC: Array) -> Array:
        """Return the derivatives of the losses by the parameters, shape (N, P)."""
        ones_N1 = np.ones((len(columns_NC), 1))
        heights_N1 = self.heights(columns_NC)[:, None]
        jacobian: Array = heights_N1 * np.hstack([ones_N1, columns_NC])
        return jacobian

    def spread(self, columns_NC: Array, losses_N: Array) -> tuple[float, Array]:
        """Return the residuals' standard deviation and the inverse of the curvature, (P, P).

        Coefficients that are 0, where they cannot go further, count as known.
        """
        free_P = np.append(True, self.parameters_P[1:] > 0)
        jacobian_NP = self.jacobian(columns_NC) * free_P
        ridge_P = len(losses_N) * self.shape.penalty * np.where(np.arange(len(free_P)), 1.0, 0.0)
        curvature_PP = jacobian_NP.T @ jacobian_NP + np.diag(ridge_P * free_P)
        inverse_PP = np.linalg.pinv(curvature_PP, hermitian=True)
        fitted = np.einsum("np,pq,nq->", jacobian_NP, inverse_PP, jacobian_NP)
        freedom = max(len(losses_N) - float(fitted), 1.0)
        squares = float(((self.predict(columns_NC) - losses_N) ** 2).sum())
        return float(np.sqrt(squares / freedom)), np.asarray(inverse_PP, dtype=np.float64)


def middle_shape(mean_epochs: float) -> Shape:
    """Return the shape in the middle of the grid, for trials whose domains have these epochs."""
    return Shape(RATES[2] / mean_epochs, POWERS[1], ONSETS[1], PENALTIES[1], BENDS[2])


def best_shape(error: Callable[[Shape], float], mean_epochs: float) -> Shape:
    """Search the grid along one part of the shape after another, and once more.

    Args:
        error: The error of a shape on held-out folds.
        mean_epochs: Of the trials' domains.
    """
    remembered, best = cache(error), middle_shape(mean_epochs)
    for _ in range(PASSES):
        rates = [replace(best, rate=r / mean_epochs) for r in RATES]
        best = min((replace(one, power=p) for one in rates for p in POWERS), key=remembered)
        best = min((replace(best, onset=onset) for onset in ONSETS), key=remembered)
        best = min((replace(best, penalty=penalty) for penalty in PENALTIES), key=remembered)
        best = min((replace(best, bend=bend) for bend in BENDS), key=remembered)
    return best


def _solved(columns_NC: Array, eta_N: Array, heights_N: Array | float, penalty: float) -> Array:
    """Return beta0 and the coefficients >= 0 of a weighted least-squares problem."""
    trust_N = np.broadcast_to(np.square(heights_N), eta_N.shape)
    mean_C, mean = trust_N @ columns_NC / trust_N.sum(), trust_N @ eta_N / trust_N.sum()
    centred_NC = columns_NC - mean_C
    curvature_CC = (centred_NC * trust_N[:, None]).T @ centred_NC
    curvature_CC += penalty * len(eta_N) * np.eye(len(mean_C))
    root_CC = np.linalg.cholesky(curvature_CC)
    right_C = np.linalg.solve(root_CC, centred_NC.T @ (trust_N * (eta_N - mean)))
    coefficients_C, _ = nnls(root_CC.T, right_C)
    return np.concatenate([[mean - mean_C @ coefficients_C], coefficients_C])


def _exp(eta_N: Array) -> Array:
    finite: Array = np.exp(np.minimum(eta_N, MOST_EXPONENT))
    return finite
