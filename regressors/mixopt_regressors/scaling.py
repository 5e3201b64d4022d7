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

Shapes: N trials, D domains, M targets, S sizes, G combinations of exponents and misfit, J of
parameters and tokens those that vary, T = J + 1 terms.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import PluginError, TrialsError
from mixopt.fitting import CarriedRegressor, Correction, Lines, size_groups
from mixopt.system import Array, BoolArray
from mixopt_regressors.gaussian import GaussianProcessRegressor
from mixopt_regressors.mixture_regressor import MixtureRegressor

MEMBER = "gaussian_process"
MIN_SHARE = 0.5  # minimum mixtures of the size of the fit, relative to the most at any size
SUM_TOLERANCE = 0.02  # of weights; published tables are rounded
SAME_SIZE = 1.25  # sizes within this factor count as one
EXPONENTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7)
USUAL_EXPONENT = 0.2  # centre of the prior
EXPONENT_SPREAD = 0.5  # of the logarithm of an exponent, in the prior
MISFITS = (0.003, 0.01, 0.03)  # errors of the law of levels, relative to their range
EVIDENCE_POWER = 0.3  # of each loss's evidence, because misfits of losses are correlated
OFFSET_VARIANCE = 100.0  # prior variance of E, relative to the squared range of levels
MIN_ERROR = 1e-3  # minimum error of the fit, in spreads of a loss
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
        logs_2 = np.log(size_2)
        logs_S2 = np.log(self.sizes_S2)
        distance_S = np.abs(logs_S2 - logs_2).max(axis=1)
        nearest = int(distance_S.argmin())
        if distance_S[nearest] <= np.log(SAME_SIZE) or len(logs_S2) == 1:
            levels_M = self.levels_MS[:, nearest]
            slopes_M = self.slopes_MS[:, nearest]
            unsure_M22 = self.unsure_MS22[:, nearest]
        else:
            levels_M, slopes_M, unsure_M22 = extrapolated(
                self.levels_MS, self.slopes_MS, self.unsure_MS22[..., 0, 0], logs_S2, logs_2
            )
        no_runs_KM = np.empty((0, len(levels_M)))
        lines = Lines(
            levels_M=levels_M,
            slopes_M=slopes_M,
            unsure_M22=unsure_M22 / self.sigma_M[:, None, None] ** 2,
            weights_KD=np.empty((0, self.n_features_in_ - 2)),
            columns_KM=no_runs_KM,
            inverse_KK=np.empty((0, 0)),
            dual_KM=no_runs_KM,
        )
        correction = Correction(
            lines=lines,
            middle_M=self.middle_M,
            spread_M=self.spread_M,
            sigma_M=self.sigma_M,
            noise_M=np.zeros_like(levels_M),
            values_KM=no_runs_KM,
            left_out_KM=no_runs_KM,
            widths_KM=no_runs_KM,
        )
        typical_M = self.spread_M * self.sigma_M
        return CarriedRegressor(MEMBER, self.member_, correction, typical_M, self._new_member)

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        rows = _check_rows(weights_ND)
        mixed_ND = rows[:, :-2]
        group_N = size_groups(rows[:, -2:])
        groups = [group_N == group for group in np.unique(group_N)]
        log_sizes = [np.log(rows[is_size_N, -2:]).mean(axis=0) for is_size_N in groups]
        self.sizes_S2 = np.exp(np.stack(log_sizes))
        reference = self._reference(mixed_ND, groups)
        reference_KM = losses_NM[groups[reference]]
        self.middle_M = reference_KM.mean(axis=0)
        spread_M = reference_KM.std(axis=0)
        self.spread_M = np.where(spread_M > 0, spread_M, 1.0)
        self.member_, off_M = self._fitted(mixed_ND[groups[reference]], reference_KM)
        self._fit_lines(mixed_ND, losses_NM, off_M, groups, reference)
        if len(groups) > 1:
            carried_NM = self._at_reference_size(rows, losses_NM)
            self.member_ = self._new_member().fit(mixed_ND, carried_NM)

    def _reference(self, mixed_ND: Array, groups: Sequence[BoolArray]) -> int:
        """Return the largest size with enough mixtures, by position."""
        counts = [len(np.unique(mixed_ND[is_size_N], axis=0)) for is_size_N in groups]
        sampled = [size for size, count in enumerate(counts) if count >= MIN_SHARE * max(counts)]
        return max(sampled, key=lambda size: float(self.sizes_S2[size].prod()))

    def _fit_lines(
        self,
        mixed_ND: Array,
        losses_NM: Array,
        off_M: Array,
        groups: Sequence[BoolArray],
        reference: int,
    ) -> None:
        """Fit lines from the fit of the reference size, with errors `off_M`, to other sizes."""
        shape = losses_NM.shape[1], len(groups)
        self.levels_MS = np.zeros(shape)
        self.slopes_MS = np.ones(shape)
        self.unsure_MS22 = np.zeros((*shape, 2, 2))
        predicted_NM = self.member_.predict(mixed_ND)
        variances = [np.maximum(off_M / self.spread_M, MIN_ERROR) ** 2]
        for size, is_size_N in enumerate(groups):
            if size == reference:
                continue
            line = Correction.of(
                mixed_ND[is_size_N],
                predicted_KM=predicted_NM[is_size_N],
                observed_KM=losses_NM[is_size_N],
                spread_M=self.spread_M,
                off_M=off_M,
                middle_M=self.middle_M,
            )
            variance_M = line.sigma_M**2
            variances.append(variance_M)
            self.levels_MS[:, size] = line.lines.levels_M
            self.slopes_MS[:, size] = line.lines.slopes_M
            self.unsure_MS22[:, size] = line.lines.unsure_M22 * variance_M[:, None, None]
        self.sigma_M = np.sqrt(np.mean(variances, axis=0))

    def _at_reference_size(self, rows: Array, losses_NM: Array) -> Array:
        """Return losses of trials mapped to the size of the fit, shape (N, M)."""
        logs_NS2 = np.log(rows[:, None, -2:]) - np.log(self.sizes_S2)
        near_N = np.abs(logs_NS2).max(axis=2).argmin(axis=1)
        scaled_NM = (losses_NM - self.middle_M) / self.spread_M
        over_NM = scaled_NM - self.levels_MS[:, near_N].T
        carried_NM: Array = self.middle_M + self.spread_M * over_NM / self.slopes_MS[:, near_N].T
        return carried_NM

    def _fitted(
        self, weights_ND: Array, losses_NM: Array
    ) -> tuple[GaussianProcessRegressor, Array]:
        """Return a fit of mixtures alone, and its held-out error."""
        fold_N = self._fold_of(weights_ND)
        if fold_N is None:
            raise PluginError("scaling: each size has one mixture only; it needs at least 2 of one")
        process = self._new_member()
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
            carried = self.carried(size_2)
            moments[:, is_size_N] = carried.predict(rows[is_size_N, :-2], return_std=True)
        return moments


class AtScale:
    """A fitted scaling regressor at one size: predicts from mixtures alone."""

    def __init__(self, regressor: ScalingRegressor, size_2: Array) -> None:
        self._regressor = regressor
        self._size_2 = size_2
        carried = regressor.carried(size_2)
        self.predict = carried.predict
        self.gradient = carried.gradient
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
    largest_2 = logs_S2.max(axis=0)
    from_S2 = logs_S2 - largest_2
    to_2 = logs_2 - largest_2
    levels_M, variances_M = _law_of_levels(levels_MS, unsure_MS, from_S2, to_2)
    log_slopes_MS = np.log(slopes_MS)
    along_S = from_S2.sum(axis=1)
    along = float(to_2.sum())
    hold = SLOPE_HOLD + float((along_S**2).sum())
    products_M = log_slopes_MS @ along_S
    common = products_M.mean() / hold
    growth_M = (products_M + hold * common) / (2.0 * hold)
    slopes_M = np.exp(np.minimum(growth_M * along, 0.0))
    off_MS = log_slopes_MS - growth_M[:, None] * along_S
    off = max(float(np.sqrt((off_MS**2).mean())), MIN_ERROR)
    unsure_M22 = np.zeros((len(levels_M), 2, 2))
    unsure_M22[:, 0, 0] = variances_M
    unsure_M22[:, 1, 1] = (slopes_M * off) ** 2 * (1.0 + along**2 / (2.0 * hold))
    return levels_M, slopes_M, unsure_M22


def _law_of_levels(
    levels_MS: Array, unsure_MS: Array, from_S2: Array, to_2: Array
) -> tuple[Array, Array]:
    """Return means and variances of levels at a size, averaged over exponents and misfits."""
    varies_2 = np.ptp(from_S2, axis=0) > np.log(SAME_SIZE)
    scale_M = np.maximum(np.ptp(levels_MS, axis=1), MIN_ERROR)
    law = LevelLaw(
        levels_MS=levels_MS / scale_M[:, None],
        variances_MS=unsure_MS / scale_M[:, None] ** 2,
        from_SJ=from_S2[:, varies_2],
        to_J=to_2[varies_2],
    )
    estimates = []
    for exponents in itertools.product(EXPONENTS, repeat=int(varies_2.sum())):
        estimates += [law.estimate(np.array(exponents), misfit) for misfit in MISFITS]
    logs_G = np.array([estimate.log_posterior for estimate in estimates])
    means_GM = np.array([estimate.mean_M for estimate in estimates])
    variances_GM = np.array([estimate.variance_M for estimate in estimates])
    share_G = np.exp(logs_G - logs_G.max())
    share_G /= share_G.sum()
    mean_M = share_G @ means_GM
    variance_M = share_G @ (variances_GM + (means_GM - mean_M) ** 2)
    return scale_M * mean_M, scale_M**2 * np.maximum(variance_M, 0.0)


class LevelEstimate(NamedTuple):
    """Levels at a size by one choice of exponents and misfit."""

    log_posterior: float  # up to a constant
    mean_M: Array
    variance_M: Array


@dataclass(frozen=True, eq=False)
class LevelLaw:
    """Levels of the trained sizes, relative to their range, and the power laws through them.

    Attributes:
        levels_MS: Levels of the trained sizes.
        variances_MS: Their variances.
        from_SJ: Logarithms of the trained sizes, of the J quantities that vary.
        to_J: Logarithms of the size to predict.
    """

    levels_MS: Array
    variances_MS: Array
    from_SJ: Array
    to_J: Array

    def estimate(self, exponents_J: Array, misfit: float) -> LevelEstimate:
        """Return the levels that a law with these exponents predicts."""
        sizes, quantities = self.from_SJ.shape
        prior_T = np.append(OFFSET_VARIANCE, np.ones(quantities))
        range_J = np.expm1(-exponents_J * self.from_SJ.min(axis=0))
        powers_SJ = np.expm1(-exponents_J * self.from_SJ) / range_J
        terms_ST = np.column_stack([np.ones(sizes), powers_SJ])
        target_T = np.append(1.0, np.expm1(-exponents_J * self.to_J) / range_J)
        noise_MSS = (self.variances_MS + misfit**2)[:, :, None] * np.eye(sizes)
        covariance_MSS = (terms_ST * prior_T) @ terms_ST.T + noise_MSS
        across_S = terms_ST @ (prior_T * target_T)
        dual_MS = np.linalg.solve(covariance_MSS, self.levels_MS[:, :, None])[:, :, 0]
        solved_MS = np.linalg.solve(covariance_MSS, across_S[None, :, None])[:, :, 0]
        explained_M = solved_MS @ across_S
        misfits_M = (dual_MS * self.levels_MS).sum(axis=1)
        evidence_M = np.linalg.slogdet(covariance_MSS)[1] + misfits_M
        deviation_J = (np.log(exponents_J) - np.log(USUAL_EXPONENT)) / EXPONENT_SPREAD
        return LevelEstimate(
            log_posterior=-0.5 * (EVIDENCE_POWER * evidence_M.sum() + (deviation_J**2).sum()),
            mean_M=dual_MS @ across_S,
            variance_M=target_T @ (prior_T * target_T) - explained_M + misfit**2,
        )


def _check_rows(rows: Array) -> Array:
    """Return the rows, after checking that they end in parameters and tokens."""
    has_size_N = (rows[:, -2:] >= 1).all(axis=1)
    adds_up_N = np.abs(rows[:, :-2].sum(axis=1) - 1.0) < SUM_TOLERANCE
    is_valid_N = has_size_N & adds_up_N
    if rows.shape[1] < 3 or not is_valid_N.all():
        row = int(np.argmin(is_valid_N))
        raise TrialsError(
            f"scaling: row {row} ends in {rows[row, -2:].tolist()}; a row is weights that add up to"
            " 1, then parameters and tokens, as numpy.column_stack([weights, parameters, tokens]);"
            " or predict with at(parameters, tokens)"
        )
    return rows
