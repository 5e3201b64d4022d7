"""A regressor of proxies' losses that predicts those of another size, by a correction.

It has all that a search and refits ask of a regressor (mixopt.fitting.regressor), so neither knows
of pilots. Fitted again on resampled trials, it keeps the pilots and draws their lines again,
through what the refit predicts for them.

Shapes: N mixtures, K pilots, D domains, M targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mixopt.fitting.capabilities import (
    Learner,
    Predictor,
    supports_gradient,
    supports_plain_law,
    supports_refit,
)
from mixopt.fitting.pilot_correction import Correction
from mixopt.fitting.regressor import fit_regressor, predict_with_std, select_targets
from mixopt.system import Array

LEAST = 0.25  # of what is typical: a regressor that claims to know is not believed further


@dataclass(frozen=True, eq=False)
class Corrected:
    """A fitted regressor and what carries its predictions to the pilots' size.

    Attributes:
        name: The regressor's.
        regressor: Predicts losses of the trials' size.
        correction: Carries them over.
        typical_M: Deviations that are typical of the regressor; 0 where it has none.
        make: Builds an unfitted regressor, where this one has no `tuned`.
        losses_LM: Of the trials, at the regressor's size; an objective's spread is from them.
    """

    name: str
    regressor: Predictor
    correction: Correction
    typical_M: Array
    make: Callable[[], Learner]
    losses_LM: Array

    def predict(self, weights_ND: ArrayLike, return_std: bool = False) -> Any:
        """Predict losses at the pilots' size, shape (N, M), and deviations of a run if asked."""
        weights = np.asarray(weights_ND, dtype=np.float64)
        means_NM, stds_NM = self.own(weights, with_std=return_std)
        return self.carry(means_NM, stds_NM, weights, return_std=return_std)

    def carry(self, means_NM: Array, stds_NM: Array, weights_ND: Array, *, return_std: bool) -> Any:
        """Carry over what the regressor predicts, as `own` returns it."""
        corrected_NM = self.correction.apply(means_NM, weights_ND)
        if not return_std:
            return corrected_NM
        return corrected_NM, self.correction.std(means_NM, weights_ND, self._relative(stds_NM))

    @property
    def gradient(self) -> Callable[[ArrayLike], Array]:
        """The slope of each loss by each weight; there is one where the regressor has one."""
        own = self.regressor
        if not supports_gradient(own):
            raise AttributeError(f"regressor {self.name!r} has no gradient")

        def gradient(weights_D: ArrayLike) -> Array:
            weights = np.asarray(weights_D, dtype=np.float64)
            return self.correction.gradient(np.asarray(own.gradient(weights)), weights)

        return gradient

    @property
    def plain_law(self) -> Callable[[], dict[str, Any]]:
        """The law as plain numbers; there is one where the regressor has one."""
        own = self.regressor
        if not supports_plain_law(own):
            raise AttributeError(f"regressor {self.name!r} has no plain law")

        def plain_law() -> dict[str, Any]:
            carried = {**self.correction.plain_law(), "typical_M": self.typical_M}
            return {"kind": "corrected", "model": own.plain_law(), **carried}

        return plain_law

    def select(self, targets: Sequence[int]) -> Corrected:
        """Return one that predicts only these targets, by position."""
        return replace(
            self,
            regressor=select_targets(self.regressor, targets),
            correction=self.correction.select(targets),
            typical_M=self.typical_M[list(targets)],
            losses_LM=self.losses_LM[:, list(targets)],
        )

    def tuned(self) -> CorrectedRefit:
        """Return one to fit again, on resampled trials and with the same pilots."""
        own = self.regressor
        return CorrectedRefit(self, own.tuned() if supports_refit(own) else self.make())

    def over(self, fitted: Predictor) -> Corrected:
        """Return the same correction of another fit, its lines drawn through that one's values."""
        again = replace(self, regressor=fitted)
        predicted_KM, _ = again.own(self.correction.weights_KD, with_std=False)
        return replace(again, correction=replace(self.correction, predicted_KM=predicted_KM))

    def own(self, weights_ND: Array, *, with_std: bool) -> tuple[Array, Array]:
        """Return what the regressor predicts at its own size, and its deviations if asked."""
        if with_std:
            return predict_with_std(self.regressor, weights_ND)
        means = np.asarray(self.regressor.predict(weights_ND), dtype=np.float64)
        return means.reshape(len(weights_ND), -1), np.empty(0)

    def _relative(self, stds_NM: Array) -> Array:
        """Return the regressor's deviations over what is typical of it; 1 where it has none."""
        known_M = self.typical_M > 0
        relative_NM = np.where(known_M, stds_NM / np.where(known_M, self.typical_M, 1.0), 1.0)
        return np.maximum(relative_NM, LEAST)


@dataclass(frozen=True, eq=False)
class CorrectedRefit:
    """A regressor to fit again, and what its fit is corrected like.

    Attributes:
        corrected: A fit with its correction.
        regressor: Unfitted.
    """

    corrected: Corrected
    regressor: Learner

    def fit(self, rows: ArrayLike, losses_NM: ArrayLike) -> Corrected:
        """Return the corrected fit to these trials, with lines through the pilots again."""
        fitted = fit_regressor(self.corrected.name, self.regressor, rows, losses_NM)
        return self.corrected.over(fitted)
