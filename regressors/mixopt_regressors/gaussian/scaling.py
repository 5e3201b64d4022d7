"""Losses as a function of the mixture, the model's parameters and its tokens, all at once.

From trials of a few sizes it predicts a larger one: one Gaussian process for each target, with a
scaling law whose floor and amplitudes depend on the mixture (mixopt_regressors.gaussian.kernels). A
mixture that was trained at several sizes lends its own trend to the larger size, and one that was
not, those of its neighbours. Rows of one scale make it the regressor `gaussian_process`, to what
its nearly free terms leave.

A row is the weights, then the parameters and the tokens that the trial was trained with. Count
parameters without embeddings: those of small models are mostly embeddings, and the losses of the
published 70M to 410M models follow no power law of all parameters. The standard deviation is that
of a new trial, and grows with the distance to the trials' sizes.

Shapes: N trials, D domains, M targets, P hyperparameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import TrialsError
from mixopt.system import Array
from mixopt_regressors.gaussian.gaussian_process import ProcessRegressor
from mixopt_regressors.gaussian.kernels import OWN

AWAY = 0.02  # how far from 1 weights may add up to; published tables are rounded


class ScalingRegressor(ProcessRegressor):
    """A scaling law with a floor and amplitudes that depend on the mixture, one for each target.

    Rows are the weights of D domains, then parameters, then tokens.

    Attributes:
        learning_trials: Hyperparameters are learned from so many trials at most, drawn at random.
        hyperparameters: What `tuned` passes on, a row for each target; None learns them.
        random_state: Seed of the draw.
    """

    title, further = "scaling", OWN + 1
    curvature_trials = 256
    uses_scale: ClassVar[bool] = True
    # rows have the scales relative to the largest
    shared: ClassVar[tuple[str, ...]] = ("rows", "prior_2P", "largest_2")

    def at(self, parameters: float, tokens: float) -> AtScale:
        """Return the fit for one scale: a predictor of mixtures alone."""
        return AtScale(self, float(parameters), float(tokens))

    def gradient(self, row: ArrayLike) -> Array:
        """Return the slope of each loss by each weight, at one row's scale, shape (M, D)."""
        rows = self._checked(np.atleast_2d(np.asarray(row, dtype=np.float64)))
        scaled = self._scaled(rows)[0]
        slopes = [one.kernel.slopes(scaled, one.own, one.dual_N) for one in self._posteriors]
        gradient_MD: Array = self.units_M[:, None] * np.array(slopes)
        return gradient_MD

    def law_at(self, parameters: float, tokens: float) -> dict[str, Any]:
        """Return the law at one scale as plain numbers (mixopt.fitting.regressor)."""
        kernels = self._kernels
        matern = [kernel.matern for kernel in kernels]
        return {
            **self._plain_posteriors(matern, self.rows[:, :-2]),
            "sizes": {
                "scales_N2": self.rows[:, -2:],
                "asked_2": np.log(np.array([parameters, tokens]) / self.largest_2),
                "reach_2": self._reach_2,
                "changes_M2": np.array([kernel.changes_2 for kernel in kernels]),
                "exponents_M2": np.array([kernel.exponents_2 for kernel in kernels]),
            },
        }

    @property
    def _reach_2(self) -> Array:
        reach_2: Array = self.rows[:, -2:].min(axis=0)
        return reach_2

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        _check_rows(weights_ND)
        self.largest_2 = weights_ND[:, -2:].max(axis=0)
        spread_M = losses_NM.std(axis=0)
        self._fit_rows(self._scaled(weights_ND), losses_NM, np.where(spread_M > 0, spread_M, 1.0))

    def _checked(self, weights_ND: ArrayLike) -> Array:
        columns = np.shape(weights_ND)[-1]
        if columns + 2 == getattr(self, "n_features_in_", None):
            raise TrialsError(
                f"scaling: rows of {columns} columns; they need {columns} weights, then parameters"
                " and tokens: append both, or predict with at(parameters, tokens)"
            )
        return _check_rows(super()._checked(weights_ND))

    def _scaled(self, rows_ND2: Array) -> Array:
        """Return rows with the logarithms of the scales relative to the largest."""
        return np.hstack([rows_ND2[:, :-2], np.log(rows_ND2[:, -2:] / self.largest_2)])

    def _predict(self, weights_ND: Array) -> Array:
        return super()._predict(self._scaled(weights_ND))

    def _std(self, weights_ND: Array) -> Array:
        return super()._std(self._scaled(weights_ND))


class AtScale:
    """A fitted scaling regressor at one number of parameters and tokens: of mixtures alone."""

    def __init__(self, regressor: ScalingRegressor, parameters: float, tokens: float) -> None:
        self.regressor = regressor
        self.parameters = parameters
        self.tokens = tokens

    def predict(self, weights_ND: ArrayLike, return_std: bool = False) -> Any:
        """Predict losses at this scale, shape (N, M), and their standard deviations if asked."""
        return self.regressor.predict(self._rows(weights_ND), return_std=return_std)

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the slope of each loss by each weight at one mixture, shape (M, D)."""
        return self.regressor.gradient(self._rows(np.atleast_2d(weights_D))[0])

    def select(self, targets: Sequence[int]) -> AtScale:
        """Return one that predicts only these targets, by position."""
        return AtScale(self.regressor.select(targets), self.parameters, self.tokens)

    def plain_law(self) -> dict[str, Any]:
        """Return the law at this scale as plain numbers (mixopt.fitting.regressor)."""
        return self.regressor.law_at(self.parameters, self.tokens)

    def tuned(self) -> AtScale:
        """Return one to fit again, on rows with their own scales."""
        return AtScale(self.regressor.tuned(), self.parameters, self.tokens)

    def fit(self, rows: ArrayLike, losses_NM: ArrayLike) -> AtScale:
        """Fit the regressor on weights, parameters and tokens, shape (N, D + 2)."""
        self.regressor.fit(rows, losses_NM)
        return self

    def _rows(self, weights_ND: ArrayLike) -> Array:
        weights = np.asarray(weights_ND, dtype=np.float64)
        scale_N2 = np.broadcast_to([self.parameters, self.tokens], (len(weights), 2))
        return np.hstack([weights, scale_N2])


def _check_rows(rows_ND2: Array) -> Array:
    """Return the rows, when they end in parameters and tokens."""
    if rows_ND2.shape[1] < 3:
        raise TrialsError(
            f"scaling: rows of {rows_ND2.shape[1]} columns; they need weights, parameters, tokens"
        )
    wrong = (rows_ND2[:, -2:] < 1).any(axis=1)
    wrong = wrong | (np.abs(rows_ND2[:, :-2].sum(axis=1) - 1.0) > AWAY)
    if wrong.any():
        row = int(np.argmax(wrong))
        parameters, tokens = rows_ND2[row, -2:]
        raise TrialsError(
            f"scaling: row {row} ends in {parameters:g} and {tokens:g}, and its other columns add"
            f" up to {rows_ND2[row, :-2].sum():.4g}; a row is weights that add up to 1, then"
            " parameters and tokens, as numpy.column_stack([weights, parameters, tokens])"
        )
    return rows_ND2
