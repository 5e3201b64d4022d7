"""Power means of heights: the curve that the power law and its shared units are made of.

An effective-data power law, k (e + sum_j A_j w_j)^(-g), has more parameters than it can show:
weights add up to 1, so that e goes into A, and k goes there too. What is left is one number for
each domain, and the natural one is h_j, the height over the floor that training on domain j alone
would give:

    h(w) = (sum_j w_j h_j^(-1/g))^(-g)

This is the power mean of the heights with exponent -1/g. It is between the least and the greatest
of them, it is convex in w, and the decay g says how sharply it falls with the first few samples of
a domain that helps. A large g is the geometric mean, which is the data mixing law.

Shapes: N mixtures, D domains, K means.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixopt.system import Array

DECAYS = (0.05, 20.0)
LOGS = (-12.0, 6.0)  # of heights in standard deviations; with least decays, sums stay normal
MOST = 30.0  # largest logarithm of a mean, in case a mixture is outside the simplex
NOTHING = 1e-300  # a mixture without any weight has a finite mean


@dataclass(frozen=True)
class PowerMeans:
    """Means of heights at mixtures, and their derivatives.

    Attributes:
        weights_ND: Mixtures.
        logs_KD: Logarithms of the heights.
        log_decays_K: Logarithms of the decays g.
    """

    weights_ND: Array
    logs_KD: Array
    log_decays_K: Array

    @cached_property
    def heights_NK(self) -> Array:
        """The means."""
        heights: Array = np.exp(np.minimum(self.logs_NK, MOST))
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
        """Return derivatives of a loss by the log decays, (K,), and by the logs, (K, D).

        Args:
            slopes_NK: Derivatives of the loss by the means.
        """
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
