"""A law of epochs: the effect of repeating a domain on a loss.

Epochs of domain b are E_b = w_b x tokens / inventory_b: the same share is many epochs of a small
domain, and a fraction of an epoch of a large one. Each domain lowers a loss by a saturating benefit
and raises it by a growing harm. A law of shares cannot tell where repetition stops to pay.
Permuting the inventories makes this law worse if epochs matter in the trials, which is a check.

Without inventories and tokens all domains have the same size, and a trial has as many tokens as all
domains together: E_b = w_b D. The law is then one of shares, with a saturating benefit for each.

All trials must have the same number of training tokens, and the same inventories. With simulated
epochs (mixopt.loading.simulated_epochs) use tokens and inventories of the full run, whose ratio is
that of the trials.

With E_b the epochs of domain b in a trial,

    eta = beta0 - sum_b alpha_b (1 - exp(-(rho E_b)^p))
                + sum_b gamma_b softplus(log(1 + E_b) - tau)^2

with alpha, gamma >= 0, and the loss is eta, or a floor plus exp(eta), as in Marin's MARINER. The
coefficients of a target solve one non-negative least-squares problem, so that only the shape (rho,
p, tau, penalty of coefficients, floor) needs a search on held-out folds. Differences to MARINER:
the floor is relative to the fitted rows' losses, rho is in units of the rows' mean epochs, and the
search varies one part of the shape at a time.

Shapes: N trials, D domains, M targets, C = 2 D columns (benefits, harms), P = C + 1 parameters.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from mixopt.errors import ConfigError
from mixopt.fitting import splits
from mixopt.system import Array
from mixopt_regressors.mixture_regressor import LawByTarget, delta_stds, plain_roots, root_of

RATES = (0.1, 0.3, 1.0, 3.0, 10.0)  # relative to the mean epochs
POWERS = (0.3, 0.5, 0.75, 1.0)
ONSETS = (0.7, 1.6, 2.8)  # log(1 + E), about 1, 4 and 16 epochs
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
BENDS = (0.0, 0.5, 2.0, 10.0)
PASSES = 2
MAX_STEPS = 100  # of nnls for each column; scipy's 3 can be too few
MIN_RANGE = 1e-3  # minimum range of a loss, so that its floor is below it
MAX_EXPONENT = 30.0
STEEPEST = 1e-4  # the benefit's slope is constant below this weight


@dataclass(frozen=True)
class Shape:
    """The parameters of the law that are not coefficients."""

    rate: float
    power: float
    onset: float
    penalty: float
    bend: float

    def columns(self, epochs_ND: Array) -> Array:
        """Return the features of the coefficients, shape (N, 2 D): benefits, then harms."""
        benefits_ND = np.expm1(-((self.rate * epochs_ND) ** self.power))
        harms_ND = np.logaddexp(0.0, np.log1p(epochs_ND) - self.onset) ** 2
        return np.hstack([benefits_ND, harms_ND])

    def slopes(self, epochs_D: Array) -> Array:
        """Return the derivative of each column by its domain's epochs (> 0), shape (2 D,)."""
        exponents_D = (self.rate * epochs_D) ** self.power
        benefits_D = -np.exp(-exponents_D) * self.power * exponents_D / epochs_D
        over_D = np.log1p(epochs_D) - self.onset
        rising_D = 1.0 / (1.0 + np.exp(-over_D))
        harms_D = 2.0 * np.logaddexp(0.0, over_D) * rising_D / (1.0 + epochs_D)
        return np.concatenate([benefits_D, harms_D])


@dataclass(frozen=True)
class EpochLaw:
    """The law of one target; its floor is nan if the loss is eta."""

    shape: Shape
    floor: float
    parameters_P: Array

    @classmethod
    def fitted(cls, shape: Shape, columns_NC: Array, losses_N: Array) -> Self:
        """Fit the coefficients."""
        if not shape.bend:
            return cls(shape, np.nan, _solved(columns_NC, losses_N, 1.0, shape.penalty))
        span = max(float(np.ptp(losses_N)), MIN_RANGE)
        floor = float(losses_N.min()) - span / shape.bend
        height_N = losses_N - floor
        # An error of the loss is an error of its logarithm times the height over the floor.
        parameters_P = _solved(columns_NC, np.log(height_N), height_N, shape.penalty)
        return cls(shape, floor, parameters_P)

    def losses(self, columns_NC: Array) -> tuple[Array, Array]:
        """Return losses, and their derivatives by eta, shape (N,) each."""
        eta_N = self.parameters_P[0] + columns_NC @ self.parameters_P[1:]
        if np.isnan(self.floor):
            return eta_N, np.ones_like(eta_N)
        heights_N = np.exp(np.minimum(eta_N, MAX_EXPONENT))
        return self.floor + heights_N, heights_N

    def jacobian(self, columns_NC: Array) -> Array:
        """Return the derivatives of the losses by the parameters, shape (N, P)."""
        ones_N1 = np.ones((len(columns_NC), 1))
        return np.asarray(self.losses(columns_NC)[1][:, None] * np.hstack([ones_N1, columns_NC]))

    def spread(self, columns_NC: Array, losses_N: Array) -> tuple[float, Array]:
        """Return the residuals' standard deviation and the inverse of the curvature, (P, P)."""
        is_free_P = np.append(True, self.parameters_P[1:] > 0)
        is_penalised_P = np.arange(len(is_free_P)) > 0
        jacobian_NP = self.jacobian(columns_NC) * is_free_P
        ridge_P = len(losses_N) * self.shape.penalty * is_penalised_P
        curvature_PP = jacobian_NP.T @ jacobian_NP + np.diag(ridge_P * is_free_P)
        inverse_PP = np.linalg.pinv(curvature_PP, hermitian=True)
        effective_parameters = float(((jacobian_NP @ inverse_PP) * jacobian_NP).sum())
        freedom = max(len(losses_N) - effective_parameters, 1.0)
        squares = float(((self.losses(columns_NC)[0] - losses_N) ** 2).sum())
        return float(np.sqrt(squares / freedom)), inverse_PP


def middle_shape(mean_epochs: float) -> Shape:
    """Return the shape in the middle of the grid, for domains with these mean epochs."""
    return Shape(RATES[2] / mean_epochs, POWERS[1], ONSETS[1], PENALTIES[1], BENDS[2])


def best_shape(error: Callable[[Shape], float], mean_epochs: float) -> Shape:
    """Search the grid along one part of the shape at a time, twice."""
    cached_error = cache(error)
    best = middle_shape(mean_epochs)
    for _ in range(PASSES):
        shapes = [
            replace(best, rate=rate / mean_epochs, power=power)
            for rate, power in itertools.product(RATES, POWERS)
        ]
        best = min(shapes, key=cached_error)
        best = min((replace(best, onset=onset) for onset in ONSETS), key=cached_error)
        best = min((replace(best, penalty=penalty) for penalty in PENALTIES), key=cached_error)
        best = min((replace(best, bend=bend) for bend in BENDS), key=cached_error)
    return best


def _solved(columns_NC: Array, eta_N: Array, heights_N: Array | float, penalty: float) -> Array:
    """Return beta0 and the coefficients >= 0 of a weighted least-squares problem."""
    trust_N = np.broadcast_to(np.square(heights_N), eta_N.shape)
    total = trust_N.sum()
    mean = trust_N @ eta_N / total
    mean_C = trust_N @ columns_NC / total
    centred_NC = columns_NC - mean_C
    curvature_CC = (centred_NC * trust_N[:, None]).T @ centred_NC
    curvature_CC += penalty * len(eta_N) * np.eye(len(mean_C))
    root_CC = np.linalg.cholesky(curvature_CC)
    right_C = np.linalg.solve(root_CC, centred_NC.T @ (trust_N * (eta_N - mean)))
    coefficients_C, _ = nnls(root_CC.T, right_C, maxiter=MAX_STEPS * len(right_C))
    return np.concatenate([[mean - mean_C @ coefficients_C], coefficients_C])


class EpochsRegressor(LawByTarget):
    """The law of epochs, one for each target.

    Attributes:
        inventory: Distinct tokens of each domain, > 0, in the order of the columns.
        tokens: Training tokens of each trial. Without both: see the module.
        folds: Held-out folds that choose the shapes.
        random_state: Seed of the folds.
    """

    by_target = ("shapes_M5", "floors_M", "parameters_MP", "scales_M", "noise_M", "inverse_MPP")
    shared = ("rates_D",)

    def __init__(
        self,
        inventory: Sequence[float] | None = None,
        tokens: float | None = None,
        folds: int = 5,
        random_state: int = 0,
    ) -> None:
        self.inventory = inventory
        self.tokens = tokens
        self.folds = folds
        self.random_state = random_state

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the gradient of each loss at one mixture, shape (M, D)."""
        weights = self._checked(np.atleast_2d(weights_D))
        epochs_1D = self._epochs(weights)
        steep_D = np.maximum(weights[0], STEEPEST) * self.rates_D
        slopes = []
        for law, scale in zip(self._laws(), self.scales_M, strict=True):
            by_column_C = law.parameters_P[1:] * law.shape.slopes(steep_D)
            by_epochs_D = by_column_C.reshape(2, -1).sum(axis=0)
            _, by_eta_1 = law.losses(law.shape.columns(epochs_1D))
            slopes.append(scale * by_eta_1 * by_epochs_D)
        return np.array(slopes) * self.rates_D

    def covariance(self, weights_KD: ArrayLike, loads_M: ArrayLike) -> Array:
        """Return the covariance of a weighted sum of the losses without noise, shape (K, K)."""
        scales_M = np.asarray(loads_M) * self.noise_M
        jacobian_MKP = scales_M[:, None, None] * self._jacobians(self._checked(weights_KD))
        covariance_MKK = jacobian_MKP @ self.inverse_MPP @ jacobian_MKP.transpose(0, 2, 1)
        return np.asarray(covariance_MKK.sum(axis=0))

    def plain_law(self) -> dict[str, Any]:
        """Return the law as plain numbers (mixopt.fitting.regressor)."""
        return {
            "kind": "epochs",
            "rates_D": self.rates_D,
            "shapes_M3": self.shapes_M5[:, :3],
            "floors": [None if np.isnan(floor) else float(floor) for floor in self.floors_M],
            "parameters_MP": self.parameters_MP,
            "scales_M": self.scales_M,
            "noise_M": self.noise_M,
            **plain_roots(np.array([root_of(inverse_PP) for inverse_PP in self.inverse_MPP])),
        }

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        self.rates_D = self._rates(weights_ND.shape[1])
        super()._fit(weights_ND, losses_NM)

    def _fit_target(
        self, target: int, weights_ND: Array, losses_N: Array, scale: float, fold_N: Any
    ) -> dict[str, Any]:
        epochs_ND = self._epochs(weights_ND)
        shape = self._shape(target, epochs_ND, losses_N, fold_N)
        columns_NC = shape.columns(epochs_ND)
        law = EpochLaw.fitted(shape, columns_NC, losses_N)
        noise, inverse_PP = law.spread(columns_NC, losses_N)
        return {
            "shapes_M5": astuple(shape),
            "floors_M": law.floor,
            "parameters_MP": law.parameters_P,
            "scales_M": scale,
            "noise_M": noise * scale,
            "inverse_MPP": inverse_PP,
        }

    def _rates(self, domains: int) -> Array:
        """Return the epochs of each domain at a weight of 1."""
        if self.inventory is None and self.tokens is None:
            return np.full(domains, float(domains))
        if self.inventory is None or self.tokens is None or len(self.inventory) != domains:
            raise ConfigError(
                f"epochs: need tokens and an inventory of {domains} domains, or neither; got"
                f" {self.tokens} and {self.inventory}"
            )
        inventory_D = np.array(self.inventory, float)
        rates_D = self.tokens / np.where(inventory_D == 0, np.nan, inventory_D)
        if not (np.isfinite(rates_D) & (rates_D > 0)).all():
            raise ConfigError(
                f"epochs: a domain needs tokens to be trained on: need numbers > 0, got tokens"
                f" {self.tokens} and inventory {self.inventory}; leave such domains out"
            )
        return np.asarray(rates_D)

    def _epochs(self, weights_ND: Array) -> Array:
        return np.maximum(weights_ND, 0.0) * self.rates_D

    def _shape(self, target: int, epochs_ND: Array, losses_N: Array, fold_N: Any) -> Shape:
        if self._before is not None:
            return Shape(*self._before.shapes_M5[target].tolist())
        mean = float(epochs_ND.mean()) or 1.0
        if fold_N is None:
            return middle_shape(mean)
        return best_shape(lambda shape: _held_out(shape, epochs_ND, losses_N, fold_N), mean)

    def _laws(self) -> list[EpochLaw]:
        laws = []
        fits = zip(self.shapes_M5, self.floors_M, self.parameters_MP, strict=True)
        for shape_5, floor, parameters_P in fits:
            laws.append(EpochLaw(Shape(*shape_5), floor, parameters_P))
        return laws

    def _predict(self, weights_ND: Array) -> Array:
        epochs_ND = self._epochs(weights_ND)
        columns = [law.losses(law.shape.columns(epochs_ND))[0] for law in self._laws()]
        return np.asarray(np.stack(columns, axis=1) * self.scales_M)

    def _std(self, weights_ND: Array) -> Array:
        return delta_stds(self.noise_M, self._jacobians(weights_ND), self.inverse_MPP)

    def _jacobians(self, weights_ND: Array) -> Array:
        """Return derivatives of the scaled losses by the parameters, shape (M, N, P)."""
        epochs_ND = self._epochs(weights_ND)
        return np.stack([law.jacobian(law.shape.columns(epochs_ND)) for law in self._laws()])


def _held_out(shape: Shape, epochs_ND: Array, losses_N: Array, fold_N: Any) -> float:
    """Return the squared error on held-out folds."""
    columns_NC = shape.columns(epochs_ND)
    error = 0.0
    for train_N, out_N in splits(fold_N):
        law = EpochLaw.fitted(shape, columns_NC[train_N], losses_N[train_N])
        predicted_K, _ = law.losses(columns_NC[out_N])
        error += float(((predicted_K - losses_N[out_N]) ** 2).sum())
    return error
