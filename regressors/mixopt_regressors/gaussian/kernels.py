"""Similarity of the losses of two mixtures, and of two trials that also differ in size.

A domain's first percent changes a loss more than its last ten, so weights are warped by a power
that is steep at 0 before distances are taken, and compared by a Matérn kernel:

    z_j = (w_j + 1e-9)^p,   k(w, v) = s Matern52(sqrt(sum_j ((z_j - z'_j) / l_j)^2)) + constant

A length l_j for each domain says how far its weight must move before the loss is another. The
constant is the prior variance of the mean loss. On the published RegMix runs the warp is essential,
and centring it over the domains (as log-ratios are) hurts.

A loss at P parameters and T tokens is

    L(w, P, T) = E + h(w) + (A + f(w)) (P / P0)^-a + (B + g(w)) (T / T0)^-b

a scaling law whose floor and amplitudes depend on the mixture (as in Data Mixing Laws' nesting and
Scaling Laws for Optimal Data Mixtures; Gaussian processes are ours): h, f and g are processes of
one kernel on mixtures, E, A and B are nearly free. With P0 and T0 the most of any trial, and P1 and
T1 the least, the kernel is written with

    m = (P / P1)^-a                                     1 at the least P, falling
    c = ((P / P0)^-a - 1) / ((P1 / P0)^-a - 1)          1 at the least P, 0 at the most

and the same for tokens: A and B are amplitudes at the least, h is the mixture's effect at the
largest scale, f and g are how it differs at the smallest. Trials of one scale have c = 0, and the
kernel is the one on mixtures.

Everything here has its derivative next to it, by hand: with the squared distances expanded, a
derivative by all D lengths costs about as much as the kernel.

Shapes: N and K mixtures or trials, D domains, P = D + 3 parameters: log lengths, logit of the
power, log of the variance s, log of the noise; with sizes 4 more: for parameters and for tokens the
log variance of f and g over that of h, then log a and log b. Rows are weights, with sizes also
log(P / P0) and log(T / T0). Losses are in standard deviations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mixopt.system import Array

SHIFT = 1e-9
CONSTANT = 10.0  # far above any mean of standardised losses
JITTER = 1e-8  # part of the kernel's height added to its diagonal, for Cholesky
STEEPEST = 1e-4  # below this weight the warp's slope counts as it is here


@dataclass(frozen=True)
class Pairs:
    """Two sets of mixtures, and what depends on the distance of each pair."""

    left_ND: Array
    right_KD: Array
    alike_NK: Array
    slope_NK: Array


@dataclass(frozen=True)
class Matern:
    """The kernel with its parameters, and the variance of the noise."""

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

    @staticmethod
    def logs(rows: Array) -> Array:
        """Return what derivatives by the power need of mixtures."""
        return log_weights(rows)

    def side(self, rows: Array, logs_ND: Array) -> Array:
        """Return one side of `pairs`."""
        return self.warped(logs_ND)

    @property
    def jittered_noise(self) -> float:
        """Variance of a trial about the law, with the jitter."""
        return self.noise + JITTER * (self.variance + 1.0)

    def scaled(self, weights_ND: Array) -> Array:
        """Return warped weights in units of the lengths."""
        return self.warped(log_weights(weights_ND))

    def warped(self, logs_ND: Array) -> Array:
        """Return what `scaled` does, from `log_weights`."""
        warped_ND: Array = np.exp(self.power * logs_ND) / self.lengths_D
        return warped_ND

    def pairs(self, left_ND: Array, right_KD: Array) -> Pairs:
        """Compare mixtures that `scaled` returned."""
        interior_point_D = right_KD.mean(axis=0)  # smaller numbers cancel less
        left, right = left_ND - interior_point_D, right_KD - interior_point_D
        alike_NK, slope_NK = matern_and_slope(_squared_distances(left, right))
        return Pairs(left, right, alike_NK, slope_NK)

    def covariance(self, pairs: Pairs) -> Array:
        """Return the covariance of the law at two sets of mixtures, shape (N, K)."""
        covariance_NK: Array = self.variance * pairs.alike_NK
        covariance_NK += CONSTANT
        return covariance_NK

    def height(self, pairs: Pairs) -> Array | float:
        """Return the prior variance of the left side's law."""
        return self.variance + CONSTANT

    def noisy(self, pairs: Pairs) -> Array:
        """Return the covariance of trials, noise and all, from pairs of a set with itself."""
        covariance_NN = self.covariance(pairs)
        covariance_NN[np.diag_indices(len(covariance_NN))] += self.jittered_noise
        return covariance_NN

    def slopes(self, weights_D: Array, rows: Array, dual_N: Array) -> Array:
        """Return the derivative of k(w, rows) @ dual by the weights at one mixture, shape (D,)."""
        pairs = self.pairs(self.scaled(weights_D[None]), rows)
        pull_N = 2.0 * self.variance * pairs.slope_NK[0] * dual_N
        by_scaled_D = pull_N.sum() * pairs.left_ND[0] - pull_N @ pairs.right_KD
        steep_D = np.exp((self.power - 1.0) * np.log(np.maximum(weights_D, STEEPEST) + SHIFT))
        slopes_D: Array = by_scaled_D * self.power * steep_D / self.lengths_D
        return slopes_D

    def pull_back(self, pairs: Pairs, logs_ND: Array, by_covariance_NN: Array) -> Array:
        """Return the derivative by the parameters, shape (P,), of what depends on `noisy`."""
        scaled_ND = pairs.left_ND
        pull_NN = by_covariance_NN * pairs.slope_NK
        pull_NN *= 4.0 * self.variance
        by_scaled_ND = pull_NN.sum(axis=1)[:, None] * scaled_ND - pull_NN @ scaled_ND
        # The mean over rows that was taken off plays no part: by_scaled_ND adds up to 0.
        by_power = (by_scaled_ND * logs_ND * self.warped(logs_ND)).sum()
        trace = np.trace(by_covariance_NN)
        by_variance = np.vdot(by_covariance_NN, pairs.alike_NK) + JITTER * trace
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
        left, right = pairs.left_ND, pairs.right_KD
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
        by_variance_N = self.variance * (pairs.alike_NK @ dual_K)
        by_noise_N = np.zeros(len(left))
        return np.column_stack([-2.0 * by_lengths_ND, by_power_N, by_variance_N, by_noise_N])

    def push_forward_noisy(self, pairs: Pairs, logs_ND: Array, dual_N: Array) -> Array:
        """Return the derivative of `noisy` @ dual by the parameters, shape (N, P)."""
        moved_NP = self.push_forward(pairs, logs_ND, logs_ND, dual_N)
        moved_NP[:, -2] += JITTER * self.variance * dual_N
        moved_NP[:, -1] = self.noise * dual_N
        return moved_NP


def log_weights(weights_ND: Array) -> Array:
    """Return log(w + shift); a weight below 0, by rounding in a search, counts as 0."""
    logs: Array = np.log(np.maximum(weights_ND, 0.0) + SHIFT)
    return logs


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

    @staticmethod
    def logs(rows: Array) -> Array:
        """Return what derivatives by the power need of mixtures."""
        return log_weights(rows[:, :-2])

    def side(self, rows: Array, logs_ND: Array) -> tuple[Array, Array]:
        """Return one side of `pairs`: warped mixtures and scales."""
        return self.matern.warped(logs_ND), rows[:, -2:]

    @property
    def jittered_noise(self) -> float:
        """Variance of a trial about the law, with the jitter."""
        return self.matern.jittered_noise

    def pairs(self, left: tuple[Array, Array], right: tuple[Array, Array]) -> ScaledPairs:
        """Compare trials, each side given as its warped mixtures and its scales."""
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

    def slopes(self, row: Array, side: tuple[Array, Array], dual_N: Array) -> Array:
        """Return the derivative of k(row, side) @ dual by the row's weights, shape (D,)."""
        both = (row[None, -2:], side[1])
        left, right = (Terms.of(self.exponents_2, scales, self.reach_2) for scales in both)
        shared_N = 1.0 + right.changes_N2 @ (self.changes_2 * left.changes_N2[0])
        return self.matern.slopes(row[:-2], side[0], dual_N * shared_N)

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


Kernel = Matern | ScaleKernel


def kernel_of(parameters_P: Array, reach_2: Array | None = None) -> Kernel:
    """Return the kernel of parameters; with sizes, for the least scales of the trials."""
    return Matern.of(parameters_P) if reach_2 is None else ScaleKernel.of(parameters_P, reach_2)
