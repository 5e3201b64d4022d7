"""The kernel of the Gaussian process.

A domain's first percent changes a loss more than its last ten, so weights are warped by a power
that is steep at 0, and compared by a Matérn kernel:

    z_j = (w_j + 1e-9)^p,   k(w, v) = s Matern52(sqrt(sum_j ((z_j - z'_j) / l_j)^2)) + constant

Each domain has a length scale l_j. The constant is the prior variance of the mean loss. On the
published RegMix runs the warp is essential, and centring it over the domains (as in log-ratios)
hurts.

Derivatives are written by hand: with expanded squared distances, the derivative by all D length
scales costs about as much as the kernel.

Shapes: N and K mixtures, D domains, P = D + 3 parameters: log lengths, logit of the power, log of
the variance s, log of the noise. Losses are in standard deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixopt.system import Array

SHIFT = 1e-9
CONSTANT = 10.0  # far above any mean of standardised losses
JITTER = 1e-8  # added to the diagonal for Cholesky, relative to the kernel's height
STEEPEST = 1e-4  # the warp's slope is constant below this weight


@dataclass(frozen=True)
class Pairs:
    """Two sets of warped mixtures, and the kernel of each pair with its derivative."""

    left_ND: Array
    right_KD: Array
    similarity_NK: Array
    slope_NK: Array


@dataclass(frozen=True)
class Matern:
    """The kernel's parameters, and the variance of the noise."""

    lengths_D: Array
    power: float
    variance: float
    noise: float

    @classmethod
    def of(cls, parameters_P: Array) -> Matern:
        """Return the kernel of parameters on the scales of this module's docstring."""
        power = 1.0 / (1.0 + np.exp(-parameters_P[-3]))
        variance, noise = np.exp(parameters_P[-2:])
        return cls(np.exp(parameters_P[:-3]), float(power), float(variance), float(noise))

    @property
    def jittered_noise(self) -> float:
        """Noise variance with the jitter."""
        return self.noise + JITTER * (self.variance + 1.0)

    def scaled(self, weights_ND: Array) -> Array:
        """Return warped weights in units of the lengths."""
        return self.warped(log_weights(weights_ND))

    def warped(self, logs_ND: Array) -> Array:
        """Return warped weights from `log_weights`."""
        return np.exp(self.power * logs_ND) / self.lengths_D

    def pairs(self, left_ND: Array, right_KD: Array) -> Pairs:
        """Compare warped mixtures from `scaled`."""
        center_D = right_KD.mean(axis=0)  # centring reduces cancellation
        left = left_ND - center_D
        right = right_KD - center_D
        similarity_NK, slope_NK = matern_and_slope(_squared_distances(left, right))
        return Pairs(left, right, similarity_NK, slope_NK)

    def covariance(self, pairs: Pairs) -> Array:
        """Return the prior covariance of two sets of mixtures, shape (N, K)."""
        covariance_NK: Array = self.variance * pairs.similarity_NK
        covariance_NK += CONSTANT
        return covariance_NK

    def noisy(self, pairs: Pairs) -> Array:
        """Return the covariance of trials including noise, from pairs of a set with itself."""
        covariance_NN = self.covariance(pairs)
        covariance_NN[np.diag_indices(len(covariance_NN))] += self.jittered_noise
        return covariance_NN

    def pull_back(self, pairs: Pairs, logs_ND: Array, by_covariance_NN: Array) -> Array:
        """Return the derivative by the parameters, shape (P,), of a function of `noisy`."""
        scaled_ND = pairs.left_ND
        pull_NN = by_covariance_NN * pairs.slope_NK
        pull_NN *= 4.0 * self.variance
        by_scaled_ND = pull_NN.sum(axis=1)[:, None] * scaled_ND - pull_NN @ scaled_ND
        # The centring has no effect: by_scaled_ND adds up to 0.
        by_power = (by_scaled_ND * logs_ND * self.warped(logs_ND)).sum()
        trace = np.trace(by_covariance_NN)
        by_variance = np.vdot(by_covariance_NN, pairs.similarity_NK) + JITTER * trace
        return np.concatenate(
            [
                -(by_scaled_ND * scaled_ND).sum(axis=0),
                [by_power * self.power * (1.0 - self.power)],
                [by_variance * self.variance, trace * self.noise],
            ]
        )

    def push_forward(
        self, pairs: Pairs, left_logs_ND: Array, right_logs_KD: Array, dual_K: Array
    ) -> Array:
        """Return the derivative of covariance @ dual by the parameters, shape (N, P)."""
        left = pairs.left_ND
        right = pairs.right_KD
        pull_NK = self.variance * pairs.slope_NK * dual_K
        total_N1 = pull_NK.sum(axis=1)[:, None]
        by_lengths_ND = left**2 * total_N1 - 2.0 * left * (pull_NK @ right) + pull_NK @ right**2
        # d(scaled)/d(power) is scaled x log weight.
        left_turn = self.warped(left_logs_ND) * left_logs_ND
        right_turn = self.warped(right_logs_KD) * right_logs_KD
        by_power_N = (
            (left * left_turn).sum(axis=1) * total_N1[:, 0]
            - (left * (pull_NK @ right_turn)).sum(axis=1)
            - (left_turn * (pull_NK @ right)).sum(axis=1)
            + pull_NK @ (right * right_turn).sum(axis=1)
        )
        by_power_N *= 2.0 * self.power * (1.0 - self.power)
        by_variance_N = self.variance * (pairs.similarity_NK @ dual_K)
        by_noise_N = np.zeros(len(left))
        return np.column_stack([-2.0 * by_lengths_ND, by_power_N, by_variance_N, by_noise_N])

    def push_forward_noisy(self, pairs: Pairs, logs_ND: Array, dual_N: Array) -> Array:
        """Return the derivative of `noisy` @ dual by the parameters, shape (N, P)."""
        moved_NP = self.push_forward(pairs, logs_ND, logs_ND, dual_N)
        moved_NP[:, -2] += JITTER * self.variance * dual_N
        moved_NP[:, -1] = self.noise * dual_N
        return moved_NP


def log_weights(weights_ND: Array) -> Array:
    """Return log(w + shift); weights below 0, from rounding in a search, count as 0."""
    return np.log(np.maximum(weights_ND, 0.0) + SHIFT)


def _squared_distances(left_ND: Array, right_KD: Array) -> Array:
    squared_NK: Array = left_ND @ right_KD.T
    squared_NK *= -2.0
    squared_NK += (left_ND**2).sum(axis=1)[:, None]
    squared_NK += (right_KD**2).sum(axis=1)
    return np.maximum(squared_NK, 0.0, out=squared_NK)


def matern_and_slope(squared_NK: Array) -> tuple[Array, Array]:
    """Return (1 + r + r^2/3) e^-r with r = sqrt(5) times the distance, and its slope."""
    distance_NK = np.sqrt(np.multiply(squared_NK, 5.0, out=squared_NK), out=squared_NK)
    decay_NK = np.exp(-distance_NK)
    slope_NK = (1.0 + distance_NK) * decay_NK
    distance_NK *= distance_NK
    distance_NK *= decay_NK
    distance_NK /= 3.0
    distance_NK += slope_NK
    slope_NK *= -5.0 / 6.0
    return distance_NK, slope_NK
