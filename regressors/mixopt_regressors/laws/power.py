"""The effective-data power law: each loss falls as a power of how much useful data there is.

    L_m(w) = c_m + k_m (e_m + sum_j A_mj w_j)^(-g_m)

A domain is worth A_mj of what target m learns from, which saturates: the first percent of the
domain that matters lowers a loss more than the next ten. It is the simplest law with that, it is
convex in the mixture, and with few trials it extrapolates better than what interpolates. It has
more parameters than it can show: weights add up to 1, so that e and k go into A. What is left is
one number for each domain, the height h_j over the floor that training on it alone would give:

    h(w) = (sum_j w_j h_j^(-1/g))^(-g)

The decay g says how sharply it falls with the first few samples of a domain that helps. A large g
is the geometric mean, which is the data mixing law.

Given the floor c and the decay g, (L - c)^(-1/g) is linear in the weights, so a grid over both with
one small weighted least-squares problem each finds the valleys, and Levenberg-Marquardt steps on
all parameters find their floors. Targets, starts and held-out folds are fits of one batch, and rows
that a fit must not see have trust 0. The prior is on how far the logarithms of the heights are from
their mean times the height of the losses over the floor: how much the mixture moves the loss. Its
penalty is chosen on held-out folds of the training rows, one for all targets.

Losses are in units of their standard deviation, around a mean of 0.

Shapes: N trials, D domains, M targets, K means, F fits side by side, P = D + 2 parameters (floor,
log decay, log heights).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixopt.system import Array
from mixopt_regressors.mixture_regressor import (
    MixtureRegressor,
    delta_stds,
    leverage,
    plain_roots,
    root_of,
)

DECAYS = (0.05, 20.0)
LOGS = (-12.0, 6.0)  # of heights in standard deviations; with least decays, sums stay normal
MAX_LOG = 30.0  # largest logarithm of a mean, in case a mixture is outside the simplex
NOTHING = 1e-300  # a mixture without any weight has a finite mean


@dataclass(frozen=True)
class PowerMeans:
    """Means of heights at mixtures, and their derivatives."""

    weights_ND: Array
    logs_KD: Array
    log_decays_K: Array

    @cached_property
    def heights_NK(self) -> Array:
        """The means."""
        heights: Array = np.exp(np.minimum(self.logs_NK, MAX_LOG))
        return heights

    @cached_property
    def logs_NK(self) -> Array:
        """Logarithms of the means."""
        _, top_K = self._terms
        logs: Array = -self._decays_K * (np.log(self._sums_NK) + top_K)
        return logs

    def by_weight(self) -> Array:
        """Return derivatives of the means by the weights, shape (N, K, D)."""
        terms_KD, _ = self._terms
        factors_NK = -self._decays_K * self.heights_NK / self._sums_NK
        slopes: Array = factors_NK[:, :, None] * terms_KD
        return slopes

    def by_parameter(self) -> Array:
        """Return derivatives of floor + mean by (floor, log decay, logs), shape (K, N, 2 + D)."""
        terms_KD, _ = self._terms
        heights_KN = self.heights_NK.T
        slopes_KNP = np.empty((*heights_KN.shape, 2 + terms_KD.shape[1]))
        by_logs_KND = slopes_KNP[:, :, 2:]  # filled in place: a fit spends half of its time here
        np.multiply(self.weights_ND, terms_KD[:, None], out=by_logs_KND)
        by_logs_KND *= (heights_KN / self._sums_NK.T)[:, :, None]
        turned_KN = (by_logs_KND @ self.logs_KD[:, :, None])[:, :, 0]
        slopes_KNP[:, :, 0] = 1.0
        slopes_KNP[:, :, 1] = heights_KN * self.logs_NK.T - turned_KN
        return slopes_KNP

    def pull(self, slopes_NK: Array) -> tuple[Array, Array]:
        """Return derivatives of a loss by the log decays, (K,), and by the logs, (K, D)."""
        terms_KD, _ = self._terms
        by_log_NK = slopes_NK * self.heights_NK
        by_logs_KD = terms_KD * ((by_log_NK / self._sums_NK).T @ self.weights_ND)
        by_decay_K = (by_log_NK * self.logs_NK).sum(axis=0) - (by_logs_KD * self.logs_KD).sum(
            axis=1
        )
        return by_decay_K, by_logs_KD

    @cached_property
    def _decays_K(self) -> Array:
        return np.asarray(np.exp(self.log_decays_K), dtype=np.float64)

    @cached_property
    def _terms(self) -> tuple[Array, Array]:
        """Heights to the power -1/g over the greatest of them, and the logarithm of that."""
        powers_KD = -self.logs_KD / self._decays_K[:, None]
        top_K = powers_KD.max(axis=1)
        return np.exp(powers_KD - top_K[:, None]), top_K

    @cached_property
    def _sums_NK(self) -> Array:
        terms_KD, _ = self._terms
        return np.asarray(self.weights_ND @ terms_KD.T + NOTHING, dtype=np.float64)


LOWEST_FLOOR = 30.0  # standard deviations below the least loss
FLOORS_BELOW = (0.05, 0.3, 1.0, 4.0, 12.0)
START_DECAYS = (0.15, 0.4, 1.0, 3.0)
USUAL_DECAY = 0.5
RIDGE = 1e-3  # of the least squares that start a fit
MIN_TERM = 1e-3  # of their mean; least squares may ask for less than nothing
STEPS = 60
ROUGH_STEPS = 15  # after which the lowest of several starts continues alone
CACHED = 2**17  # derivatives of the fits that go downhill together: what a processor's cache holds
ENOUGH = 1e-5  # a step that gains a smaller part of the loss is the last
MAX_DAMPING = 1e6


@dataclass(frozen=True)
class PowerFits:
    """Penalised weighted least squares for F fits, and the parameters reached so far."""

    weights_ND: Array
    losses_FN: Array
    trust_FN: Array
    penalty: float
    parameters_FP: Array = None  # type: ignore[assignment]

    def best(self, starts: int, steps: int = STEPS) -> PowerFits:
        """Return each fit at the lowest point that its best starts lead to."""
        grid = [self.at(below, decay) for below in FLOORS_BELOW for decay in START_DECAYS]
        order_SF = np.argsort([start.loss() for start in grid], axis=0)[:starts]
        stacked_GFP = np.stack([start.parameters_FP for start in grid])
        rows_F = np.arange(len(self.losses_FN))
        rough = min(steps, ROUGH_STEPS) if starts > 1 else 0
        reached = [
            replace(self, parameters_FP=stacked_GFP[order_F, rows_F]).descend(rough)
            for order_F in order_SF
        ]
        lowest_F = np.argmin([fits.loss() for fits in reached], axis=0)
        reached_SFP = np.stack([fits.parameters_FP for fits in reached])
        return replace(self, parameters_FP=reached_SFP[lowest_F, rows_F]).descend(steps - rough)

    def predict(self, weights_ND: Array) -> Array:
        """Return losses, shape (F, N)."""
        predicted: Array = self.parameters_FP[:, :1] + self.means(weights_ND).heights_NK.T
        return predicted

    def loss(self) -> Array:
        """Return the penalised sums of squares, shape (F,)."""
        residuals_FN, prior_FQ = self.residuals(), self._prior()
        total: Array = (self.trust_FN * residuals_FN**2).sum(axis=1) + (prior_FQ**2).sum(axis=1)
        return total

    def descend(self, steps: int = STEPS) -> PowerFits:
        """Go downhill by Levenberg-Marquardt until no fit gains anything."""
        size = max(CACHED // (self.weights_ND.shape[0] * self.parameters_FP.shape[1]), 1)
        count = len(self.losses_FN)
        parts = [np.arange(at, min(at + size, count)) for at in range(0, count, size)]
        ends = [self._only(rows_F)._descend(steps).parameters_FP for rows_F in parts]
        return replace(self, parameters_FP=np.concatenate(ends))

    def _descend(self, steps: int) -> PowerFits:
        parameters_FP, loss_F = self.parameters_FP.copy(), self.loss()
        damping_F, going_F = np.full(len(loss_F), 1e-2), np.arange(len(loss_F))
        for _ in range(steps):
            here = replace(self, parameters_FP=parameters_FP)._only(going_F)
            there = here._step(damping_F[going_F])
            gain_F = loss_F[going_F] - there.loss()
            better_F = gain_F > 0
            parameters_FP[going_F[better_F]] = there.parameters_FP[better_F]
            ended_F = better_F & (gain_F < ENOUGH * loss_F[going_F])
            loss_F[going_F[better_F]] -= gain_F[better_F]
            damping_F[going_F] *= np.where(better_F, 0.2, 4.0)
            damping_F = np.maximum(damping_F, 1e-9)
            going_F = going_F[~ended_F & (damping_F[going_F] < MAX_DAMPING)]
            if not len(going_F):
                break
        return replace(self, parameters_FP=parameters_FP)

    def inside(self) -> PowerFits:
        """Return the fits with parameters inside their bounds."""
        return replace(self, parameters_FP=np.clip(self.parameters_FP, *self._bounds()))

    def robust(self, cut: float, steps: int = STEPS, rounds: int = 5) -> PowerFits:
        """Weigh down residuals beyond `cut` robust standard deviations, and fit again."""
        fits = self
        for _ in range(rounds):
            size_FN = np.abs(fits.residuals())
            limit_F1 = cut * np.maximum(1.4826 * np.median(size_FN, axis=1, keepdims=True), 1e-6)
            if (size_FN <= limit_F1).all():
                break
            trust_FN = np.minimum(1.0, limit_F1 / np.maximum(size_FN, limit_F1 * 1e-3))
            fits = replace(fits, trust_FN=trust_FN).descend(steps)
        return fits

    def spread(self) -> tuple[Array, Array]:
        """Return residuals' standard deviations, (F,), and inverses of curvature, (F, P, P)."""
        _, curvature_FPP, jacobian_FNP = self._local()
        inverse_FPP: Array = np.linalg.pinv(curvature_FPP, hermitian=True).astype(np.float64)
        leverage_FN = leverage(jacobian_FNP, inverse_FPP)
        freedom_F = self.losses_FN.shape[1] - (self.trust_FN * leverage_FN).sum(axis=1)
        squares_F = (self.residuals() ** 2).sum(axis=1)
        return np.sqrt(squares_F / np.maximum(freedom_F, 1.0)), inverse_FPP

    def residuals(self) -> Array:
        """Predicted less observed losses, shape (F, N)."""
        return self.predict(self.weights_ND) - self.losses_FN

    def means(self, weights_ND: Array) -> PowerMeans:
        """Return the power means at mixtures."""
        return PowerMeans(weights_ND, self.parameters_FP[:, 2:], self.parameters_FP[:, 1])

    def at(self, below: float, decay: float) -> PowerFits:
        """Return the fits with this floor and decay, and heights by least squares."""
        floor_F1 = self._least() - below
        excess_FN = np.maximum(self.losses_FN - floor_F1, below)
        terms_FN = excess_FN ** (-1.0 / decay)
        # An error of a term is this much of an error of the loss.
        trust_FN = self.trust_FN * (decay * excess_FN / terms_FN) ** 2
        usual_F1 = (trust_FN * terms_FN).sum(axis=1, keepdims=True) / trust_FN.sum(
            axis=1, keepdims=True
        )
        domains = self.weights_ND.shape[1]
        curvature_FDD = (self.weights_ND.T * trust_FN[:, None]) @ self.weights_ND
        ridge_F1 = RIDGE * np.einsum("fdd->f", curvature_FDD)[:, None] / domains
        curvature_FDD += ridge_F1[:, :, None] * np.eye(domains)
        sides_FD = (trust_FN * terms_FN) @ self.weights_ND + ridge_F1 * usual_F1
        solved_FD = np.linalg.solve(curvature_FDD, sides_FD[:, :, None])[:, :, 0]
        logs_FD = -decay * np.log(np.maximum(solved_FD, MIN_TERM * usual_F1))
        decay_F1 = np.full_like(floor_F1, np.log(decay))
        start_FP = np.concatenate([floor_F1, decay_F1, logs_FD], axis=1)
        return replace(self, parameters_FP=np.clip(start_FP, *self._bounds()))

    def _least(self) -> Array:
        """Return the least loss that each fit sees, shape (F, 1)."""
        seen_FN = np.where(self.trust_FN > 0, self.losses_FN, np.inf)
        return np.asarray(seen_FN.min(axis=1, keepdims=True), dtype=np.float64)

    def _bounds(self) -> tuple[Array, Array]:
        shape = (len(self.losses_FN), self.weights_ND.shape[1])
        ends = []
        for floor, decay, log in zip((-LOWEST_FLOOR, 0.5), np.log(DECAYS), LOGS, strict=True):
            columns = (self._least() + floor, np.full((shape[0], 1), decay), np.full(shape, log))
            ends.append(np.concatenate(columns, axis=1))
        return ends[0], ends[1]

    def _only(self, rows_F: NDArray[np.intp]) -> PowerFits:
        return replace(
            self,
            losses_FN=self.losses_FN[rows_F],
            trust_FN=self.trust_FN[rows_F],
            parameters_FP=self.parameters_FP[rows_F],
        )

    def _prior(self) -> Array:
        """Return what the prior counts as residuals, shape (F, 1 + D)."""
        decay_F1 = self.parameters_FP[:, 1:2] - np.log(USUAL_DECAY)
        apart_FD = self._height() * self._apart()
        both: Array = np.sqrt(self.penalty) * np.concatenate([decay_F1, apart_FD], axis=1)
        return both

    def _prior_local(self) -> tuple[Array, Array]:
        """Return half the prior's gradient, (F, P), and its curvature, (F, P, P)."""
        apart_FD, height_F1 = self._apart(), self._height()
        squares_F = (apart_FD**2).sum(axis=1)
        fits, domains = apart_FD.shape
        gradient_FP = np.empty((fits, 2 + domains))
        gradient_FP[:, 0] = -height_F1[:, 0] * squares_F  # the height falls as the floor rises
        gradient_FP[:, 1] = self.parameters_FP[:, 1] - np.log(USUAL_DECAY)
        gradient_FP[:, 2:] = height_F1**2 * apart_FD
        curvature_FPP = np.zeros((fits, 2 + domains, 2 + domains))
        curvature_FPP[:, 0, 0] = squares_F
        curvature_FPP[:, 1, 1] = 1.0
        curvature_FPP[:, 0, 2:] = curvature_FPP[:, 2:, 0] = -height_F1 * apart_FD
        curvature_FPP[:, 2:, 2:] = height_F1[:, :, None] ** 2 * (np.eye(domains) - 1.0 / domains)
        return self.penalty * gradient_FP, self.penalty * curvature_FPP

    def _apart(self) -> Array:
        logs_FD = self.parameters_FP[:, 2:]
        apart: Array = logs_FD - logs_FD.mean(axis=1, keepdims=True)
        return apart

    def _height(self) -> Array:
        """Return how high a typical loss is over the floor, shape (F, 1); never 0."""
        return np.asarray(1.0 + np.maximum(-self.parameters_FP[:, :1], 0.0), dtype=np.float64)

    def _step(self, damping_F: Array) -> PowerFits:
        gradient_FP, curvature_FPP, _ = self._local()
        low_FP, high_FP = self._bounds()
        here_FP = self.parameters_FP
        # What would leave its bounds is held, and the others move without it.
        held_FP = (here_FP <= low_FP) & (gradient_FP > 0) | (here_FP >= high_FP) & (gradient_FP < 0)
        free_FP = ~held_FP
        curvature_FPP = curvature_FPP * free_FP[:, :, None] * free_FP[:, None]
        diagonal_FP = np.einsum("fpp->fp", curvature_FPP)
        added_FP = damping_F[:, None] * (diagonal_FP + 1e-9) + held_FP
        damped_FPP = curvature_FPP + added_FP[:, :, None] * np.eye(here_FP.shape[1])
        move_FP = np.linalg.solve(damped_FPP, (gradient_FP * free_FP)[:, :, None])[:, :, 0]
        return replace(self, parameters_FP=np.clip(here_FP - move_FP, low_FP, high_FP))

    def _local(self) -> tuple[Array, Array, Array]:
        """Return half the gradient, half the Gauss-Newton curvature, and the Jacobian."""
        means = self.means(self.weights_ND)
        jacobian_FNP = means.by_parameter()
        residuals_FN = self.parameters_FP[:, :1] + means.heights_NK.T - self.losses_FN
        gradient_FP, curvature_FPP = self._prior_local()
        gradient_FP += ((self.trust_FN * residuals_FN)[:, None] @ jacobian_FNP)[:, 0]
        weighted_FNP = jacobian_FNP * self.trust_FN[:, :, None]
        curvature_FPP += jacobian_FNP.transpose(0, 2, 1) @ weighted_FNP
        return gradient_FP, curvature_FPP, jacobian_FNP


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
        """Return the law as plain numbers (mixopt.fitting.regressor)."""
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
        return self._unfitted(penalty=float(self.penalty_))

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
        fold_N = self._fold_of(weights_ND)
        if fold_N is None:
            return max(PENALTIES)
        folds = int(fold_N.max()) + 1
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
        jacobian_MNP = self._means(weights_ND).by_parameter()
        return delta_stds(self.noise_M, jacobian_MNP, self.inverse_MPP)
