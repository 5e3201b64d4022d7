"""Mixing laws from ordinary batches, with small and safe moves: Aioli's idea without sweeps.

The loss of a domain after n of its own tokens (in units of its tokens in a run on the reference
mixture), at a recent share of r times its reference share, is modelled as

    L(n, r) = floor + B (1 + n / s)^-a - K log r

with (a, s) on a grid, and B, K by weighted least squares at each grid point; K is shrunk towards a
usual value, because r varies little. Results are averaged over the grid by likelihood, with the
noise of the best point. Old windows are discounted, so that changing curves are followed. The
recency term is the short-lived effect of recent batches: on a small model three quarters of the
effect of a pulse are gone after a hundred steps.

For the plain mean over the training domains, the marginal value of a domain is the slope of its
curve plus the value of recent share. The mixture moves by exponentiated gradient on relative
marginal values, only where contrasts exceed noise, within [0.8, 1.25] of the reference, and returns
to the reference for the last part of the run. For another objective over training domains, shares
move towards the optimum of the curves, according to signal over noise; in the last part each domain
gets its weight in the objective. Nothing is perturbed or evaluated: published sweeps cost more than
they gain, and targets outside the training domains are left to proxies.

Measurements, and cases in which it does not win: experiments/synthetic/online_synthetic.py,
experiments/real_text/online.py.

Shapes: D domains, G points of the grid, S sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, NamedTuple

import numpy as np

from mixopt.errors import EstimatorError
from mixopt.online import Need, Observation, Plan, Setting
from mixopt.system import Array
from mixopt_regressors.online.online_estimator import OnlineEstimator, means, option

EXPONENTS = (0.1, 0.2, 0.35, 0.5, 0.75)  # a of the grid
SCALES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # s of the grid, in the unit of n
EXPONENT_G, SCALE_G = np.array(list(product(EXPONENTS, SCALES))).T
MIN_WINDOWS = 4  # fewer cannot tell noise from curvature
RECENCY = 0.07  # prior mean of K: nats for a factor e of recent share
RECENCY_SD = 0.05  # prior standard deviation of K
MIN_RECENT = 0.01  # of the recent share relative to the reference
TINY = 1e-30

MIN_WEIGHT = 1e-12  # of weights that are scaled
MAX_SCALE = 1e15  # of scaled weights
HALVINGS = 100

WINDOW = 0.01  # share of the run: a plan
WARM_UP = 0.05  # share of the run: the start on the reference
FADING = 0.98  # discount factor per window
MEMORY = 30.0  # steps of recency at the peak learning rate
CERTAIN = 1.5  # standard deviations above which a contrast changes the mixture
PER_RECENCY = 1.5  # weight of recency relative to the slope
HALF = 0.5  # power of shares in the law of a target
MIN_RELATIVE_SD = 0.3  # of a value from curves
MAX_CURVE_SD = 1e3  # nats
PACE = 0.03  # share of the run in which the mixture of a target mostly converges
NO_TOKENS = 1e-9
FREE = 1e9  # times the reference share: unlimited


class Slopes(NamedTuple):
    """Slopes of the curves at the present tokens."""

    fall_D: Array
    sd_D: Array
    recency_D: Array


class _SharedSums(NamedTuple):
    """Sums over windows of weight w, loss y and x = -log r, shape (D, 1) each."""

    windows: Array
    w: Array
    wy: Array
    wyy: Array
    wx: Array
    wxx: Array
    wxy: Array


class _CurveSums(NamedTuple):
    """Weighted sums over windows of c = (1 + n / s)^-a, y and x, shape (D, G) each."""

    c: Array
    cc: Array
    cy: Array
    cx: Array


class _CentredSums(NamedTuple):
    """Weighted sums of products of y, x and c about their means."""

    yy_D1: Array
    xx_D1: Array
    xy_D1: Array
    cc_DG: Array
    cy_DG: Array
    cx_DG: Array


class _Fits(NamedTuple):
    """The fit at each grid point: B, its variance, K, and the probability of the point."""

    height_DG: Array
    variance_DG: Array
    recency_DG: Array
    chance_DG: Array


@dataclass(frozen=True)
class Curves:
    """Sums over windows for the fits; the state.

    Attributes:
        shared_DS: The columns of `_SharedSums`.
        curve_DGS: The columns of `_CurveSums`.
    """

    shared_DS: Array
    curve_DGS: Array

    @classmethod
    def empty(cls, domains: int) -> Curves:
        """Return curves without windows."""
        return cls(
            shared_DS=np.zeros((domains, len(_SharedSums._fields))),
            curve_DGS=np.zeros((domains, SCALE_G.size, len(_CurveSums._fields))),
        )

    def add(
        self, tokens_D: Array, losses_D: Array, weight_D: Array, recent_D: Array, memory: float
    ) -> Curves:
        """Add a window."""
        is_measured_D = np.isfinite(losses_D) & (weight_D > 0)
        w_D = np.where(is_measured_D, weight_D, 0.0)
        y_D = np.where(is_measured_D, losses_D, 0.0)
        x_D = -np.log(np.maximum(recent_D, MIN_RECENT))
        c_DG = (1 + tokens_D[:, None] / SCALE_G) ** -EXPONENT_G
        shared = _SharedSums(
            windows=is_measured_D.astype(float),
            w=w_D,
            wy=w_D * y_D,
            wyy=w_D * y_D**2,
            wx=w_D * x_D,
            wxx=w_D * x_D**2,
            wxy=w_D * x_D * y_D,
        )
        curve = _CurveSums(c=c_DG, cc=c_DG**2, cy=c_DG * y_D[:, None], cx=c_DG * x_D[:, None])
        return Curves(
            shared_DS=memory * self.shared_DS + np.stack(shared, axis=-1),
            curve_DGS=memory * self.curve_DGS + w_D[:, None, None] * np.stack(curve, axis=-1),
        )

    def slopes(self, tokens_D: Array) -> Slopes:
        """Return the slopes of the curves at these tokens."""
        unit_fall_DG = (1 + tokens_D[:, None] / SCALE_G) ** (-EXPONENT_G - 1)
        unit_fall_DG = EXPONENT_G / SCALE_G * unit_fall_DG
        fits = self._fits()
        slope_DG = fits.height_DG * unit_fall_DG
        fall_D = (fits.chance_DG * slope_DG).sum(axis=1)
        spread_DG = fits.variance_DG * unit_fall_DG**2 + (slope_DG - fall_D[:, None]) ** 2
        sd_D = np.sqrt((fits.chance_DG * spread_DG).sum(axis=1))
        is_short_D = self._shared.windows[:, 0] < MIN_WINDOWS
        recency_D = (fits.chance_DG * fits.recency_DG).sum(axis=1)
        return Slopes(
            fall_D=np.maximum(fall_D, 0.0),
            sd_D=np.where(is_short_D, np.inf, sd_D),
            recency_D=np.maximum(recency_D, 0.0),
        )

    @property
    def _shared(self) -> _SharedSums:
        return _SharedSums._make(np.moveaxis(self.shared_DS, -1, 0)[..., None])

    def _fits(self) -> _Fits:
        freedom_D1 = np.maximum(self._shared.windows - 2.0, 1.0)
        yy_D1, xx_D1, xy_D1, cc_DG, cy_DG, cx_DG = self._centred()
        noise_D1 = np.maximum(yy_D1 - cy_DG**2 / cc_DG, TINY).min(axis=1, keepdims=True)
        noise_D1 = noise_D1 / freedom_D1
        for _ in range(2):  # the second round uses the first one's noise
            hold_D1 = noise_D1 / RECENCY_SD**2
            ridge_D1 = xx_D1 + hold_D1
            pulled_D1 = xy_D1 + hold_D1 * RECENCY
            volume_DG = np.maximum(cc_DG * ridge_D1 - cx_DG**2, 1e-9 * cc_DG * ridge_D1 + TINY)
            height_DG = (ridge_D1 * cy_DG - cx_DG * pulled_D1) / volume_DG
            recency_DG = (cc_DG * pulled_D1 - cx_DG * cy_DG) / volume_DG
            residual_DG = yy_D1 - 2 * height_DG * cy_DG - 2 * recency_DG * xy_D1
            residual_DG += height_DG**2 * cc_DG + 2 * height_DG * recency_DG * cx_DG
            residual_DG = np.maximum(residual_DG + recency_DG**2 * xx_D1, TINY)
            cost_DG = residual_DG + hold_D1 * (recency_DG - RECENCY) ** 2
            noise_D1 = residual_DG.min(axis=1, keepdims=True) / freedom_D1
        chance_DG = np.exp((cost_DG.min(axis=1, keepdims=True) - cost_DG) / noise_D1 / 2)
        chance_DG /= chance_DG.sum(axis=1, keepdims=True)
        return _Fits(
            height_DG=height_DG,
            variance_DG=noise_D1 * ridge_D1 / volume_DG,
            recency_DG=recency_DG,
            chance_DG=chance_DG,
        )

    def _centred(self) -> _CentredSums:
        _, w, y, yy, x, xx, xy = self._shared
        c, cc, cy, cx = np.moveaxis(self.curve_DGS, -1, 0)
        w = np.maximum(w, TINY)
        return _CentredSums(
            yy_D1=np.maximum(yy - y * y / w, TINY),
            xx_D1=np.maximum(xx - x * x / w, 0.0),
            xy_D1=xy - x * y / w,
            cc_DG=np.maximum(cc - c * c / w, TINY),
            cy_DG=cy - c * y / w,
            cx_DG=cx - c * x / w,
        )


def scaled_within(weights_D: Array, lower_D: Array, upper_D: Array) -> Array:
    """Return clip(scale x weights, lower, upper) with the scale for which it adds up to 1."""
    weights_D = np.maximum(weights_D, MIN_WEIGHT)
    low = 0.0
    high = 1.0
    while np.clip(high * weights_D, lower_D, upper_D).sum() < 1.0 and high < MAX_SCALE:
        high *= 2.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        if np.clip(middle * weights_D, lower_D, upper_D).sum() < 1.0:
            low = middle
        else:
            high = middle
    return np.clip(high * weights_D, lower_D, upper_D)


@dataclass(eq=False)
class RobustEstimator(OnlineEstimator):
    """Changes the mixture by significant effects in ordinary batches only.

    The objective counts on training domains; other targets are left out.

    Attributes:
        eta: Step size on relative marginal values, for the mean over the training domains.
        least: Minimum share relative to the reference, for that mean.
        most: Maximum share relative to the reference, for that mean.
        keep: Minimum share relative to the reference, for another objective.
        end: Share of the run at its end on the reference mixture (for another objective, on its
            weights).
    """

    name: ClassVar[str] = "robust"
    needs: ClassVar[frozenset[Need]] = frozenset({"training_loss"})
    saved: ClassVar[tuple[str, ...]] = (
        "shared_DS", "curve_DGS", "total_D", "late_D", "fastest", "base_D",
    )  # fmt: skip

    eta: float = option(0.1, minimum=0.0)
    least: float = option(0.8, minimum=0.0, maximum=1.0)
    most: float = option(1.25, minimum=1.0)
    keep: float = option(0.1, minimum=0.0, maximum=1.0)
    end: float = option(0.15, minimum=0.0, maximum=1.0)

    def start(self, setting: Setting) -> None:
        """Begin a run."""
        weights = dict(zip(setting.evaluations, setting.objective_M.tolist(), strict=True))
        objective_D = np.array([weights.get(name, 0.0) for name in setting.domains])
        if not objective_D.any():
            raise EstimatorError(
                "robust: the objective has no training domain; proxies (mixopt run) or aioli's"
                " sweeps measure the effect of domains on other targets"
            )
        if objective_D.sum() < 1.0 - 1e-9:
            objective_D = objective_D / objective_D.sum()
        self._objective_D = objective_D
        super().start(setting)

    def _first(self) -> Plan:
        reference_D = self.setting.reference_D
        self._store(Curves.empty(len(reference_D)))
        self.total_D = np.zeros(len(reference_D))
        self.fastest = 0.0
        self.late_D = reference_D.copy()
        self.base_D = reference_D.copy()
        return Plan(reference_D.copy(), self._window(), "warm-up")

    def _next(self, observation: Observation) -> Plan:
        slopes = self._learn_curves(observation)
        is_mean = np.allclose(self._objective_D, 1.0 / len(self._objective_D))
        if is_mean:
            return self._for_mean(slopes)
        return self._for_target(slopes, observation)

    @property
    def _scale_D(self) -> Array:
        """Tokens of each domain in a run on the reference mixture, shape (D,)."""
        setting = self.setting
        scale_D: Array = np.maximum(setting.reference_D, NO_TOKENS)
        return scale_D * (setting.steps * setting.tokens_per_step)

    @property
    def _is_end(self) -> bool:
        return self.step >= (1.0 - self.end) * self.setting.steps

    def _window(self) -> int:
        return max(round(WINDOW * self.setting.steps), 1)

    def _learn_curves(self, observation: Observation) -> Slopes:
        tokens = float(observation.tokens_D.sum())
        steps = max(tokens / self.setting.tokens_per_step, 1.0)
        share_D = observation.tokens_D / max(tokens, 1.0)
        self.fastest = max(self.fastest, observation.learning_rate)
        relative_rate = observation.learning_rate / self.fastest if self.fastest else 1.0
        elapsed = steps * relative_rate / MEMORY
        memory = math.exp(-elapsed)
        recent_D = share_D + (self.late_D - share_D) * (1.0 - memory) / max(elapsed, NO_TOKENS)
        self.late_D = share_D + memory * (self.late_D - share_D)
        curves = Curves(self.shared_DS, self.curve_DGS).add(
            tokens_D=(self.total_D + observation.tokens_D / 2.0) / self._scale_D,
            losses_D=means(observation.loss_sum_D, observation.loss_count_D),
            weight_D=observation.loss_count_D,
            recent_D=recent_D / np.maximum(self.setting.reference_D, NO_TOKENS),
            memory=FADING,
        )
        self._store(curves)
        self.total_D = self.total_D + observation.tokens_D
        return curves.slopes(self.total_D / self._scale_D)

    def _store(self, curves: Curves) -> None:
        self.shared_DS = curves.shared_DS
        self.curve_DGS = curves.curve_DGS

    def _for_mean(self, slopes: Slopes) -> Plan:
        setting = self.setting
        if self._is_end:
            return Plan(setting.reference_D.copy(), setting.steps, "end: reference")
        until_end = math.ceil((1.0 - self.end) * setting.steps) - self.step
        steps = min(self._window(), max(until_end, 1))
        if self.step < WARM_UP * setting.steps:
            return Plan(setting.reference_D.copy(), steps, "warm-up")
        return Plan(self._moved_by(slopes), steps, "curves")

    def _moved_by(self, slopes: Slopes) -> Array:
        """Step along relative marginal values where they are significant."""
        weights_D = np.maximum(self.weights_D, NO_TOKENS)
        remaining = (self.setting.steps - self.step) * self.setting.tokens_per_step
        recency_D = PER_RECENCY * slopes.recency_D / weights_D / remaining
        value_D = self._objective_D * (slopes.fall_D / self._scale_D + recency_D)
        sd_D = self._objective_D * slopes.sd_D / self._scale_D
        mean = max(float(weights_D @ value_D), 1e-300)
        relative_D = np.clip(value_D / mean - 1.0, -1.0, 1.0)
        contrast_sd_D = np.sqrt(sd_D**2 + (weights_D**2 * sd_D**2).sum())
        signal_D = np.abs(value_D - mean) / np.maximum(contrast_sd_D, 1e-300)
        sure_D = np.maximum(1.0 - (CERTAIN / np.maximum(signal_D, 1e-9)) ** 2, 0.0)
        moved_D = weights_D * np.exp(self.eta * relative_D * sure_D)
        return self._within(moved_D, self.least, self.most)

    def _within(self, weights_D: Array, low: float, high: float) -> Array:
        """Scale weights into a region around the reference and into the bounds of the run."""
        lower_D = self._allowed.lower_D
        upper_D = self._allowed.upper_D
        return scaled_within(
            weights_D,
            np.clip(low * self.setting.reference_D, lower_D, upper_D),
            np.clip(high * self.setting.reference_D, lower_D, upper_D),
        )

    def _for_target(self, slopes: Slopes, observation: Observation) -> Plan:
        setting = self.setting
        if self.step < WARM_UP * setting.steps:
            return Plan(setting.reference_D.copy(), self._window(), "warm-up")
        steps = float(observation.tokens_D.sum()) / setting.tokens_per_step
        converged = 1.0 - math.exp(-steps / setting.steps / PACE)
        self.base_D = self.base_D + converged * (self._best_for_target(slopes) - self.base_D)
        return Plan(self.base_D.copy(), self._window(), "target")

    def _best_for_target(self, slopes: Slopes) -> Array:
        """Return the optimal shares by the curves, shrunk by their uncertainty."""
        objective_D = self._objective_D
        reference_D = self.setting.reference_D
        tokens_D = self.total_D / self._scale_D
        value_D = objective_D * (slopes.fall_D * tokens_D + slopes.recency_D)
        curve_sd_D = objective_D * np.minimum(slopes.sd_D, MAX_CURVE_SD) * tokens_D
        sd_D = np.maximum(curve_sd_D, MIN_RELATIVE_SD * value_D)
        signal_D = value_D / np.maximum(sd_D, 1e-9)
        sure_D = value_D * signal_D**2 / (1.0 + signal_D**2)
        if not sure_D.sum() > 0:
            return self.base_D
        if self._is_end:
            target_D = objective_D + 1e-3 * sure_D / sure_D.sum()
        else:  # equal marginal values
            law_D = sure_D * np.maximum(reference_D, NO_TOKENS) ** -HALF
            target_D = law_D ** (1.0 / (1.0 - HALF))
            target_D = target_D / target_D.sum() + 1e-6 * reference_D
        return self._within(target_D, self.keep, FREE)
