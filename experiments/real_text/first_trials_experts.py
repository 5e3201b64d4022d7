"""A mixture of trials' predicted probabilities, token by token, for first_trials.py.

The predicted loss of a mixture is -mean_t log sum_k c_k p_k(t) over the tokens of held-out text,
where p_k is what the axial trial of domain k gives the token that is there. Coefficients are the
mixture's weights, or, where the mixture is inside the hull of the axial ones, those that combine
them to it. A fit keeps the experts that are among its rows, and learns nothing else, or the mean
error of each target (`Levelled`). What an absent expert should say, the centre's trial says.

Shapes: N trials, D domains, M targets, K = D + 1 experts (the centre last), X tokens.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin

from mixopt.system import Array, BoolArray


class Experts:
    """The experts of the design at hand: their mixtures, and probabilities of held-out tokens.

    Attributes:
        weights_KD: Mixtures.
        probabilities_MKX: Of the tokens of each target.
    """

    weights_KD: Array
    probabilities_MKX: Array

    @classmethod
    def place(cls, weights_KD: Array, losses_KMX: Array) -> None:
        """Take the experts of a design, from losses of tokens in nats."""
        cls.weights_KD = weights_KD
        cls.probabilities_MKX = np.exp(-losses_KMX.astype(np.float32)).swapaxes(0, 1)


class ByWeights(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Coefficients are the mixture's weights."""

    exact_inside = False
    levelled = False

    def fit(self, weights_ND: Array, losses_NM: Array) -> Self:
        """Keep the experts that are among the rows."""
        apart_KN = np.abs(Experts.weights_KD[:, None] - np.asarray(weights_ND)).max(2)
        self.known_K_: BoolArray = (apart_KN < 1e-9).any(1)
        self.offsets_M_ = np.zeros(np.shape(losses_NM)[1])
        if self.levelled:
            self.offsets_M_ = (losses_NM - self.predict(weights_ND)).mean(0)
        return self

    def predict(self, weights_ND: Array) -> Array:
        """Return losses, shape (N, M)."""
        rows_NK = np.stack([self._coefficients(w_D) for w_D in np.asarray(weights_ND)])
        means = [-np.log(rows_NK.astype(np.float32) @ p_KX) for p_KX in Experts.probabilities_MKX]
        losses_NM = np.stack([found_NX.mean(1, dtype=np.float64) for found_NX in means], 1)
        predicted: Array = losses_NM + self.offsets_M_
        return predicted

    def _coefficients(self, weights_D: Array) -> Array:
        found_K = np.append(weights_D, 0.0)
        if self.exact_inside:
            inside_D = np.linalg.solve(Experts.weights_KD[:-1].T, weights_D)
            if inside_D.min() >= -1e-9:
                found_K = np.append(np.maximum(inside_D, 0.0), 0.0)
        absent_K = ~self.known_K_
        found_K[-1] += found_K[absent_K].sum()
        found_K[:-1][absent_K[:-1]] = 0.0
        return found_K / found_K.sum()


class InsideHull(ByWeights):
    """Coefficients combine the experts' mixtures to the mixture where they can."""

    exact_inside = True


class Levelled(ByWeights):
    """`ByWeights` with the mean error of each target on the fitted rows taken off."""

    levelled = True
