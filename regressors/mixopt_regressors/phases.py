"""The law of phases: domain effects shared by all phases, and a coefficient for each phase.

A trial of P phases has a share c_pd of its tokens in phase p and domain d. Each loss depends on an
effective mixture, in which tokens of a phase count `ratio` times those of the phase before:

    e_d = sum_p ratio^p c_pd / sum_pd ratio^p c_pd

The ratio of each loss is one of `RATIOS`, chosen by the leave-one-out error of a Gaussian process
with a fixed kernel; losses with the same ratio are fitted together. Trials with one mixture in all
phases tell nothing about the ratio.

Columns are ordered by phase. The number of phases is the largest up to `MAX_PHASES` for which every
phase has the same total in all trials; else 1, without phases.

Shapes: N trials, P phases, D domains, C = P D columns, M targets, K mixtures.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.fitting import roots_alike
from mixopt.system import Array
from mixopt_regressors.combinations import AutoRegressor
from mixopt_regressors.mixture_regressor import MixtureRegressor

RATIOS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
MAX_PHASES = 4
SAME_TOTAL = 1e-6
NOISES = (0.003, 0.01, 0.03, 0.1, 0.3)  # noise variances relative to the loss's variance
MAX_RELATIVE_ERROR = 0.97  # a ratio other than 1 is chosen if its error is below this part


class PhasesRegressor(MixtureRegressor):
    """A law of mixtures with a coefficient for each phase and loss.

    Attributes:
        random_state: Seed of the fits.
    """

    by_target = ("ratio_M",)
    shared = ("phases_",)
    laws_: dict[float, AutoRegressor]  # by ratio, the plain mean of the candidates

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def gradient(self, weights_C: ArrayLike) -> Array:
        """Return the gradient of each loss by column, shape (M, C)."""
        weights_1C = self._checked(np.atleast_2d(weights_C))
        slope_MC = np.empty((len(self.ratio_M), weights_1C.shape[1]))
        for ratio, group_M in self._groups():
            effective_1D, total_1 = self._effective(weights_1C, ratio)
            effective_D = effective_1D[0]
            slope_MD = self.laws_[ratio].gradient(effective_D)
            inner_MD = slope_MD - (slope_MD @ effective_D)[:, None]
            powers_P = ratio ** np.arange(int(self.phases_))
            by_phase_MPD = powers_P[None, :, None] * inner_MD[:, None, :] / total_1[0]
            slope_MC[group_M] = by_phase_MPD.reshape(len(inner_MD), -1)
        return slope_MC

    def covariance(self, weights_KC: ArrayLike, loads_M: ArrayLike) -> Array:
        """Return the covariance of a weighted sum of the losses at some mixtures, shape (K, K)."""
        weights = self._checked(weights_KC)
        loads_M = np.asarray(loads_M)
        parts = []
        for ratio, group_M in self._groups():
            effective_KD, _ = self._effective(weights, ratio)
            parts.append(self.laws_[ratio].covariance(effective_KD, loads_M[group_M]))
        return np.asarray(sum(parts))

    def explain(self, targets: Sequence[str]) -> list[str]:
        """Return the ratio of each target, in words."""
        return [
            f"{name}: a token counts {ratio:g} times one of the phase before"
            for name, ratio in zip(targets, self.ratio_M, strict=True)
        ]

    def plain_law(self) -> dict[str, Any]:
        """Return the law as plain numbers: the losses and the law of each ratio."""
        groups = [
            {"ratio": r, "places": np.flatnonzero(group_M), "law": self.laws_[r].plain_law()}
            for r, group_M in self._groups()
        ]
        return {"kind": "phases", "phases": int(self.phases_), "groups": groups}

    def select(self, targets: Sequence[int]) -> Self:
        """Return a fitted copy that predicts only these targets, by position."""
        selected = super().select(targets)
        selected.laws_ = {}
        for ratio, group_M in self._groups():
            places = np.flatnonzero(group_M).tolist()
            chosen = [places.index(target) for target in targets if target in places]
            if chosen:
                selected.laws_[ratio] = self.laws_[ratio].select(chosen)
        return selected

    def save(self, path: Path) -> None:
        """Write the ratios, and the law of each to its own folder."""
        super().save(path)
        for ratio, law in self.laws_.items():
            law.save(path / f"{ratio:g}")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a fit that `save` wrote."""
        loaded = super().load(path)
        loaded.laws_ = {}
        for ratio, _ in loaded._groups():
            loaded.laws_[ratio] = AutoRegressor.load(path / f"{ratio:g}")
        return loaded

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        self.phases_ = np.array(phases_in(weights_ND))
        self.ratio_M = self._chosen(weights_ND, losses_NM)
        self.laws_ = {}
        for ratio, group_M in self._groups():
            law = AutoRegressor(folds=0, random_state=self.random_state)
            effective_ND, _ = self._effective(weights_ND, ratio)
            self.laws_[ratio] = law.fit(effective_ND, losses_NM[:, group_M])

    def _chosen(self, weights_NC: Array, losses_NM: Array) -> Array:
        """Return the ratio of each loss with the lowest leave-one-out error, shape (M,)."""
        errors = []
        for ratio in RATIOS:
            effective_ND, _ = self._effective(weights_NC, ratio)
            errors.append(left_out_errors(effective_ND, losses_NM))
        errors_RM = np.array(errors)
        flat_M = errors_RM[RATIOS.index(1.0)]
        best_M = errors_RM.argmin(axis=0)
        is_better_M = errors_RM.min(axis=0) < MAX_RELATIVE_ERROR * flat_M
        return np.where(is_better_M, np.array(RATIOS)[best_M], 1.0)

    def _predict(self, weights_ND: Array) -> Array:
        return self._by_ratio(weights_ND, AutoRegressor.predict)

    def _std(self, weights_ND: Array) -> Array:
        return self._by_ratio(weights_ND, AutoRegressor._std)

    def _by_ratio(
        self, weights_ND: Array, predict: Callable[[AutoRegressor, Array], Array]
    ) -> Array:
        values_NM = np.empty((len(weights_ND), len(self.ratio_M)))
        for ratio, group_M in self._groups():
            effective_ND, _ = self._effective(weights_ND, ratio)
            values_NM[:, group_M] = predict(self.laws_[ratio], effective_ND)
        return values_NM

    def _groups(self) -> Iterator[tuple[float, Array]]:
        """Yield each ratio with its losses."""
        for ratio in np.unique(self.ratio_M):
            yield float(ratio), self.ratio_M == ratio

    def _effective(self, weights_NC: Array, ratio: float) -> tuple[Array, Array]:
        """Return the effective mixture of a ratio, (N, D), and its normalisation."""
        phases = int(self.phases_)
        by_phase = weights_NC.reshape(len(weights_NC), phases, -1)
        counted_ND = np.einsum("p,npd->nd", ratio ** np.arange(phases), by_phase)
        total_N = counted_ND.sum(axis=1)
        return counted_ND / total_N[:, None], total_N


def phases_in(weights_NC: Array) -> int:
    """Return the number of phases that have the same total in all trials; else 1."""
    for phases in range(MAX_PHASES, 1, -1):
        if weights_NC.shape[1] % phases:
            continue
        totals_NP = weights_NC.reshape(len(weights_NC), phases, -1).sum(axis=2)
        if np.ptp(totals_NP, axis=0).max() < SAME_TOTAL and totals_NP.min() > 0:
            return phases
    return 1


def left_out_errors(weights_ND: Array, losses_NM: Array) -> Array:
    """Return the squared leave-one-out error at the best noise, shape (M,)."""
    kernel_NN = roots_alike(weights_ND)
    centered_NM = losses_NM - losses_NM.mean(axis=0)
    errors = []
    for noise in NOISES:
        inverse_NN = np.linalg.inv(kernel_NN + noise * np.eye(len(kernel_NN)))
        errors_NM = (inverse_NN @ centered_NM) / np.diag(inverse_NN)[:, None]
        errors.append((errors_NM**2).mean(axis=0))
    best_M: Array = np.min(errors, axis=0)
    return best_M
