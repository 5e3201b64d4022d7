"""A regressor that predicts an objective beside its losses, where the objective has its own law.

The objective is made from predicted losses. With pilots it is not made from them alone: what lines
leave of it depends on the mixture (mixopt.fitting.pilot_correction). Then the pieces of the
objective are columns behind the losses, each with the residual added, and the objective is the
largest of them. So search, risk and refits minimise the carried objective without knowing of
pilots, and guardrails stay on the losses.

Shapes: N mixtures, D domains, M losses, P pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mixopt.fitting.capabilities import (
    Learner,
    Predictor,
    supports,
)
from mixopt.fitting.pilot_correction import Correction, ObjectiveResidual
from mixopt.fitting.regressor import fit_regressor, predict_with_std, select_targets
from mixopt.objective import Objective
from mixopt.system import Array

MIN_RELATIVE = 0.25  # of what is typical: a regressor that claims to know is not believed further


@dataclass(frozen=True, eq=False)
class Corrected:
    """A fitted regressor and what carries its predictions to the pilots' size."""

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
        return self.carry(means_NM, stds_NM, return_std=return_std)

    def carry(self, means_NM: Array, stds_NM: Array, *, return_std: bool) -> Any:
        """Carry over what the regressor predicts, as `own` returns it."""
        corrected_NM = self.correction.apply(means_NM)
        if not return_std:
            return corrected_NM
        return corrected_NM, self.correction.std(means_NM, self._relative(stds_NM))

    @property
    def gradient(self) -> Callable[[ArrayLike], Array]:
        """The slope of each loss by each weight; there is one where the regressor has one."""
        own = self.regressor
        if not supports(own, "gradient"):
            raise AttributeError(f"regressor {self.name!r} has no gradient")

        def gradient(weights_D: ArrayLike) -> Array:
            weights = np.asarray(weights_D, dtype=np.float64)
            return self.correction.gradient(np.asarray(own.gradient(weights)))

        return gradient

    @property
    def plain_law(self) -> Callable[[], dict[str, Any]]:
        """The law as plain numbers; there is one where the regressor has one."""
        own = self.regressor
        if not supports(own, "plain_law"):
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
        return CorrectedRefit(self, own.tuned() if supports(own, "tuned") else self.make())

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
        return np.maximum(relative_NM, MIN_RELATIVE)


@dataclass(frozen=True, eq=False)
class CorrectedRefit:
    """A regressor to fit again, and what its fit is corrected like."""

    corrected: Corrected
    regressor: Learner

    def fit(self, rows: ArrayLike, losses_NM: ArrayLike) -> Corrected:
        """Return the corrected fit to these trials, with lines through the pilots again."""
        fitted = fit_regressor(self.corrected.name, self.regressor, rows, losses_NM)
        return self.corrected.over(fitted)


def aimed(regressor: Predictor, objective: Objective) -> tuple[Predictor, Objective]:
    """Return what predicts all that an objective is made from, and the objective over that."""
    if not isinstance(regressor, Corrected):
        return regressor, objective
    one = Aimed.at(regressor, objective)
    return one, one.aim


def carried_values(
    regressor: Predictor, objective: Objective, losses_NM: Array, weights_ND: Array
) -> Array:
    """Return the objective of losses of the trials' size, as pilots carry it over, shape (N,)."""
    if not isinstance(regressor, Corrected):
        return objective.value(losses_NM)
    return Aimed.at(regressor, objective).residual.value(losses_NM, weights_ND)


@dataclass(frozen=True, eq=False)
class Aimed:
    """A corrected regressor, and what carries one objective of its losses."""

    corrected: Corrected
    residual: ObjectiveResidual

    @classmethod
    def at(cls, corrected: Corrected, objective: Objective) -> Aimed:
        """Learn the objective's residual from the correction's runs."""
        given = corrected.correction, objective, corrected.losses_LM
        return cls(corrected, ObjectiveResidual.learned(*given))

    @property
    def aim(self) -> Objective:
        """The objective over all columns."""
        objective = self.residual.objective
        names = [f"piece {p} of the objective" for p in range(len(self._pieces_PM))]
        return replace(
            objective,
            evaluation=(*objective.evaluation, *names),
            kind="worst" if len(names) > 1 else "target",
            weights=dict.fromkeys(names, 1.0),
            scale="none",
            spreads=None,
        )

    def predict(self, weights_ND: ArrayLike, return_std: bool = False) -> Any:
        """Predict losses, then pieces of the objective, (N, M + P); deviations too if asked."""
        weights = np.asarray(weights_ND, dtype=np.float64)
        own_NM, stds_NM = self.corrected.own(weights, with_std=return_std)
        shift_N1 = self.residual.shift(weights)[:, None]
        pieces_NP = self.residual.lines.apply(own_NM) @ self._pieces_PM.T + shift_N1
        losses = self.corrected.carry(own_NM, stds_NM, return_std=return_std)
        if not return_std:
            return np.hstack([losses, pieces_NP])
        together_N = self._std(weights, stds_NM)
        together_NP = np.repeat(together_N[:, None], pieces_NP.shape[1], axis=1)
        return np.hstack([losses[0], pieces_NP]), np.hstack([losses[1], together_NP])

    @property
    def gradient(self) -> Callable[[ArrayLike], Array]:
        """The slope of each column by each weight; there is one where the regressor has one."""
        own = self.corrected.regressor
        if not supports(own, "gradient"):
            raise AttributeError(f"regressor {self.corrected.name!r} has no gradient")

        def gradient(weights_D: ArrayLike) -> Array:
            weights = np.asarray(weights_D, dtype=np.float64)
            slopes_MD = np.asarray(own.gradient(weights))
            lines_MD = self.residual.lines.gradient(slopes_MD)
            pieces_PD = self._pieces_PM @ lines_MD + self.residual.gradient(weights)
            return np.vstack([self.corrected.correction.gradient(slopes_MD), pieces_PD])

        return gradient

    @property
    def plain_law(self) -> Callable[[], dict[str, Any]]:
        """The law of all columns as plain numbers; there is one where the regressor has one."""
        own = self.corrected.plain_law

        def plain_law() -> dict[str, Any]:
            residual = {**self.residual.plain_law(), "typical": self._typical}
            return {"kind": "aimed", "corrected": own(), **residual}

        return plain_law

    @cached_property
    def _pieces_PM(self) -> Array:
        return self.residual.objective.pieces()

    def _std(self, weights_ND: Array, stds_NM: Array) -> Array:
        """Return deviations of the objective: wider where the fit is less sure than is typical."""
        residual, typical = self.residual, self._typical
        own_N = residual.objective.spread(residual.lines.slopes_M * stds_NM)
        beyond_N = np.maximum(own_N**2 - typical**2, 0.0) if typical > 0 else np.zeros(len(own_N))
        std_N: Array = np.sqrt(residual.std(weights_ND) ** 2 + beyond_N)
        return std_N

    @property
    def _typical(self) -> float:
        """Deviation of the objective that is typical of the regressor; 0 where it has none."""
        residual = self.residual
        typical_M = residual.lines.slopes_M * self.corrected.typical_M
        return float(residual.objective.spread(typical_M[None])[0])
