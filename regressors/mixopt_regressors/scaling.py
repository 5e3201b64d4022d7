"""Losses at model sizes that were never trained: a fit of one size, and lines for the others.

A Gaussian process is fitted to the trials of the largest size that has at least half as many
mixtures as any other. For each other size, a line for each loss relates the trials to its
predictions f, as with pilots (mixopt.fitting.pilots):

    y = f0 + s (a + b (f - f0) / s)

The lines map all trials to that one size, and a process is fitted to all of them. At a new size
with P parameters and T tokens, levels and slopes are extrapolated: with z the logarithms of P and T
minus the largest of the trials, and two exponents p and t common to all losses,

    a = E + A (exp(-p z_P) - 1) + B (exp(-t z_T) - 1),     log b = g (z_P + z_T)

Exponents are averaged over a grid by their posterior probability, and standard deviations include
their uncertainty. Count parameters without embeddings: small models are mostly embeddings, and the
losses of the published 70M to 410M models follow no power law of all parameters.

A row is the weights, then the parameters and the training tokens of a trial.

Shapes: N trials, D domains, M targets, S sizes, G exponents.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import PluginError, TrialsError
from mixopt.fitting import CarriedRegressor, Correction, Lines, size_groups
from mixopt.system import Array
from mixopt_regressors.gaussian import GaussianProcessRegressor
from mixopt_regressors.mixture_regressor import MixtureRegressor

MEMBER = "gaussian_process"
ENOUGH = 0.5  # share of the largest number of mixtures that a larger size needs
AWAY = 0.02  # how far sums of weights may be from 1; published tables are rounded
APART = 1.25  # sizes within this factor count as one
EXPONENTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7)
USUAL_EXPONENT, EXPONENT_SPREAD = 0.2, 0.5  # prior; the spread is that of the logarithm
MISFITS = (0.003, 0.01, 0.03)  # errors of the law of levels, relative to their range
TOGETHER = 0.3  # exponent on each loss's evidence, because misfits of losses are correlated
FREE = 100.0  # prior variance of E, relative to the squared range of levels
MIN_OFF = 1e-3  # minimum error of the fit, in spreads of a loss
SLOPE_HOLD = 1.0  # strength of the prior on the growth of slopes, in squared log sizes


class ScalingRegressor(MixtureRegressor):
    """A fit of the mixture at one size, and a line for each loss to any other.

    Rows are the weights of D domains, then parameters, then tokens.

    Attributes:
        random_state: Seed of the fit.
    """

    uses_scale: ClassVar[bool] = True
    by_target = ("levels_MS", "slopes_MS", "unsure_MS22", "middle_M", "spread_M", "sigma_M")
    shared = ("sizes_S2",)
    folds = 5
    member_: GaussianProcessRegressor

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def at(self, parameters: float, tokens: float) -> AtScale:
        """Return a predictor from mixtures alone, at one size."""
        return AtScale(self, np.array([parameters, tokens], float))

    def select(self, targets: Sequence[int]) -> Self:
        """Return a fitted copy that predicts only these targets, by position."""
        selected = super().select(targets)
        selected.member_ = self.member_.select(targets)
        return selected

    def save(self, path: Path) -> None:
        """Write the lines, and the fit of one size to its own folder."""
        super().save(path)
        self.member_.save(path / MEMBER)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a fit that `save` wrote."""
        loaded = super().load(path)
        loaded.member_ = GaussianProcessRegressor.load(path / MEMBER)
        return loaded

    def refitted(self, rows: ArrayLike, losses_NM: ArrayLike) -> Self:
        """Return a copy fitted to other trials, mapped to one size by the same lines."""
        checked = _check_rows(np.asarray(rows, float))
        copy = self.select(range(len(self.middle_M)))
        carried_NM = self._at_reference_size(checked, np.asarray(losses_NM, float))
        copy.member_ = self.member_.tuned().fit(checked[:, :-2], carried_NM)
        return copy

    def carried(self, size_2: Array) -> CarriedRegressor:
        """Return a predictor at a size, by its own line or by extrapolated lines."""
        logs_2, logs_S2 = np.log(size_2), np.log(self.sizes_S2)
        distance_S = np.abs(logs_S2 - logs_2).max(axis=1)
        near = int(distance_S.argmin())
        if distance_S[near] <= np.log(APART) or len(logs_S2) == 1:
            parts = self.levels_MS[:, near], self.slopes_MS[:, near], self.unsure_MS22[:, near]
        else:
            parts = extrapolated(
                self.levels_MS, self.slopes_MS, self.unsure_MS22[..., 0, 0], logs_S2, logs_2
            )
        levels_M, slopes_M, unsure_M22 = parts
        unsure_M22 = unsure_M22 / self.sigma_M[:, None, None] ** 2
        none_KM, zeros_M = np.empty((0, len(levels_M))), np.zeros_like(levels_M)
        runs = np.empty((0, self.n_features_in_ - 2)), none_KM, np.empty((0, 0)), none_KM
        line = Correction(
            Lines(levels_M, slopes_M, unsure_M22, *runs),
            *(self.middle_M, self.spread_M, self.sigma_M, zeros_M, none_KM, none_KM, none_KM),
        )
        typical_M = self.spread_M * self.sigma_M
        return CarriedRegressor(MEMBER, self.member_, line, typical_M, self._new_member)

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        rows, mixed_ND = _check_rows(weights_ND), weights_ND[:, :-2]
        group_N = size_groups(rows[:, -2:])
        groups = [group_N == g for g in np.unique(group_N)]
        self.sizes_S2 = np.stack([np.exp(np.log(rows[g, -2:]).mean(axis=0)) for g in groups])
        counts = [len(np.unique(mixed_ND[g], axis=0)) for g in groups]
        places = range(len(groups))
        sampled = [s for s in places if counts[s] >= ENOUGH * max(counts)]
        reference = max(sampled, key=lambda s: float(self.sizes_S2[s].prod()))
        fitted, off_M = self._fitted(mixed_ND[groups[reference]], losses_NM[groups[reference]])
        predicted_NM = fitted.predict(mixed_ND)
        self.middle_M = losses_NM[groups[reference]].mean(axis=0)
        spread_M = losses_NM[groups[reference]].std(axis=0)
        self.spread_M = np.where(spread_M > 0, spread_M, 1.0)
        targets, sizes = losses_NM.shape[1], len(groups)
        self.levels_MS, self.slopes_MS = np.zeros((targets, sizes)), np.ones((targets, sizes))
        self.unsure_MS22 = np.zeros((targets, sizes, 2, 2))
        variances = [np.maximum(off_M / self.spread_M, MIN_OFF) ** 2]
        for s in places:
            if s == reference:
                continue
            predicted_KM, observed_KM = predicted_NM[groups[s]], losses_NM[groups[s]]
            line = Correction.of(
                mixed_ND[groups[s]], predicted_KM, observed_KM, self.spread_M, off_M, self.middle_M
            )
            variances.append(line.sigma_M**2)
            self.levels_MS[:, s], self.slopes_MS[:, s] = line.lines.levels_M, line.lines.slopes_M
            self.unsure_MS22[:, s] = line.lines.unsure_M22 * variances[-1][:, None, None]
        self.sigma_M = np.sqrt(np.mean(variances, axis=0))
        self.member_ = fitted
        if sizes > 1:
            self.member_ = self._new_member().fit(
                mixed_ND, self._at_reference_size(rows, losses_NM)
            )

    def _at_reference_size(self, rows: Array, losses_NM: Array) -> Array:
        """Return losses of trials mapped to the size of the fit, shape (N, M)."""
        logs_NS2 = np.log(rows[:, None, -2:]) - np.log(self.sizes_S2)
        near_N = np.abs(logs_NS2).max(axis=2).argmin(axis=1)
        places_NM = (losses_NM - self.middle_M) / self.spread_M - self.levels_MS[:, near_N].T
        carried_NM: Array = self.middle_M + self.spread_M * places_NM / self.slopes_MS[:, near_N].T
        return carried_NM

    def _fitted(
        self, weights_ND: Array, losses_NM: Array
    ) -> tuple[GaussianProcessRegressor, Array]:
        """Return a fit of mixtures alone, and its held-out error."""
        process, fold_N = self._new_member(), self._fold_of(weights_ND)
        if fold_N is None:
            raise PluginError("scaling: each size has one mixture only; it needs at least 2 of one")
        means_NM, _ = process.cross_fit(weights_ND, losses_NM, fold_N)
        return process, np.sqrt(((losses_NM - means_NM) ** 2).mean(axis=0))

    def _new_member(self) -> GaussianProcessRegressor:
        return GaussianProcessRegressor(random_state=self.random_state)

    def _checked(self, weights_ND: ArrayLike) -> Array:
        return super()._checked(_check_rows(np.asarray(weights_ND, float)))

    def _predict(self, weights_ND: Array) -> Array:
        return np.asarray(self._moments(weights_ND)[0])

    def _std(self, weights_ND: Array) -> Array:
        return np.asarray(self._moments(weights_ND)[1])

    def _moments(self, rows: Array) -> Array:
        """Return means and standard deviations, each row at its own size, shape (2, N, M)."""
        moments = np.empty((2, len(rows), len(self.middle_M)))
        for size_2 in np.unique(rows[:, -2:], axis=0):
            is_size_N = (rows[:, -2:] == size_2).all(axis=1)
            moments[:, is_size_N] = self.carried(size_2).predict(
                rows[is_size_N, :-2], return_std=True
            )
        return moments


class AtScale:
    """A fitted scaling regressor at one size: predicts from mixtures alone."""

    def __init__(self, regressor: ScalingRegressor, size_2: Array) -> None:
        self._regressor, self._size_2 = regressor, size_2
        carried = regressor.carried(size_2)
        self.predict, self.gradient = carried.predict, carried.gradient
        self.plain_law = carried.plain_law

    def select(self, targets: Sequence[int]) -> AtScale:
        """Return a copy that predicts only these targets, by position."""
        return AtScale(self._regressor.select(targets), self._size_2)

    def tuned(self) -> AtScale:
        """Return a copy to refit on rows with their sizes."""
        return self

    def fit(self, rows: ArrayLike, losses_NM: ArrayLike) -> AtScale:
        """Fit to other trials: weights, parameters and tokens, shape (N, D + 2)."""
        return AtScale(self._regressor.refitted(rows, losses_NM), self._size_2)


def extrapolated(
    levels_MS: Array, slopes_MS: Array, unsure_MS: Array, logs_S2: Array, logs_2: Array
) -> tuple[Array, Array, Array]:
    """Return levels and slopes at a size, shape (M,), and their covariances, (M, 2, 2)."""
    from_S2, to_2 = logs_S2 - logs_S2.max(axis=0), logs_2 - logs_S2.max(axis=0)
    levels_M, variances_M = _law_of_levels(levels_MS, unsure_MS, from_S2, to_2)
    growths_MS, along_S, along = np.log(slopes_MS), from_S2.sum(axis=1), float(to_2.sum())
    hold = SLOPE_HOLD + float((along_S**2).sum())
    common = (growths_MS @ along_S).mean() / hold
    growth_M = (growths_MS @ along_S + hold * common) / (2.0 * hold)
    slopes_M = np.exp(np.minimum(growth_M * along, 0.0))
    off = max(float(np.sqrt(((growths_MS - growth_M[:, None] * along_S) ** 2).mean())), MIN_OFF)
    unsure_M22 = np.zeros((len(levels_M), 2, 2))
    unsure_M22[:, 0, 0] = variances_M
    unsure_M22[:, 1, 1] = (slopes_M * off) ** 2 * (1.0 + along**2 / (2.0 * hold))
    return levels_M, slopes_M, unsure_M22


def _law_of_levels(
    levels_MS: Array, unsure_MS: Array, from_S2: Array, to_2: Array
) -> tuple[Array, Array]:
    """Return means and variances of levels at a size, averaged over exponents and misfits."""
    live = np.ptp(from_S2, axis=0) > np.log(APART)
    from_SJ, to_J, sizes = from_S2[:, live], to_2[live], len(from_S2)
    scale_M = np.maximum(np.ptp(levels_MS, axis=1), MIN_OFF)
    scaled_MS, variance_MS = levels_MS / scale_M[:, None], unsure_MS / scale_M[:, None] ** 2
    prior_T = np.append(FREE, np.ones(from_SJ.shape[1]))
    logs, means, variances = [], [], []
    for *exponents, misfit in itertools.product(*[EXPONENTS] * from_SJ.shape[1], MISFITS):
        powers_J = np.array(exponents)
        range_J = np.expm1(-powers_J * from_SJ.min(axis=0))
        terms_ST = np.column_stack([np.ones(sizes), np.expm1(-powers_J * from_SJ) / range_J])
        target_T = np.append(1.0, np.expm1(-powers_J * to_J) / range_J)
        noise_MSS = (variance_MS + misfit**2)[:, :, None] * np.eye(sizes)
        covariance_MSS = (terms_ST * prior_T) @ terms_ST.T + noise_MSS
        across_S = terms_ST @ (prior_T * target_T)
        solved_MS = np.linalg.solve(covariance_MSS, scaled_MS[:, :, None])[:, :, 0]
        explained_M = np.linalg.solve(covariance_MSS, across_S[None, :, None])[:, :, 0] @ across_S
        deviation_J = (np.log(powers_J) - np.log(USUAL_EXPONENT)) / EXPONENT_SPREAD
        evidence_M = np.linalg.slogdet(covariance_MSS)[1] + (solved_MS * scaled_MS).sum(axis=1)
        logs.append(-0.5 * (TOGETHER * evidence_M.sum() + (deviation_J**2).sum()))
        means.append(solved_MS @ across_S)
        variances.append(target_T @ (prior_T * target_T) - explained_M + misfit**2)
    share_G = np.exp(np.array(logs) - max(logs))
    share_G /= share_G.sum()
    means_GM = np.array(means)
    mean_M = share_G @ means_GM
    variance_M = share_G @ (np.array(variances) + (means_GM - mean_M) ** 2)
    return scale_M * mean_M, scale_M**2 * np.maximum(variance_M, 0.0)


def _check_rows(rows: Array) -> Array:
    """Return the rows, after checking that they end in parameters and tokens."""
    good_N = (rows[:, -2:] >= 1).all(axis=1) & (np.abs(rows[:, :-2].sum(axis=1) - 1.0) < AWAY)
    if rows.shape[1] < 3 or not good_N.all():
        row = int(np.argmin(good_N))
        raise TrialsError(
            f"scaling: row {row} ends in {rows[row, -2:].tolist()}; a row is weights that add up to"
            " 1, then parameters and tokens, as numpy.column_stack([weights, parameters, tokens]);"
            " or predict with at(parameters, tokens)"
        )
    return rows
