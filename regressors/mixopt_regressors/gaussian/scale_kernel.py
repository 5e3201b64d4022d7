"""Similarity of the losses of two trials that also differ in model size or tokens.

A loss at P parameters and T tokens is

    L(w, P, T) = E + h(w) + (A + f(w)) (P / P0)^-a + (B + g(w)) (T / T0)^-b

a scaling law whose floor and amplitudes depend on the mixture: h, f and g are Gaussian processes of
one kernel on mixtures (mixopt_regressors.gaussian.matern), E, A and B are nearly free. With P0 and
T0 the most of any trial, and P1 and T1 the least, the kernel is written with

    m = (P / P1)^-a                                     1 at the least P, falling
    c = ((P / P0)^-a - 1) / ((P1 / P0)^-a - 1)          1 at the least P, 0 at the most

and the same for tokens: A and B are amplitudes at the least, h is the mixture's effect at the
largest scale, f and g are how it differs at the smallest. Trials of one scale have c = 0, and the
kernel is the one on mixtures.

That a scaling law's terms depend on the mixture is Data Mixing Laws' nesting and the form of
Scaling Laws for Optimal Data Mixtures; taking each for a Gaussian process is ours.

Shapes: N and K trials, D domains, P = D + 7 parameters: those of the Matern kernel (D + 3), then
for parameters and for tokens the log variance of f and g over that of h, then log a and log b.
Scales are log(P / P0) and log(T / T0), shape (N, 2). Losses are in standard deviations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import lapack

from mixopt.system import Array, IntArray
from mixopt_regressors.gaussian.hyperparameters import (
    Evidence,
    Prior,
    cholesky,
    replicate_variances,
)
from mixopt_regressors.gaussian.matern import CONSTANT, Matern, Pairs

CHANGE, CHANGE_SPREAD = 0.1, 1.5  # of the logarithm; so is the next
EXPONENT, EXPONENT_SPREAD = 0.2, 0.5
AMPLITUDE = 100.0  # far above a squared amplitude of standardised losses
OWN = 4  # parameters that are not the Matern kernel's


@dataclass(frozen=True)
class Terms:
    """The terms of a scaling law at some scales, parameters and tokens side by side."""

    falls_N2: Array
    changes_N2: Array
    falls_by_log_N2: Array
    changes_by_log_N2: Array

    @classmethod
    def of(cls, exponents_2: Array, scales_N2: Array, reach_2: Array) -> Terms:
        """Return the terms."""
        up_N2, most_2 = -exponents_2 * scales_N2, -exponents_2 * reach_2
        whole_2 = np.where(most_2 > 0, np.expm1(most_2), np.inf)
        changes_N2 = np.expm1(up_N2) / whole_2
        by_log_N2 = up_N2 * np.exp(up_N2) - changes_N2 * most_2 * np.exp(most_2)
        falls_N2 = np.exp(up_N2 - most_2)
        return cls(falls_N2, changes_N2, (up_N2 - most_2) * falls_N2, by_log_N2 / whole_2)


@dataclass(frozen=True)
class ScaledPairs:
    """Trials in pairs: their mixtures, and the terms of both sides."""

    mixtures: Pairs
    both: Pairs
    left: Terms
    right: Terms


@dataclass(frozen=True)
class ScaleKernel:
    """The kernel with its parameters, and the variance of the noise."""

    matern: Matern
    changes_2: Array
    exponents_2: Array
    reach_2: Array

    @classmethod
    def of(cls, parameters_P: Array, reach_2: Array) -> ScaleKernel:
        """Return the kernel of parameters on the scales of this module's docstring."""
        own_4 = np.exp(parameters_P[-OWN:])
        return cls(Matern.of(parameters_P[:-OWN]), own_4[:2], own_4[2:], reach_2)

    def pairs(self, left: tuple[Array, Array], right: tuple[Array, Array]) -> ScaledPairs:
        """Compare trials, each side given as its scaled mixtures and its scales."""
        mixtures = self.matern.pairs(left[0], right[0])
        terms = [Terms.of(self.exponents_2, side[1], self.reach_2) for side in (left, right)]
        shared_NK = 1.0 + (terms[0].changes_N2 * self.changes_2) @ terms[1].changes_N2.T
        both = replace(
            mixtures,
            alike_NK=mixtures.alike_NK * shared_NK,
            slope_NK=mixtures.slope_NK * shared_NK,
        )
        return ScaledPairs(mixtures, both, *terms)

    def covariance(self, pairs: ScaledPairs) -> Array:
        """Return the covariance of the law at two sets of trials, shape (N, K)."""
        covariance_NK: Array = self.matern.covariance(pairs.both)
        covariance_NK += AMPLITUDE * pairs.left.falls_N2 @ pairs.right.falls_N2.T
        return covariance_NK

    def noisy(self, pairs: ScaledPairs) -> Array:
        """Return the covariance of trials, noise and all, from pairs of a set with itself."""
        covariance_NN = self.covariance(pairs)
        covariance_NN[np.diag_indices(len(covariance_NN))] += self.matern.jittered_noise
        return covariance_NN

    def height(self, pairs: ScaledPairs) -> Array:
        """Return the prior variance of the left side's law, shape (N,)."""
        mixtures_N = self.matern.variance * (1.0 + pairs.left.changes_N2**2 @ self.changes_2)
        height_N: Array = mixtures_N + AMPLITUDE * (pairs.left.falls_N2**2).sum(axis=1)
        return height_N + CONSTANT

    def slopes(self, weights_D: Array, pairs: ScaledPairs, rows_ND: Array, dual_N: Array) -> Array:
        """Return the derivative of k(trial, rows) @ dual by the trial's weights, shape (D,)."""
        shared_N = 1.0 + pairs.right.changes_N2 @ (self.changes_2 * pairs.left.changes_N2[0])
        return self.matern.slopes(weights_D, rows_ND, dual_N * shared_N)

    def pull_back(self, pairs: ScaledPairs, logs_ND: Array, by_covariance_NN: Array) -> Array:
        """Return the derivative by the parameters, shape (P,), of what depends on `noisy`."""
        own = [float(np.vdot(by_covariance_NN, by_NN)) for by_NN in self._by_own(pairs)]
        return np.append(self.matern.pull_back(pairs.both, logs_ND, by_covariance_NN), own)

    def push_forward(
        self, pairs: ScaledPairs, left_logs_ND: Array, right_logs_KD: Array, dual_K: Array
    ) -> Array:
        """Return the derivative of covariance @ dual by the parameters, shape (N, P)."""
        moved_NP = self.matern.push_forward(pairs.both, left_logs_ND, right_logs_KD, dual_K)
        return np.column_stack([moved_NP, *(by_NK @ dual_K for by_NK in self._by_own(pairs))])

    def push_forward_noisy(self, pairs: ScaledPairs, logs_ND: Array, dual_N: Array) -> Array:
        """Return the derivative of `noisy` @ dual by the parameters, shape (N, P)."""
        moved_NP = self.matern.push_forward_noisy(pairs.both, logs_ND, dual_N)
        return np.column_stack([moved_NP, *(by_NN @ dual_N for by_NN in self._by_own(pairs))])

    def _by_own(self, pairs: ScaledPairs) -> Iterator[Array]:
        """Yield the derivatives of the covariance by the parameters that are not Matern's."""
        left, right = pairs.left, pairs.right
        effects = [self.matern.variance * r * pairs.mixtures.alike_NK for r in self.changes_2]
        for j, effect_NK in enumerate(effects):
            yield effect_NK * np.outer(left.changes_N2[:, j], right.changes_N2[:, j])
        for j, effect_NK in enumerate(effects):
            changed_NK = np.outer(left.changes_by_log_N2[:, j], right.changes_N2[:, j])
            changed_NK += np.outer(left.changes_N2[:, j], right.changes_by_log_N2[:, j])
            fallen_NK = np.outer(left.falls_by_log_N2[:, j], right.falls_N2[:, j])
            fallen_NK += np.outer(left.falls_N2[:, j], right.falls_by_log_N2[:, j])
            yield effect_NK * changed_NK + AMPLITUDE * fallen_NK


@dataclass(frozen=True)
class ScaleEvidence(Evidence):
    """Trials of several scales, and how probable parameters are in the light of them."""

    scales_N2: Array
    reach_2: Array

    def some(self, rows_K: IntArray) -> ScaleEvidence:
        """Return the evidence of some of the trials; the prior knows all of them."""
        return replace(
            self,
            weights_ND=self.weights_ND[rows_K],
            losses_N=self.losses_N[rows_K],
            scales_N2=self.scales_N2[rows_K],
        )

    def objective(self, whitened_P: Array, logs_ND: Array) -> tuple[float, Array]:
        """Return minus the log posterior and its gradient, but for a constant."""
        kernel = ScaleKernel.of(
            self.prior.centers_P + self.prior.spreads_P * whitened_P, self.reach_2
        )
        side = (kernel.matern.warped(logs_ND), self.scales_N2)
        pairs = kernel.pairs(side, side)
        factor_NN = cholesky(kernel.noisy(pairs))
        dual_N = lapack.dpotrs(factor_NN, self.losses_N, lower=1)[0]
        value = 0.5 * self.losses_N @ dual_N + np.log(np.diag(factor_NN)).sum()
        by_covariance_NN = lapack.dpotrs(factor_NN, np.eye(len(dual_N)), lower=1)[0]
        by_covariance_NN = 0.5 * (by_covariance_NN - np.outer(dual_N, dual_N))
        gradient_P = kernel.pull_back(pairs, logs_ND, by_covariance_NN)
        value += 0.5 * whitened_P @ whitened_P
        return float(value), self.prior.spreads_P * gradient_P + whitened_P


def scale_evidences(weights_ND: Array, scales_N2: Array, losses_NM: Array) -> list[ScaleEvidence]:
    """Return the evidence of each target; trials are replicates where their scales agree too."""
    reach_2 = scales_N2.min(axis=0)
    variance_M, freedom = replicate_variances(np.hstack([weights_ND, scales_N2]), losses_NM)
    return [
        ScaleEvidence(
            weights_ND, losses_N, _prior(weights_ND, variance, freedom), scales_N2, reach_2
        )
        for losses_N, variance in zip(losses_NM.T, variance_M.tolist(), strict=True)
    ]


def _prior(weights_ND: Array, variance: float, freedom: int) -> Prior:
    mixtures = Prior.of(weights_ND.shape[1], variance, freedom)
    own = np.log([CHANGE, CHANGE, EXPONENT, EXPONENT])
    spreads = [CHANGE_SPREAD, CHANGE_SPREAD, EXPONENT_SPREAD, EXPONENT_SPREAD]
    return Prior(np.append(mixtures.centers_P, own), np.append(mixtures.spreads_P, spreads))
