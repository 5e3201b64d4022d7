"""The effect of each domain's share on a target's held-out loss: a recursive regression.

Held-out losses of the target fall by themselves and with the shares that were really consumed:

    loss_t = level_t - effects . x_t + noise,   level and its slope in log steps wander

where x_t says how far recent and cumulative shares are from the reference. It is a Kalman filter
whose state is level, slope and the effects; variances are in units of the noise's, which is
estimated from the innovations. Because the level has a slope of its own, the fall that every
mixture would bring is not mistaken for an effect (finite differences fail: the trend is far
larger). The same without effects is what a target looks like that no share moves: which of the two
predicts the losses better says whether there is anything to steer by.

Shapes: D domains; the state is (level, slope), then D effects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from mixopt.system import Array

EFFECT_SD, NOISE_SD = 20.0, 0.01  # of effects in noise's deviations; of the noise, nats, at first
LEVEL_SD, SLOPE_SD = 1e3, 1e2
LEVEL_WANDER, SLOPE_WANDER = 0.3, 3.0  # deviations of the noise, for a factor e of steps
FADING = 0.98  # of what is known of the noise


@dataclass(frozen=True)
class Interaction:
    """What is believed of the trend and the effects.

    Attributes:
        trend_T: Level and slope, nats.
        effect_D: Fall of the loss for a unit of x.
        trend_TT: Covariance of level and slope, in variances of the noise.
        cross_TD: Covariance of trend and effects.
        effect_DD: Covariance of effects.
        variance: Of the noise.
        count: Held-out losses that the variance is from; 1 at first.
    """

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
        """Take in a held-out loss of the target.

        Args:
            loss: Nats per token.
            x_D: How far shares were from the reference.
            elapsed: Logarithm of the steps now over those at the last loss.
            first: Whether it is the first, which says nothing of the noise.
        """
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
        """Return the logarithm of the density that was predicted of a held-out loss.

        It is Student's, with as many degrees of freedom as losses that the noise is from.
        """
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
