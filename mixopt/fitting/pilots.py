"""Pilots: a few runs at the target size, which carry a fit from small proxies to that size.

Losses of a larger model are nearly a straight line in those of a proxy, another for each loss, and
what the lines leave is alike at like mixtures. With the fit's prediction f and what a run gave y,

    y = f0 + s (b0 + b1 (f - f0) / s + r(w) + noise)

with s the spread of the loss over the proxies' trials and f0 the mean prediction at the runs. b0 is
free. b1 is taken to be one slope of all losses, give or take `SLOPE_SPREAD`, and that one to be
near 1: one run is a shift, and a few are lines drawn towards what all losses say together. A slope
never turns the ranks round. r has a Matern kernel on w^0.35; its length and its share of the
variance are those of all losses together, with the greatest marginal likelihood on a grid.

Deviations are from errors at each run when all is fitted to the others; the fit's own errors on its
trials are worth `NOISE_FREEDOM` runs more. So are those of an objective, whichever is asked for:
how far errors of losses go together is seen there. Intervals are of a new run at the pilots' size,
by Student's t for so many runs.

Shapes: K pilots, L trials, N mixtures, D domains, M losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import TrialsError, did_you_mean
from mixopt.fitting.intervals import LEVEL, Calibration
from mixopt.fitting.regressor import (
    Predictor,
    Regressor,
    fit_regressor,
    predict_losses,
    predict_with_std,
    select_targets,
    supports,
)
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials import Trials, schema

SLOPE_SPREAD = 0.4  # of losses; slopes between the published 1M and 1B runs are 0.2 to 1.1
COMMON_HOLD = 0.5  # so many runs a spread from the mean hold the slope of all losses at 1
MIN_HOLD = 0.3  # and a loss's slope at that one, at least
MIN_SLOPE = 0.05
MIN_NOISE = 1e-6  # in squared spreads; a fit that is never off would be sure of every slope
NOISE_FREEDOM = 2.0
OFF = 0.2  # of the objective's spread; one run shows no slope, and is off by what slopes differ by

WARP, SHIFT = 0.35, 1e-6
STEEPEST = 1e-4  # below this weight the warp's slope counts as it is here
LENGTHS = (0.3, 0.6, 1.2, 2.4)
RATIOS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SIZE = ("proxy", "parameters", "tokens")
MIN_RELATIVE = 0.25  # of what is typical: a regressor that claims to know is not believed further


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines of losses through some runs, and what they leave of them, in spreads of each loss.

    Attributes:
        levels_M: Level of each loss's line.
        slopes_M: And slope.
        unsure_M22: Covariance of both, over a run's variance.
        weights_KD: Mixtures of the runs.
        columns_KM: What the fit predicts for them.
        inverse_KK: Inverse of the covariance of what lines leave, over a run's variance.
        dual_KM: This times what they leave.
        length: Over which that is alike, in warped weights.
        share: Of a run's variance about its line, what is alike at like mixtures.
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
    ) -> Lines:
        """Draw lines through runs; `noise_M` is the variance by which the fit itself is off."""
        x_KM, y_KM = (one - one.mean(axis=0) for one in (columns_KM, values_KM))
        squares_M, products_M = (x_KM**2).sum(axis=0), (x_KM * y_KM).sum(axis=0)
        squares, products = (float(one.sum()) + COMMON_HOLD for one in (squares_M, products_M))
        hold_M = np.maximum(noise_M / SLOPE_SPREAD**2, MIN_HOLD)
        drawn_M = products_M + hold_M * max(products / squares, MIN_SLOPE)
        slopes_M = np.maximum(drawn_M / (squares_M + hold_M), MIN_SLOPE)
        covariance_KK = _alike(weights_KD, weights_KD, length, share)
        np.fill_diagonal(covariance_KK, 1.0)
        inverse_KK = np.asarray(np.linalg.inv(covariance_KK), dtype=np.float64)
        weight_K = inverse_KK.sum(axis=0) / inverse_KK.sum()
        levels_M = weight_K @ (values_KM - slopes_M * columns_KM)
        basis_MK2 = np.stack([np.ones_like(columns_KM), columns_KM], axis=2).transpose(1, 0, 2)
        precision_M22 = basis_MK2.transpose(0, 2, 1) @ inverse_KK @ basis_MK2
        # Slopes are held back out of caution; how unsure they are, is their prior's spread.
        precision_M22[:, 1, 1] += np.maximum(noise_M, MIN_NOISE) / SLOPE_SPREAD**2
        dual_KM = inverse_KK @ (values_KM - levels_M - slopes_M * columns_KM)
        unsure_M22 = np.asarray(np.linalg.inv(precision_M22), dtype=np.float64)
        runs = weights_KD, columns_KM
        return cls(levels_M, slopes_M, unsure_M22, *runs, inverse_KK, dual_KM, length, share)

    @classmethod
    def most_likely(
        cls, weights_KD: Array, columns_KM: Array, values_KM: Array, noise_M: Array
    ) -> Lines:
        """Return the lines with the greatest marginal likelihood of what they leave."""
        runs = weights_KD, columns_KM, values_KM, noise_M
        every = [
            cls.through(*runs, length, ratio / (1.0 + ratio))
            for ratio in RATIOS
            for length in (LENGTHS if ratio else LENGTHS[:1])
        ]
        return max(every, key=lambda one: one._likelihood(values_KM))

    def _likelihood(self, values_KM: Array) -> float:
        """Return its logarithm, but for a constant."""
        left_KM = values_KM - self.levels_M - self.slopes_M * self.columns_KM
        squares_M = (left_KM * self.dual_KM).sum(axis=0)
        volume = np.log(self.inverse_KK.sum()) - np.linalg.slogdet(self.inverse_KK)[1]
        known = np.log1p(squares_M / (left_KM.var(axis=0) + MIN_NOISE)).sum()
        return float(-0.5 * (len(squares_M) * volume + self.freedom * known))

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the noise's variance, those that it starts with included."""
        return NOISE_FREEDOM + len(self.weights_KD) - 1

    def at(self, columns_NM: Array, weights_ND: Array) -> Array:
        """Return losses at mixtures, shape (N, M)."""
        residual_NM = self._alike(weights_ND) @ self.dual_KM
        losses_NM: Array = self.levels_M + self.slopes_M * columns_NM + residual_NM
        return losses_NM

    def widths(self, columns_NM: Array, weights_ND: Array, relative_NM: Array | float) -> Array:
        """Return deviations of new runs over that of a run about its line, shape (N, M)."""
        alike_NK = self._alike(weights_ND)
        solved_NK = alike_NK @ self.inverse_KK
        left_N1 = np.maximum(1.0 - (solved_NK * alike_NK).sum(axis=1), 1.0 - self.share)[:, None]
        one_NM = np.broadcast_to(1.0 - solved_NK.sum(axis=1)[:, None], columns_NM.shape)
        basis_NM2 = np.stack([one_NM, columns_NM - solved_NK @ self.columns_KM], axis=2)
        unsure_NM = np.einsum("nmi,mij,nmj->nm", basis_NM2, self.unsure_M22, basis_NM2)
        widths_NM: Array = np.sqrt(np.square(relative_NM) * left_N1 + unsure_NM)
        return widths_NM

    def residual_slopes(self, weights_D: Array) -> Array:
        """Return the slope of what is alike at like mixtures by each weight, shape (M, D)."""
        apart_KD = (_warped(weights_D) - _warped(self.weights_KD)) / self.length
        distance_K = np.sqrt(5.0 * (apart_KD**2).sum(axis=1))
        by_squared_K = -5.0 / 6.0 * (1.0 + distance_K) * np.exp(-distance_K) * self.share
        steep_D = WARP * (np.maximum(weights_D, STEEPEST) + SHIFT) ** (WARP - 1.0)
        by_weight_KD = 2.0 * by_squared_K[:, None] * apart_KD * steep_D / self.length
        return np.asarray(self.dual_KM.T @ by_weight_KD)

    def _alike(self, weights_ND: Array) -> Array:
        return _alike(weights_ND, self.weights_KD, self.length, self.share)


def _alike(weights_ND: Array, weights_KD: Array, length: float, share: float) -> Array:
    """Return covariances of what lines leave, over a run's variance, shape (N, K)."""
    from scipy.spatial.distance import cdist

    if not share:
        return np.zeros((len(weights_ND), len(weights_KD)))
    distance_NK = np.sqrt(5.0) * cdist(_warped(weights_ND), _warped(weights_KD)) / length
    alike_NK: Array = (1.0 + distance_NK + distance_NK**2 / 3.0) * np.exp(-distance_NK)
    return share * alike_NK


def _warped(weights_ND: Array) -> Array:
    warped: Array = (np.maximum(weights_ND, 0.0) + SHIFT) ** WARP
    return warped


@dataclass(frozen=True, eq=False)
class Correction:
    """Lines through some runs in the losses' unit, and how far runs are off them.

    Attributes:
        lines: The lines, in spreads.
        middle_M: Where columns and values are 0, in the losses' unit.
        spread_M: Standard deviation of each loss over the proxies' trials, > 0.
        sigma_M: Standard deviation of a run about its line, in spreads.
        noise_M: Variance by which the fit is off at its own size, in squared spreads.
        values_KM: What the runs gave, in spreads.
        left_out_KM: Errors at each run when all is fitted to the others, over their widths.
        widths_KM: These widths.
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
        told_KM: Array,
        seen_KM: Array,
        spread_M: Array,
        off_M: Array,
        middle_M: Array | None = None,
    ) -> Correction:
        """Fit to what is predicted for some runs and what they gave; levels are of `middle_M`."""
        middle_M = told_KM.mean(axis=0) if middle_M is None else middle_M
        columns_KM, values_KM = ((one - middle_M) / spread_M for one in (told_KM, seen_KM))
        noise_M, count = np.square(off_M / spread_M), len(told_KM)
        errors_KM, widths_KM = np.zeros_like(columns_KM), np.ones_like(columns_KM)
        for k in range(count if count > 1 else 0):
            others = np.arange(count) != k
            rest = Lines.most_likely(
                weights_KD[others], columns_KM[others], values_KM[others], noise_M
            )
            own = columns_KM[[k]], weights_KD[[k]]
            widths_KM[k] = rest.widths(*own, 1.0)
            errors_KM[k] = (values_KM[k] - rest.at(*own)) / widths_KM[k]
        lines = Lines.most_likely(weights_KD, columns_KM, values_KM, noise_M)
        sigma_M = np.sqrt(_variance(errors_KM, noise_M))
        scales = middle_M, spread_M, sigma_M, noise_M
        return cls(lines, *scales, values_KM, errors_KM, widths_KM)

    def apply(self, told_NM: Array, weights_ND: Array) -> Array:
        """Return losses at the runs' size, shape (N, M), of what the fit predicts."""
        columns_NM = (told_NM - self.middle_M) / self.spread_M
        carried_NM: Array = self.middle_M + self.spread_M * self.lines.at(columns_NM, weights_ND)
        return carried_NM

    def std(self, told_NM: Array, weights_ND: Array, relative_NM: Array) -> Array:
        """Return standard deviations of a new run's losses, shape (N, M)."""
        columns_NM = (told_NM - self.middle_M) / self.spread_M
        widths_NM = self.lines.widths(columns_NM, weights_ND, relative_NM)
        std_NM: Array = self.spread_M * self.sigma_M * widths_NM
        return std_NM

    def gradient(self, slopes_MD: Array, weights_D: Array) -> Array:
        """Return the slope of each carried loss by each weight, shape (M, D), of the fit's."""
        gradient_MD: Array = self.lines.slopes_M[:, None] * slopes_MD
        if self.lines.share:
            gradient_MD += self.spread_M[:, None] * self.lines.residual_slopes(weights_D)
        return gradient_MD

    def calibration(self, objective: Objective, losses_LM: Array) -> Calibration:
        """Return how deviations of an objective become half of a 90% interval."""
        wide_KM = self.spread_M * self.widths_KM
        wide_K, off = objective.spread(wide_KM * self.sigma_M), OFF
        if len(wide_K) == 1:
            errors_K, off = np.zeros(1), SLOPE_SPREAD
        else:
            seen_KM = self.middle_M + self.spread_M * self.values_KM
            carried_KM = seen_KM - wide_KM * self.left_out_KM
            errors_K = (objective.value(seen_KM) - objective.value(carried_KM)) / wide_K
        usual = off * float(objective.value(losses_LM).std()) / float(wide_K.mean())
        variance = _variance(errors_K, np.square(usual))
        return Calibration(self.quantile * float(np.sqrt(variance)), 0.0, True)

    @property
    def quantile(self) -> float:
        """Deviations that are half of a 90% interval, for so many runs."""
        from scipy.stats import t

        return float(t.ppf(0.5 + LEVEL / 2, self.lines.freedom))

    def select(self, targets: Sequence[int]) -> Correction:
        """Return the correction of some losses, by position."""
        chosen, lines = list(targets), self.lines
        by_loss = ("columns_KM", "dual_KM")
        some = {name: getattr(lines, name)[:, chosen] for name in by_loss}
        some |= {n: getattr(lines, n)[chosen] for n in ("levels_M", "slopes_M", "unsure_M22")}
        own = {
            name: value[..., chosen]
            for name, value in vars(self).items()
            if value is not self.lines
        }
        return replace(self, lines=replace(lines, **some), **own)

    def again(self, told_KM: Array) -> Correction:
        """Return lines and residuals of another fit's predictions; all else stays."""
        old, middle_M = self.lines, told_KM.mean(axis=0)
        values_KM = self.values_KM + (self.middle_M - middle_M) / self.spread_M
        runs = old.weights_KD, (told_KM - middle_M) / self.spread_M, values_KM
        lines = Lines.through(*runs, self.noise_M, old.length, old.share)
        return replace(self, lines=lines, values_KM=values_KM, middle_M=middle_M)

    def plain_law(self) -> dict[str, Any]:
        """Return all that carries predictions and deviations over, for a plain law."""
        law = dict(vars(self.lines))
        law["unsure_M4"] = law.pop("unsure_M22").reshape(-1, 4)
        return law | {n: getattr(self, n) for n in ("middle_M", "spread_M", "sigma_M")}


def _variance(errors_K: Array, usual: Any) -> Any:
    """Return a variance by errors at runs, where what is usual is the least."""
    squares, count = (errors_K**2).sum(axis=0), len(errors_K)
    least = np.maximum(usual, squares / count)
    return (squares + NOISE_FREEDOM * least) / (NOISE_FREEDOM + count - 1)


@dataclass(frozen=True, eq=False)
class CarriedRegressor:
    """A fitted regressor that predicts at the pilots' size; `make` builds it again, unfitted."""

    name: str
    regressor: Predictor
    correction: Correction
    typical_M: Array  # deviations that are typical of it; 0 where it has none
    make: Callable[[], Regressor]

    def predict(self, weights_ND: ArrayLike, return_std: bool = False) -> Any:
        """Predict losses, shape (N, M), and their deviations if asked."""
        weights = np.asarray(weights_ND, dtype=np.float64)
        if not return_std:
            return self.correction.apply(predict_losses(self.regressor, weights), weights)
        own_NM, stds_NM = predict_with_std(self.regressor, weights)
        known_M = self.typical_M > 0
        relative_NM = np.where(known_M, stds_NM / np.where(known_M, self.typical_M, 1.0), 1.0)
        relative_NM = np.maximum(relative_NM, MIN_RELATIVE)
        stds_NM = self.correction.std(own_NM, weights, relative_NM)
        return self.correction.apply(own_NM, weights), stds_NM

    @property
    def gradient(self) -> Callable[[ArrayLike], Array]:
        """The slope of each loss by each weight; there is one where the regressor has one."""
        own: Any = self.regressor
        slopes = own.gradient
        return lambda weights_D: self.correction.gradient(
            np.asarray(slopes(weights_D)), np.asarray(weights_D, dtype=np.float64)
        )

    @property
    def plain_law(self) -> Callable[[], dict[str, Any]]:
        """The law as plain numbers; there is one where the regressor has one."""
        own: Any = self.regressor
        law, more = own.plain_law, {"kind": "corrected", "typical_M": self.typical_M}
        return lambda: {**more, "model": law(), **self.correction.plain_law()}

    def select(self, targets: Sequence[int]) -> CarriedRegressor:
        """Return one that predicts only these targets, by position."""
        return replace(
            self,
            regressor=select_targets(self.regressor, targets),
            correction=self.correction.select(targets),
            typical_M=self.typical_M[list(targets)],
        )

    def tuned(self) -> CarriedRegressor:
        """Return one to fit again, on resampled trials and with the same pilots."""
        return self

    def fit(self, rows: ArrayLike, losses_NM: ArrayLike) -> CarriedRegressor:
        """Return one of other trials, with lines through the pilots again."""
        own = self.regressor.tuned() if supports(self.regressor, "tuned") else self.make()
        again = replace(self, regressor=fit_regressor(self.name, own, rows, losses_NM))
        told_KM = predict_losses(again.regressor, self.correction.lines.weights_KD)
        return replace(again, correction=self.correction.again(told_KM))


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
        done = pilots.finished
    except TrialsError as error:
        raise TrialsError(f"pilots: {error}; a correction needs at least one") from error
    sizes = set(trials.table.select(SIZE).iter_rows())
    for name, *own in done.table.select("trial", *SIZE).iter_rows():
        if tuple(own) in sizes and None not in own[1:]:
            raise TrialsError(
                f"pilots: {name!r} is of the trials' own size ({own[1]} parameters, {own[2]}"
                " tokens); pilots are runs at the target size: fit it with the trials instead"
            )
    table = done.table.select(list(schema(trials.domains, trials.targets)))
    aligned_trials = Trials(table, trials.domains, trials.targets, pilots.notes)
    known = {numbers: name for name, numbers in _numbers(trials, objective)}
    for name, numbers in _numbers(aligned_trials, objective):
        if numbers in known:
            raise TrialsError(
                f"pilots: {name!r} is trial {known[numbers]!r} (the same mixture and losses);"
                " pilots are runs at the target size"
            )
    return aligned_trials


def _numbers(trials: Trials, objective: Objective) -> list[tuple[str, tuple[float, ...]]]:
    """Return the name, and weights and losses together, of each trial."""
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
    for what, (own, theirs) in pairs.items():
        for name in (name for name in theirs if name not in own):
            raise TrialsError(
                f"pilots: no {what} {name!r}{did_you_mean(name, own)}; pilots need what the trials"
                " have"
            )
