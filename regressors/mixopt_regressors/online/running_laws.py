"""Learning curves of domains from ordinary batches, and effects of shares on held-out losses.

A domain's loss over its own tokens n (in units of what a run on the reference mixture gives it),
at a recent share of r times its reference share, is taken to be

    L(n, r) = floor + B (1 + n / s)^-a - K log r

with (a, s) on a grid and B, K by weighted least squares at each of its points; K is drawn towards
a usual recency, since little moves r. What is asked for is averaged over the grid by likelihood
(the noise is that of the best point). Old windows fade, so that a curve which bends is followed.
The recency term is what a domain's loss owes to having been seen lately: on a small model three
quarters of the effect of a pulse are gone after a hundred steps.

Held-out losses of a target fall by themselves and with the shares that were really consumed:

    loss_t = level_t - effects . x_t + noise,   level and its slope in log steps wander

where x_t says how far recent and cumulative shares are from the reference. A Kalman filter's state
is level, slope and the effects. Because the level has a slope of its own, the fall that every
mixture would bring is not mistaken for an effect. The same without effects is what a target looks
like that no share moves: which of the two predicts the losses better says whether to steer.

Shapes: D domains, G points of the grid, S sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.stats import t as student

from mixopt.system import Array

EXPONENTS = (0.1, 0.2, 0.35, 0.5, 0.75)
SCALES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
EXPONENT_G, SCALE_G = np.array(list(product(EXPONENTS, SCALES))).T
SUMS, CURVE_SUMS = 7, 4
MIN_WINDOWS = 4  # fewer leave nothing to tell noise from shape
RECENCY, RECENCY_SD = 0.07, 0.05  # nats for a factor e of recent share, and how far that may be off
MIN_RECENT = 0.01
TINY = 1e-30


@dataclass(frozen=True)
class Slopes:
    """What the curves say at the tokens seen so far."""

    fall_D: Array
    sd_D: Array
    recency_D: Array


@dataclass(frozen=True)
class Curves:
    """Sums over windows that the fits need; they are the state."""

    shared_DS: Array
    curve_DGS: Array

    @classmethod
    def empty(cls, domains: int) -> Curves:
        """Return curves of which nothing was seen."""
        return cls(np.zeros((domains, SUMS)), np.zeros((domains, SCALE_G.size, CURVE_SUMS)))

    def add(
        self, seen_D: Array, losses_D: Array, weight_D: Array, recent_D: Array, kept: float
    ) -> Curves:
        """Take in a window."""
        known_D = np.isfinite(losses_D) & (weight_D > 0)
        loss_D, w_D = np.where(known_D, losses_D, 0.0), np.where(known_D, weight_D, 0.0)
        x_D = -np.log(np.maximum(recent_D, MIN_RECENT))
        c_DG = (1 + seen_D[:, None] / SCALE_G) ** -EXPONENT_G
        shared = [known_D, w_D, w_D * loss_D, w_D * loss_D**2]
        shared += [w_D * x_D, w_D * x_D**2, w_D * x_D * loss_D]
        curve_DGS = np.stack([c_DG, c_DG**2, c_DG * loss_D[:, None], c_DG * x_D[:, None]], axis=-1)
        return Curves(
            kept * self.shared_DS + np.stack(shared, axis=-1),
            kept * self.curve_DGS + w_D[:, None, None] * curve_DGS,
        )

    def slopes(self, seen_D: Array) -> Slopes:
        """Return what the curves say at so many own tokens."""
        steep_DG = EXPONENT_G / SCALE_G * (1 + seen_D[:, None] / SCALE_G) ** (-EXPONENT_G - 1)
        height_DG, variance_DG, recency_DG, chance_DG = self._fits()
        slope_DG = height_DG * steep_DG
        fall_D = (chance_DG * slope_DG).sum(axis=1)
        apart_DG = variance_DG * steep_DG**2 + (slope_DG - fall_D[:, None]) ** 2
        sd_D = np.sqrt((chance_DG * apart_DG).sum(axis=1))
        few_D = self.shared_DS[:, 0] < MIN_WINDOWS
        recency_D = np.maximum((chance_DG * recency_DG).sum(axis=1), 0.0)
        return Slopes(np.maximum(fall_D, 0.0), np.where(few_D, np.inf, sd_D), recency_D)

    def _fits(self) -> tuple[Array, Array, Array, Array]:
        """Return B, its variance, K and the chance of each point, shape (D, G) each."""
        freedom_D1 = np.maximum(self.shared_DS[:, :1] - 2.0, 1.0)
        yy_D1, xx_D1, xy_D1, cc_DG, cy_DG, cx_DG = self._centred()
        noise_D1 = np.maximum(yy_D1 - cy_DG**2 / cc_DG, TINY).min(axis=1, keepdims=True)
        noise_D1 = noise_D1 / freedom_D1
        for _ in range(2):  # the second round knows the noise that the first left
            hold_D1 = noise_D1 / RECENCY_SD**2
            held_D1, pulled_D1 = xx_D1 + hold_D1, xy_D1 + hold_D1 * RECENCY
            volume_DG = np.maximum(cc_DG * held_D1 - cx_DG**2, 1e-9 * cc_DG * held_D1 + TINY)
            height_DG = (held_D1 * cy_DG - cx_DG * pulled_D1) / volume_DG
            recency_DG = (cc_DG * pulled_D1 - cx_DG * cy_DG) / volume_DG
            left_DG = yy_D1 - 2 * height_DG * cy_DG - 2 * recency_DG * xy_D1
            left_DG += height_DG**2 * cc_DG + 2 * height_DG * recency_DG * cx_DG
            left_DG = np.maximum(left_DG + recency_DG**2 * xx_D1, TINY)
            cost_DG = left_DG + hold_D1 * (recency_DG - RECENCY) ** 2
            noise_D1 = left_DG.min(axis=1, keepdims=True) / freedom_D1
        chance_DG = np.exp((cost_DG.min(axis=1, keepdims=True) - cost_DG) / noise_D1 / 2)
        chance_DG /= chance_DG.sum(axis=1, keepdims=True)
        return height_DG, noise_D1 * held_D1 / volume_DG, recency_DG, chance_DG

    def _centred(self) -> tuple[Array, ...]:
        """Return sums of products less those of the means: yy, xx, xy, cc, cy, cx."""
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


EFFECT_SD, NOISE_SD = 20.0, 0.01  # of effects in noise's deviations; of the noise, nats, at first
LEVEL_SD, SLOPE_SD = 1e3, 1e2
LEVEL_WANDER, SLOPE_WANDER = 0.3, 3.0  # deviations of the noise, for a factor e of steps
FADING = 0.98  # of what is known of the noise


@dataclass(frozen=True)
class Interaction:
    """What is believed of the trend and the effects."""

    trend_T: Array
    effect_D: Array
    trend_TT: Array
    cross_TD: Array
    effect_DD: Array
    variance: float = NOISE_SD**2
    count: float = 1.0

    @classmethod
    def unknown(cls, domains: int) -> Interaction:
        """Return the belief before any held-out loss."""
        return cls(
            np.zeros(2),
            np.zeros(domains),
            np.diag([LEVEL_SD**2, SLOPE_SD**2]),
            np.zeros((2, domains)),
            EFFECT_SD**2 * np.eye(domains),
        )

    def add(self, loss: float, x_D: Array, elapsed: float, *, first: bool) -> Interaction:
        """Take in a held-out loss of the target."""
        state, covariance, row = self._before(x_D, elapsed)
        gain, unsure = covariance @ row, float(row @ covariance @ row) + 1.0
        surprise = loss - float(row @ state)
        variance, count = self.variance, FADING * self.count + 1.0
        if not first:
            variance += (surprise**2 / unsure - variance) / count
        state = state + gain / unsure * surprise
        covariance = covariance - np.outer(gain, gain) / unsure
        covariance = (covariance + covariance.T) / 2
        return Interaction(
            state[:2],
            state[2:],
            covariance[:2, :2],
            covariance[:2, 2:],
            covariance[2:, 2:],
            variance,
            self.count if first else count,
        )

    def log_density(self, loss: float, x_D: Array, elapsed: float) -> float:
        """Return the logarithm of the density that was predicted of a held-out loss."""
        state, covariance, row = self._before(x_D, elapsed)
        scale = math.sqrt(self.variance * (float(row @ covariance @ row) + 1.0))
        return float(student.logpdf(loss - row @ state, df=self.count, scale=scale))

    def _before(self, x_D: Array, elapsed: float) -> tuple[Array, Array, Array]:
        """Return state and covariance before a loss, and what the loss has of the state."""
        forward_TT = np.array([[1.0, -elapsed], [0.0, 1.0]])
        wander_TT = elapsed * np.diag([LEVEL_WANDER**2, SLOPE_WANDER**2])
        trend_TT = forward_TT @ self.trend_TT @ forward_TT.T + wander_TT
        cross_TD = forward_TT @ self.cross_TD
        state = np.concatenate([forward_TT @ self.trend_T, self.effect_D])
        covariance = np.block([[trend_TT, cross_TD], [cross_TD.T, self.effect_DD]])
        return state, covariance, np.concatenate([[1.0, 0.0], -x_D])

    def with_prior(self, prior_D: Array, sd_D: Array) -> tuple[Array, Array]:
        """Return effects and their deviations, together with an independent belief of them."""
        precision_DD = np.linalg.inv(self.variance * self.effect_DD)
        prior_DD = np.diag(sd_D**-2.0)
        covariance_DD = np.linalg.inv(precision_DD + prior_DD)
        effect_D: Array = covariance_DD @ (precision_DD @ self.effect_D + prior_DD @ prior_D)
        return effect_D, np.sqrt(np.diag(covariance_DD))
