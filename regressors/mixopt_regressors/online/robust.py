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
from typing import ClassVar

import numpy as np

from mixopt.errors import EstimatorError
from mixopt.online import Need, Observation, Plan, Setting
from mixopt.system import Array
from mixopt_regressors.online.online_estimator import OnlineEstimator, means, option

EXPONENTS = (0.1, 0.2, 0.35, 0.5, 0.75)
SCALES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
EXPONENT_G, SCALE_G = np.array(list(product(EXPONENTS, SCALES))).T
SUMS, CURVE_SUMS = 7, 4
MIN_WINDOWS = 4  # fewer cannot tell noise from curvature
RECENCY, RECENCY_SD = 0.07, 0.05  # nats for a factor e of recent share; its prior deviation
MIN_RECENT = 0.01
TINY = 1e-30


@dataclass(frozen=True)
class Slopes:
    """Slopes of the curves at the present tokens."""

    fall_D: Array
    sd_D: Array
    recency_D: Array


@dataclass(frozen=True)
class Curves:
    """Sums over windows for the fits; the state."""

    shared_DS: Array
    curve_DGS: Array

    @classmethod
    def empty(cls, domains: int) -> Curves:
        """Return curves without windows."""
        return cls(np.zeros((domains, SUMS)), np.zeros((domains, SCALE_G.size, CURVE_SUMS)))

    def add(
        self, tokens_D: Array, losses_D: Array, weight_D: Array, recent_D: Array, memory: float
    ) -> Curves:
        """Add a window."""
        is_measured_D = np.isfinite(losses_D) & (weight_D > 0)
        loss_D, w_D = np.where(is_measured_D, losses_D, 0.0), np.where(is_measured_D, weight_D, 0.0)
        x_D = -np.log(np.maximum(recent_D, MIN_RECENT))
        c_DG = (1 + tokens_D[:, None] / SCALE_G) ** -EXPONENT_G
        shared = [is_measured_D, w_D, w_D * loss_D, w_D * loss_D**2]
        shared += [w_D * x_D, w_D * x_D**2, w_D * x_D * loss_D]
        curve_DGS = np.stack([c_DG, c_DG**2, c_DG * loss_D[:, None], c_DG * x_D[:, None]], axis=-1)
        return Curves(
            memory * self.shared_DS + np.stack(shared, axis=-1),
            memory * self.curve_DGS + w_D[:, None, None] * curve_DGS,
        )

    def slopes(self, tokens_D: Array) -> Slopes:
        """Return the slopes of the curves at these tokens."""
        steep_DG = EXPONENT_G / SCALE_G * (1 + tokens_D[:, None] / SCALE_G) ** (-EXPONENT_G - 1)
        height_DG, variance_DG, recency_DG, chance_DG = self._fits()
        slope_DG = height_DG * steep_DG
        fall_D = (chance_DG * slope_DG).sum(axis=1)
        spread_DG = variance_DG * steep_DG**2 + (slope_DG - fall_D[:, None]) ** 2
        sd_D = np.sqrt((chance_DG * spread_DG).sum(axis=1))
        is_short_D = self.shared_DS[:, 0] < MIN_WINDOWS
        recency_D = np.maximum((chance_DG * recency_DG).sum(axis=1), 0.0)
        return Slopes(np.maximum(fall_D, 0.0), np.where(is_short_D, np.inf, sd_D), recency_D)

    def _fits(self) -> tuple[Array, Array, Array, Array]:
        """Return B, its variance, K and the probability of each grid point, shape (D, G) each."""
        freedom_D1 = np.maximum(self.shared_DS[:, :1] - 2.0, 1.0)
        yy_D1, xx_D1, xy_D1, cc_DG, cy_DG, cx_DG = self._centred()
        noise_D1 = np.maximum(yy_D1 - cy_DG**2 / cc_DG, TINY).min(axis=1, keepdims=True)
        noise_D1 = noise_D1 / freedom_D1
        for _ in range(2):  # the second round uses the first one's noise
            hold_D1 = noise_D1 / RECENCY_SD**2
            ridge_D1, pulled_D1 = xx_D1 + hold_D1, xy_D1 + hold_D1 * RECENCY
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
        return height_DG, noise_D1 * ridge_D1 / volume_DG, recency_DG, chance_DG

    def _centred(self) -> tuple[Array, ...]:
        """Return centred sums of products: yy, xx, xy, cc, cy, cx."""
        w, y, yy, x, xx, xy = (self.shared_DS[:, s][:, None] for s in range(1, SUMS))
        c, cc, cy, cx = np.moveaxis(self.curve_DGS, -1, 0)
        w = np.maximum(w, TINY)
        return (
            np.maximum(yy - y * y / w, TINY),
            np.maximum(xx - x * x / w, 0.0),
            xy - x * y / w,
            np.maximum(cc - c * c / w, TINY),
            cy - c * y / w,
            cx - c * x / w,
        )


MIN_WEIGHT, MAX_SCALE = 1e-12, 1e15  # of weights and of the scale
HALVINGS = 100


def scaled_within(weights_D: Array, lower_D: Array, upper_D: Array) -> Array:
    """Return clip(scale x weights, lower, upper) with the scale for which it adds up to 1."""
    weights_D = np.maximum(weights_D, MIN_WEIGHT)
    low, high = 0.0, 1.0
    while np.clip(high * weights_D, lower_D, upper_D).sum() < 1.0 and high < MAX_SCALE:
        high *= 2.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        if np.clip(middle * weights_D, lower_D, upper_D).sum() < 1.0:
            low = middle
        else:
            high = middle
    return np.clip(high * weights_D, lower_D, upper_D)


WINDOW, WARM_UP = 0.01, 0.05  # shares of the run: a plan, and the start on the reference
FADING = 0.98  # discount factor per window
MEMORY = 30.0  # steps of recency at the peak learning rate
CERTAIN = 1.5  # standard deviations above which a contrast changes the mixture
PER_RECENCY = 1.5  # weight of recency relative to the slope
HALF = 0.5  # power of shares in the law of a target
OWN_UNSURE = 0.3  # minimum relative standard deviation of a value from curves
PACE = 0.03  # share of the run in which the mixture of a target mostly converges
NO_TOKENS = 1e-9
FREE = 1e9  # times the reference share: unlimited


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

    eta: float = option(0.1, least=0.0)
    least: float = option(0.8, least=0.0, most=1.0)
    most: float = option(1.25, least=1.0)
    keep: float = option(0.1, least=0.0, most=1.0)
    end: float = option(0.15, least=0.0, most=1.0)

    def start(self, setting: Setting) -> None:
        """Begin a run."""
        weights = dict(zip(setting.evaluations, setting.objective_M.tolist(), strict=True))
        objective_D = np.array([weights.get(name, 0.0) for name in setting.domains])
        if not objective_D.any():
            raise EstimatorError(
                "robust: the objective has no training domain; what domains do for others is found"
                " by proxies (mixopt run), or by aioli's sweeps"
            )
        self._objective_D = (
            objective_D / objective_D.sum() if objective_D.sum() < 1.0 - 1e-9 else objective_D
        )
        super().start(setting)

    def _first(self) -> Plan:
        setting, domains = self.setting, len(self.setting.domains)
        self._keep(Curves.empty(domains))
        self.total_D, self.fastest = np.zeros(domains), 0.0
        self.late_D, self.base_D = setting.reference_D.copy(), setting.reference_D.copy()
        return Plan(setting.reference_D.copy(), self._window(), "warm-up")

    def _next(self, observation: Observation) -> Plan:
        slopes = self._learn_curves(observation)
        is_mean = np.allclose(self._objective_D, 1.0 / len(self._objective_D))
        return self._for_mean(slopes) if is_mean else self._for_target(slopes, observation)

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
        elapsed = (
            steps * (observation.learning_rate / self.fastest if self.fastest else 1.0) / MEMORY
        )
        memory = math.exp(-elapsed)
        recent_D = share_D + (self.late_D - share_D) * (1.0 - memory) / max(elapsed, NO_TOKENS)
        self.late_D = share_D + memory * (self.late_D - share_D)
        curves = Curves(self.shared_DS, self.curve_DGS).add(
            (self.total_D + observation.tokens_D / 2.0) / self._scale_D,
            means(observation.loss_sum_D, observation.loss_count_D),
            observation.loss_count_D,
            recent_D / np.maximum(self.setting.reference_D, NO_TOKENS),
            FADING,
        )
        self._keep(curves)
        self.total_D = self.total_D + observation.tokens_D
        return curves.slopes(self.total_D / self._scale_D)

    def _keep(self, curves: Curves) -> None:
        self.shared_DS, self.curve_DGS = curves.shared_DS, curves.curve_DGS

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
        setting, weights_D = self.setting, np.maximum(self.weights_D, NO_TOKENS)
        remaining = (setting.steps - self.step) * setting.tokens_per_step
        lately_D = PER_RECENCY * slopes.recency_D / weights_D / remaining
        value_D = self._objective_D * (slopes.fall_D / self._scale_D + lately_D)
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
        setting = self.setting
        lower_D, upper_D = self._allowed.lower_D, self._allowed.upper_D
        return scaled_within(
            weights_D,
            np.clip(low * setting.reference_D, lower_D, upper_D),
            np.clip(high * setting.reference_D, lower_D, upper_D),
        )

    def _for_target(self, slopes: Slopes, observation: Observation) -> Plan:
        setting = self.setting
        if self.step < WARM_UP * setting.steps:
            return Plan(setting.reference_D.copy(), self._window(), "warm-up")
        steps = float(observation.tokens_D.sum()) / setting.tokens_per_step
        part = 1.0 - math.exp(-steps / setting.steps / PACE)
        self.base_D = self.base_D + part * (self._best_for_target(slopes) - self.base_D)
        return Plan(self.base_D.copy(), self._window(), "target")

    def _best_for_target(self, slopes: Slopes) -> Array:
        """Return the optimal shares by the curves, shrunk by their uncertainty."""
        objective_D, reference_D = self._objective_D, self.setting.reference_D
        tokens_D = self.total_D / self._scale_D
        value_D = objective_D * (slopes.fall_D * tokens_D + slopes.recency_D)
        sd_D = np.maximum(
            objective_D * np.minimum(slopes.sd_D, 1e3) * tokens_D, OWN_UNSURE * value_D
        )
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
