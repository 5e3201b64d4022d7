"""The law of phases: what a domain does is shared by the phases, and each counts by a coefficient.

A trial of P phases has a share c_pd of all its tokens for phase p and domain d. Each loss sees one
mixture, in which the tokens of a phase count `ratio` times those of the phase before:

    e_d = sum_p ratio^p c_pd / sum_pd ratio^p c_pd

and is a law of mixtures of that. The ratio of each loss is one of `RATIOS`, by the error of a
Gaussian process with a fixed kernel on rows left out; losses of one ratio are fitted together. With
one mixture in all phases the ratio changes nothing, so such trials do not tell it.

Columns are of phase after phase. Where the number of phases is not given, it is the largest of
`MAX_PHASES` with which every phase has the same total in all trials; else 1, a law without phases.

Shapes: N trials, P phases, D domains, C = P D columns, M targets, K mixtures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import PluginError
from mixopt.fitting import (
    Predictor,
    fit_regressor,
    make_regressor,
    predict_with_std,
    read_regressor,
    select_targets,
    supports,
)
from mixopt.system import Array
from mixopt_regressors.mixture_regressor import MixtureRegressor

RATIOS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
MEMBERS = ("gaussian_process", "skills")  # whose plain mean predicts a loss
MAX_PHASES = 4
SAME_TOTAL = 1e-6
REACH = 0.5  # distance of square roots of shares over which losses go together
NOISES = (0.003, 0.01, 0.03, 0.1, 0.3)  # of a trial, over the variance of the loss
WORTH = 0.97  # of the error of ratio 1, below which another ratio is taken


class PhasesRegressor(MixtureRegressor):
    """A law of mixtures in which each phase counts by a coefficient, for each loss its own.

    Attributes:
        phases: Number of phases; found in the trials when None.
        folds: Not used.
        random_state: Seed of the members.
    """

    by_target = ("ratio_M",)
    shared = ("phases_",)
    members_: dict[float, list[Predictor]]

    def __init__(self, phases: int | None = None, folds: int = 5, random_state: int = 0) -> None:
        self.phases = phases
        self.folds = folds
        self.random_state = random_state

    def gradient(self, weights_C: ArrayLike) -> Array:
        """Return the slope of each loss by each column, shape (M, C)."""
        weights_1C = self._checked(np.asarray(weights_C, dtype=np.float64)[None])
        slope_MC = np.empty((len(self.ratio_M), weights_1C.shape[1]))
        for ratio, own_M in self._groups():
            (seen_D,), total = self._seen(weights_1C, ratio), self._total(weights_1C, ratio)
            parts = [np.asarray(one.gradient(seen_D)) for one in self._of(ratio, "gradient")]
            slope_MD = np.mean(parts, axis=0)
            inner_MD = slope_MD - (slope_MD @ seen_D)[:, None]
            powers_P = ratio ** np.arange(int(self.phases_))
            by_phase = powers_P[None, :, None] * inner_MD[:, None, :] / total
            slope_MC[own_M] = by_phase.reshape(len(inner_MD), -1)
        return slope_MC

    def covariance(self, weights_KC: ArrayLike, loads_M: ArrayLike) -> Array:
        """Return the covariance of a weighted sum of the losses at some mixtures, shape (K, K)."""
        weights, loads = self._checked(weights_KC), np.asarray(loads_M, dtype=np.float64)
        total_KK = np.zeros((len(weights), len(weights)))
        for ratio, own_M in self._groups():
            seen_KD = self._seen(weights, ratio)
            members = self._of(ratio, "covariance")
            parts = [one.covariance(seen_KD, loads[own_M]) for one in members]
            total_KK += np.mean(parts, axis=0)
        return total_KK

    def explain(self, targets: Sequence[str]) -> list[str]:
        """Say for each target how often a token of a phase counts, over one of the phase before."""
        return [
            f"{name}: a token counts {ratio:g} times one of the phase before"
            for name, ratio in zip(targets, self.ratio_M, strict=True)
        ]

    def plain_law(self) -> dict[str, Any]:
        """Return the law as numbers: of each ratio its losses, and the mean of its members."""
        groups = []
        for ratio, own_M in self._groups():
            members = [one.plain_law() for one in self._of(ratio, "plain_law")]
            halves_CM = np.full((len(members), own_M.sum()), 1.0 / len(members))
            mean = {"kind": "mean", "members": members, "weights_CM": halves_CM}
            groups.append({"ratio": ratio, "places": np.flatnonzero(own_M), "law": mean})
        return {"kind": "phases", "phases": int(self.phases_), "groups": groups}

    def select(self, targets: Sequence[int]) -> Self:
        """Return a fitted copy that predicts only these targets, by position."""
        kept = super().select(targets)
        kept.members_ = {}
        for ratio, own_M in self._groups():
            places = np.flatnonzero(own_M).tolist()
            chosen = [places.index(target) for target in targets if target in places]
            if chosen:
                kept.members_[ratio] = [select_targets(m, chosen) for m in self.members_[ratio]]
        return kept

    def save(self, path: Path) -> None:
        """Write the ratios, and the members of each into a folder of its own."""
        super().save(path)
        for ratio, members in self.members_.items():
            for name, member in zip(MEMBERS, members, strict=True):
                member.save(path / f"{name}-{ratio:g}")  # type: ignore[attr-defined]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a fit that `save` wrote."""
        regressor = super().load(path)
        regressor.members_ = {
            float(ratio): [
                read_regressor(
                    n, path / f"{n}-{ratio:g}", make_regressor(n, regressor.random_state)
                )
                for n in MEMBERS
            ]
            for ratio in np.unique(regressor.ratio_M)
        }
        return regressor

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        self.phases_ = np.array(self.phases or phases_in(weights_ND))
        if weights_ND.shape[1] % int(self.phases_):
            raise PluginError(
                f"phases: {weights_ND.shape[1]} columns are not of {self.phases_} phases"
            )
        self.ratio_M = self._chosen(weights_ND, losses_NM)
        self.members_ = {}
        for ratio, own_M in self._groups():
            seen_ND = self._seen(weights_ND, ratio)
            self.members_[ratio] = [
                fit_regressor(n, make_regressor(n, self.random_state), seen_ND, losses_NM[:, own_M])
                for n in MEMBERS
            ]

    def _chosen(self, weights_NC: Array, losses_NM: Array) -> Array:
        """Return the ratio of each loss that predicts rows left out best, shape (M,)."""
        errors_RM = np.array(
            [left_out_errors(self._seen(weights_NC, r), losses_NM) for r in RATIOS]
        )
        flat_M = errors_RM[RATIOS.index(1.0)]
        best_M = errors_RM.argmin(axis=0)
        is_worth_M = errors_RM.min(axis=0) < WORTH * flat_M
        return np.where(is_worth_M, np.array(RATIOS)[best_M], 1.0)

    def _predict(self, weights_ND: Array) -> Array:
        return self._moments(weights_ND)[0]

    def _std(self, weights_ND: Array) -> Array:
        return self._moments(weights_ND)[1]

    def _moments(self, weights_NC: Array) -> tuple[Array, Array]:
        means_NM, stds_NM = (np.empty((len(weights_NC), len(self.ratio_M))) for _ in range(2))
        for ratio, own_M in self._groups():
            seen_ND = self._seen(weights_NC, ratio)
            answers = [predict_with_std(one, seen_ND) for one in self.members_[ratio]]
            means, stds = (
                np.array([np.reshape(a[k], (len(seen_ND), -1)) for a in answers]) for k in (0, 1)
            )
            means_NM[:, own_M] = means.mean(axis=0)
            stds_NM[:, own_M] = np.sqrt(stds.mean(axis=0) ** 2 + means.var(axis=0))
        return means_NM, stds_NM

    def _groups(self) -> Iterator[tuple[float, Array]]:
        """Yield each ratio, and which losses have it."""
        for ratio in np.unique(self.ratio_M):
            yield float(ratio), self.ratio_M == ratio

    def _of(self, ratio: float, ability: str) -> list[Any]:
        """Return the members of a ratio that can do something: a Gaussian process can all."""
        return [one for one in self.members_[ratio] if supports(one, ability)]

    def _seen(self, weights_NC: Array, ratio: float) -> Array:
        """Return the mixture that losses of a ratio see, shape (N, D)."""
        phases = int(self.phases_)
        by_phase = weights_NC.reshape(len(weights_NC), phases, -1)
        counted_ND = np.einsum("p,npd->nd", ratio ** np.arange(phases), by_phase)
        seen_ND: Array = counted_ND / counted_ND.sum(axis=1, keepdims=True)
        return seen_ND

    def _total(self, weights_1C: Array, ratio: float) -> float:
        by_phase = weights_1C.reshape(int(self.phases_), -1).sum(axis=1)
        return float(by_phase @ ratio ** np.arange(int(self.phases_)))


def phases_in(weights_NC: Array) -> int:
    """Return how many phases columns are of, with one total each in all trials; 1 without."""
    for phases in range(MAX_PHASES, 1, -1):
        if weights_NC.shape[1] % phases == 0:
            totals_NP = weights_NC.reshape(len(weights_NC), phases, -1).sum(axis=2)
            if np.ptp(totals_NP, axis=0).max() < SAME_TOTAL and totals_NP.min() > 0:
                return phases
    return 1


def left_out_errors(seen_ND: Array, losses_NM: Array) -> Array:
    """Return the squared error on rows left out one by one, at the best noise, shape (M,)."""
    roots_ND = np.sqrt(np.maximum(seen_ND, 0.0))
    squared_NN = np.maximum(2.0 - 2.0 * roots_ND @ roots_ND.T, 0.0)
    scaled_NN = np.sqrt(5.0 * squared_NN) / REACH
    kernel_NN = (1.0 + scaled_NN + scaled_NN**2 / 3.0) * np.exp(-scaled_NN)
    centered_NM = losses_NM - losses_NM.mean(axis=0)
    found = []
    for noise in NOISES:
        inverse_NN = np.linalg.inv(kernel_NN + noise * np.eye(len(kernel_NN)))
        errors_NM = (inverse_NN @ centered_NM) / np.diag(inverse_NN)[:, None]
        found.append((errors_NM**2).mean(axis=0))
    best_M: Array = np.min(found, axis=0)
    return best_M
