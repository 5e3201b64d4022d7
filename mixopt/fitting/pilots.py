"""Pilots: a few runs at the target size, which correct a fit of small proxies to that size.

The losses of a larger model are nearly linear in those of a proxy, with a line for each loss, and
residuals are similar at similar mixtures. With the fit's prediction f and an observed loss y,

    y = f0 + s (b0 + b1 (f - f0) / s + r(w) + noise)

where s is the spread of the loss over the proxies' trials and f0 the mean prediction at the pilots.
b0 is free. The slopes b1 have a prior around one common slope with deviation `SLOPE_SPREAD`, and
the common slope has a prior around 1: a single pilot is a shift, and a few pilots give lines shrunk
towards the common one. A slope never reverses the ranks. r has a Matern kernel on w^0.35; length
and share of the variance are common to all losses, by marginal likelihood on a grid.

Standard deviations come from leave-one-out errors at the pilots; the fit's own errors on its trials
count as `NOISE_FREEDOM` further runs. Deviations of an objective come from its own leave-one-out
errors, because errors of losses are correlated. Intervals are for a new run at the pilots' size,
with Student's t for the number of pilots.

Shapes: K pilots, L trials, N mixtures, D domains, M losses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import TrialsError, did_you_mean
from mixopt.fitting.intervals import LEVEL, Calibration
from mixopt.fitting.regressor import (
    Predictor,
    Regressor,
    fit_regressor,
    matern,
    predict_losses,
    predict_with_std,
    select_targets,
    supports,
)
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials import Trials, schema

SLOPE_SPREAD = 0.4  # between losses; slopes from the published 1M to 1B runs are 0.2 to 1.1
COMMON_HOLD = 0.5  # strength of the prior on the common slope, in runs one spread off the mean
MIN_HOLD = 0.3  # minimum strength of the prior on the slope of a loss
MIN_SLOPE = 0.05
MIN_NOISE = 1e-6  # squared spreads; without noise every slope would be certain
NOISE_FREEDOM = 2.0
OFF = 0.2  # of the objective's spread: error of a single pilot, which shows no slope

WARP, SHIFT = 0.35, 1e-6
STEEPEST = 1e-4  # the warp's slope is constant below this weight
LENGTHS = (0.3, 0.6, 1.2, 2.4)
RATIOS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SIZE = ("proxy", "parameters", "tokens")
MIN_RELATIVE = 0.25  # minimum standard deviation relative to the typical one


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines of losses through runs, and their residuals, in spreads of each loss.

    Attributes:
        levels_M: Level of each loss's line.
        slopes_M: Slope of each loss's line.
        unsure_M22: Covariance of level and slope, in units of a run's variance.
        weights_KD: Mixtures of the runs.
        columns_KM: Predictions of the fit for the runs.
        inverse_KK: Inverse covariance of the residuals, in units of a run's variance.
        dual_KM: `inverse_KK` times the residuals.
        length: Length scale of the residuals, in warped weights.
        share: Share of the residuals' variance that depends on the mixture.
    """

    levels_M: Array
    slopes_M: Array
    unsure_M22: Array
    weights_KD: Array
    columns_KM: Array
    inverse_KK: Array
    dual_KM: Array
    length: float = LENGTHS[0]
    share: float = 0.0

    @classmethod
    def through(
        cls,
        weights_KD: Array,
        columns_KM: Array,
        values_KM: Array,
        noise_M: Array,
        length: float,
        share: float,
    ) -> Self:
        """Fit lines through runs; `noise_M` is the variance of the fit's own error."""
        x_KM, y_KM = (array - array.mean(axis=0) for array in (columns_KM, values_KM))
        squares_M, products_M = (x_KM**2).sum(axis=0), (x_KM * y_KM).sum(axis=0)
        squares, products = (float(array.sum()) + COMMON_HOLD for array in (squares_M, products_M))
        hold_M = np.maximum(noise_M / SLOPE_SPREAD**2, MIN_HOLD)
        drawn_M = products_M + hold_M * max(products / squares, MIN_SLOPE)
        slopes_M = np.maximum(drawn_M / (squares_M + hold_M), MIN_SLOPE)
        covariance_KK = _alike(weights_KD, weights_KD, length, share)
        np.fill_diagonal(covariance_KK, 1.0)
        inverse_KK = np.asarray(np.linalg.inv(covariance_KK))
        weight_K = inverse_KK.sum(axis=0) / inverse_KK.sum()
        levels_M = weight_K @ (values_KM - slopes_M * columns_KM)
        basis_MK2 = np.stack([np.ones_like(columns_KM), columns_KM], axis=2).transpose(1, 0, 2)
        precision_M22 = basis_MK2.transpose(0, 2, 1) @ inverse_KK @ basis_MK2
        # Slopes are shrunk for robustness; their uncertainty uses the prior's spread.
        precision_M22[:, 1, 1] += np.maximum(noise_M, MIN_NOISE) / SLOPE_SPREAD**2
        dual_KM = inverse_KK @ (values_KM - levels_M - slopes_M * columns_KM)
        unsure_M22 = np.asarray(np.linalg.inv(precision_M22))
        runs = weights_KD, columns_KM
        return cls(levels_M, slopes_M, unsure_M22, *runs, inverse_KK, dual_KM, length, share)

    @classmethod
    def most_likely(
        cls, weights_KD: Array, columns_KM: Array, values_KM: Array, noise_M: Array
    ) -> Self:
        """Return the lines whose residuals have the greatest marginal likelihood."""
        runs = weights_KD, columns_KM, values_KM, noise_M
        candidates = [
            cls.through(*runs, length, ratio / (1.0 + ratio))
            for ratio in RATIOS
            for length in (LENGTHS if ratio else LENGTHS[:1])
        ]
        return max(candidates, key=lambda lines: lines._likelihood(values_KM))

    def _likelihood(self, values_KM: Array) -> float:
        """Return the log marginal likelihood without its constant."""
        residual_KM = values_KM - self.levels_M - self.slopes_M * self.columns_KM
        squares_M = (residual_KM * self.dual_KM).sum(axis=0)
        volume = np.log(self.inverse_KK.sum()) - np.linalg.slogdet(self.inverse_KK)[1]
        misfit = np.log1p(squares_M / (residual_KM.var(axis=0) + MIN_NOISE)).sum()
        return float(-0.5 * (len(squares_M) * volume + self.freedom * misfit))

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the noise variance, including those of its prior."""
        return NOISE_FREEDOM + len(self.weights_KD) - 1

    def at(self, columns_NM: Array, weights_ND: Array) -> Array:
        """Return losses at mixtures, shape (N, M)."""
        residual_NM = self._alike(weights_ND) @ self.dual_KM
        return self.levels_M + self.slopes_M * columns_NM + residual_NM

    def widths(self, columns_NM: Array, weights_ND: Array, relative_NM: Array | float) -> Array:
        """Return relative standard deviations of new runs about their lines, shape (N, M)."""
        alike_NK = self._alike(weights_ND)
        solved_NK = alike_NK @ self.inverse_KK
        unexplained_N = np.maximum(1.0 - (solved_NK * alike_NK).sum(axis=1), 1.0 - self.share)
        level_NM = np.broadcast_to(1.0 - solved_NK.sum(axis=1)[:, None], columns_NM.shape)
        basis_NM2 = np.stack([level_NM, columns_NM - solved_NK @ self.columns_KM], axis=2)
        unsure_NM = np.einsum("nmi,mij,nmj->nm", basis_NM2, self.unsure_M22, basis_NM2)
        widths_NM: Array = np.sqrt(np.square(relative_NM) * unexplained_N[:, None] + unsure_NM)
        return widths_NM

    def residual_slopes(self, weights_D: Array) -> Array:
        """Return the gradient of the residual process, shape (M, D)."""
        offset_KD = (_warped(weights_D) - _warped(self.weights_KD)) / self.length
        distance_K = np.sqrt(5.0 * (offset_KD**2).sum(axis=1))
        by_squared_K = -5.0 / 6.0 * (1.0 + distance_K) * np.exp(-distance_K) * self.share
        steep_D = WARP * (np.maximum(weights_D, STEEPEST) + SHIFT) ** (WARP - 1.0)
        by_weight_KD = 2.0 * by_squared_K[:, None] * offset_KD * steep_D / self.length
        return np.asarray(self.dual_KM.T @ by_weight_KD)

    def _alike(self, weights_ND: Array) -> Array:
        return _alike(weights_ND, self.weights_KD, self.length, self.share)


def _alike(weights_ND: Array, weights_KD: Array, length: float, share: float) -> Array:
    """Return covariances of residuals, in units of a run's variance, shape (N, K)."""
    from scipy.spatial.distance import cdist

    if not share:
        return np.zeros((len(weights_ND), len(weights_KD)))
    distance_NK = np.sqrt(5.0) * cdist(_warped(weights_ND), _warped(weights_KD)) / length
    return share * matern(distance_NK)


def _warped(weights_ND: Array) -> Array:
    return (np.maximum(weights_ND, 0.0) + SHIFT) ** WARP


@dataclass(frozen=True, eq=False)
class Correction:
    """Lines through runs in the losses' unit, and the errors of runs about them.

    Attributes:
        lines: The lines, in spreads.
        middle_M: Origin of columns and values, in the losses' unit.
        spread_M: Standard deviation of each loss over the proxies' trials, > 0.
        sigma_M: Standard deviation of a run about its line, in spreads.
        noise_M: Error variance of the fit at its own size, in squared spreads.
        values_KM: Observed losses of the runs, in spreads.
        left_out_KM: Leave-one-out errors of the runs, divided by their widths.
        widths_KM: Relative standard deviations of these errors.
    """

    lines: Lines
    middle_M: Array
    spread_M: Array
    sigma_M: Array
    noise_M: Array
    values_KM: Array
    left_out_KM: Array
    widths_KM: Array

    @classmethod
    def of(
        cls,
        weights_KD: Array,
        predicted_KM: Array,
        observed_KM: Array,
        spread_M: Array,
        off_M: Array,
        middle_M: Array | None = None,
    ) -> Self:
        """Fit lines to predictions and observations of runs, relative to `middle_M`."""
        middle_M = predicted_KM.mean(axis=0) if middle_M is None else middle_M
        columns_KM, values_KM = (
            (losses_KM - middle_M) / spread_M for losses_KM in (predicted_KM, observed_KM)
        )
        noise_M, count = np.square(off_M / spread_M), len(predicted_KM)
        errors_KM, widths_KM = np.zeros_like(columns_KM), np.ones_like(columns_KM)
        for k in range(count if count > 1 else 0):
            training = np.arange(count) != k
            rest = Lines.most_likely(
                weights_KD[training], columns_KM[training], values_KM[training], noise_M
            )
            left_out = columns_KM[[k]], weights_KD[[k]]
            widths_KM[k] = rest.widths(*left_out, 1.0)
            errors_KM[k] = (values_KM[k] - rest.at(*left_out)) / widths_KM[k]
        lines = Lines.most_likely(weights_KD, columns_KM, values_KM, noise_M)
        sigma_M = np.sqrt(_variance(errors_KM, noise_M))
        scales = middle_M, spread_M, sigma_M, noise_M
        return cls(lines, *scales, values_KM, errors_KM, widths_KM)

    def apply(self, predicted_NM: Array, weights_ND: Array) -> Array:
        """Return losses at the runs' size from the fit's predictions, shape (N, M)."""
        columns_NM = (predicted_NM - self.middle_M) / self.spread_M
        return self.middle_M + self.spread_M * self.lines.at(columns_NM, weights_ND)

    def std(self, predicted_NM: Array, weights_ND: Array, relative_NM: Array) -> Array:
        """Return standard deviations of a new run's losses, shape (N, M)."""
        columns_NM = (predicted_NM - self.middle_M) / self.spread_M
        widths_NM = self.lines.widths(columns_NM, weights_ND, relative_NM)
        return self.spread_M * self.sigma_M * widths_NM

    def gradient(self, slopes_MD: Array, weights_D: Array) -> Array:
        """Return the gradient of corrected losses from the fit's gradient, shape (M, D)."""
        gradient_MD: Array = self.lines.slopes_M[:, None] * slopes_MD
        if self.lines.share:
            gradient_MD += self.spread_M[:, None] * self.lines.residual_slopes(weights_D)
        return gradient_MD

    def calibration(self, objective: Objective, losses_LM: Array) -> Calibration:
        """Return the calibration of 90% intervals of an objective."""
        wide_KM = self.spread_M * self.widths_KM
        wide_K, off = objective.spread(wide_KM * self.sigma_M), OFF
        if len(wide_K) == 1:
            errors_K, off = np.zeros(1), SLOPE_SPREAD
        else:
            observed_KM = self.middle_M + self.spread_M * self.values_KM
            carried_KM = observed_KM - wide_KM * self.left_out_KM
            errors_K = (objective.value(observed_KM) - objective.value(carried_KM)) / wide_K
        typical = off * float(objective.value(losses_LM).std()) / float(wide_K.mean())
        variance = _variance(errors_K, np.square(typical))
        return Calibration(self.quantile * float(np.sqrt(variance)), 0.0, True)

    @property
    def quantile(self) -> float:
        """Half width of a 90% interval in standard deviations, for this number of runs."""
        from scipy.stats import t

        return float(t.ppf(0.5 + LEVEL / 2, self.lines.freedom))

    def select(self, targets: Sequence[int]) -> Self:
        """Return the correction of some losses, by position."""
        chosen = list(targets)

        def by_loss(owner: Lines | Correction) -> dict[str, Any]:
            arrays = {name: array for name, array in vars(owner).items() if name.endswith("M")}
            return {name: array[..., chosen] for name, array in arrays.items()}

        unsure_M22 = self.lines.unsure_M22[chosen]
        lines = replace(self.lines, unsure_M22=unsure_M22, **by_loss(self.lines))
        return replace(self, lines=lines, **by_loss(self))

    def refitted(self, predicted_KM: Array) -> Self:
        """Return the correction of another fit's predictions, with other settings unchanged."""
        old, middle_M = self.lines, predicted_KM.mean(axis=0)
        values_KM = self.values_KM + (self.middle_M - middle_M) / self.spread_M
        runs = old.weights_KD, (predicted_KM - middle_M) / self.spread_M, values_KM
        lines = Lines.through(*runs, self.noise_M, old.length, old.share)
        return replace(self, lines=lines, values_KM=values_KM, middle_M=middle_M)

    def describe(self) -> str:
        """Return the number of runs and the range of slopes as text."""
        slopes_M = self.lines.slopes_M
        count = len(self.lines.weights_KD)
        return (
            f"is corrected to the size of {count} pilot{'s' * (count != 1)} by lines, "
            f"slopes {slopes_M.min():.2f} to {slopes_M.max():.2f}"
        )

    def plain_law(self) -> dict[str, Any]:
        """Return the correction as plain values, for a plain law."""
        law = dict(vars(self.lines))
        law["unsure_M4"] = law.pop("unsure_M22").reshape(-1, 4)
        return law | {n: getattr(self, n) for n in ("middle_M", "spread_M", "sigma_M")}


def _variance(errors_K: Array, prior: Any) -> Any:
    """Return a variance from errors at runs, at least the usual one."""
    squares, count = (errors_K**2).sum(axis=0), len(errors_K)
    lowest = np.maximum(prior, squares / count)
    return (squares + NOISE_FREEDOM * lowest) / (NOISE_FREEDOM + count - 1)


@dataclass(frozen=True, eq=False)
class CarriedRegressor:
    """A fitted regressor corrected to the pilots' size; `make` builds it again, unfitted."""

    name: str
    regressor: Predictor
    correction: Correction
    typical_M: Array  # typical standard deviations; 0 without any
    make: Callable[[], Regressor]

    def predict(self, weights_ND: ArrayLike, return_std: bool = False) -> Any:
        """Predict losses, shape (N, M), and on request their standard deviations."""
        weights = np.asarray(weights_ND, float)
        if not return_std:
            return self.correction.apply(predict_losses(self.regressor, weights), weights)
        plain_NM, stds_NM = predict_with_std(self.regressor, weights)
        has_std_M = self.typical_M > 0
        relative_NM = np.where(has_std_M, stds_NM / np.where(has_std_M, self.typical_M, 1.0), 1.0)
        relative_NM = np.maximum(relative_NM, MIN_RELATIVE)
        stds_NM = self.correction.std(plain_NM, weights, relative_NM)
        return self.correction.apply(plain_NM, weights), stds_NM

    @property
    def gradient(self) -> Callable[[ArrayLike], Array]:
        """The gradient of each loss, if the regressor has one."""
        regressor: Any = self.regressor
        slopes = regressor.gradient
        return lambda weights_D: self.correction.gradient(
            np.asarray(slopes(weights_D)), np.asarray(weights_D, float)
        )

    @property
    def plain_law(self) -> Callable[[], dict[str, Any]]:
        """The law as plain numbers, if the regressor has one."""
        regressor: Any = self.regressor
        law, more = regressor.plain_law, {"kind": "corrected", "typical_M": self.typical_M}
        return lambda: {**more, "model": law(), **self.correction.plain_law()}

    def select(self, targets: Sequence[int]) -> Self:
        """Return a copy that predicts only these targets, by position."""
        return replace(
            self,
            regressor=select_targets(self.regressor, targets),
            correction=self.correction.select(targets),
            typical_M=self.typical_M[list(targets)],
        )

    def tuned(self) -> Self:
        """Return a copy to refit on resampled trials, with the same pilots."""
        return self

    def fit(self, rows: ArrayLike, losses_NM: ArrayLike) -> Self:
        """Fit to other trials, with new lines through the pilots."""
        unfitted = self.regressor.tuned() if supports(self.regressor, "tuned") else self.make()
        refitted = replace(self, regressor=fit_regressor(self.name, unfitted, rows, losses_NM))
        predicted_KM = predict_losses(refitted.regressor, self.correction.lines.weights_KD)
        return replace(refitted, correction=self.correction.refitted(predicted_KM))


def aligned(pilots: Trials, trials: Trials, objective: Objective) -> Trials:
    """Return the finished pilots on the domains and losses of the trials, in their order."""
    if not isinstance(pilots, Trials):
        raise TrialsError(
            f"pilots: expected Trials, such as Trials.from_csv(mixtures, losses); got {pilots!r}"
        )
    _check_names(pilots, trials)
    if not pilots.has(objective.unit):
        raise TrialsError(f"pilots: their losses are not in {objective.unit}, as the fit's are")
    try:
        finished = pilots.finished
    except TrialsError as error:
        raise TrialsError(f"pilots: {error}; a correction needs at least one") from error
    sizes = set(trials.table.select(SIZE).iter_rows())
    for name, *size in finished.table.select("trial", *SIZE).iter_rows():
        if tuple(size) in sizes and None not in size[1:]:
            raise TrialsError(
                f"pilots: {name!r} is of the trials' own size ({size[1]} parameters, {size[2]}"
                " tokens); pilots are runs at the target size: fit it with the trials instead"
            )
    table = finished.table.select(list(schema(trials.domains, trials.targets)))
    aligned_trials = Trials(table, trials.domains, trials.targets, pilots.notes)
    by_numbers = {numbers: name for name, numbers in _numbers(trials, objective)}
    for name, numbers in _numbers(aligned_trials, objective):
        if numbers in by_numbers:
            raise TrialsError(
                f"pilots: {name!r} is trial {by_numbers[numbers]!r} (the same mixture and losses);"
                " pilots are runs at the target size"
            )
    return aligned_trials


def _numbers(trials: Trials, objective: Objective) -> list[tuple[str, tuple[float, ...]]]:
    """Return name, and weights with losses, of each trial."""
    rows = np.hstack([trials.weights(), trials.losses(objective.unit)]).tolist()
    return list(zip(trials.table["trial"], map(tuple, rows), strict=True))


def _check_names(pilots: Trials, trials: Trials) -> None:
    for name in pilots.domains:
        if name not in trials.domains:
            near = did_you_mean(name, trials.domains)
            raise TrialsError(f"pilots: the trials have no domain {name!r}{near}")
    pairs = {
        "weight of domain": (pilots.domains, trials.domains),
        "loss on": (pilots.targets, trials.targets),
    }
    for kind, (ours, theirs) in pairs.items():
        for name in (name for name in theirs if name not in ours):
            raise TrialsError(
                f"pilots: no {kind} {name!r}{did_you_mean(name, ours)}; pilots need what the trials"
                " have"
            )
