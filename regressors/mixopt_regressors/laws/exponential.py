"""Fit a floor plus the exponential of a linear function, quickly and without restarts.

The code of Data Mixing Laws and of Olmix fit this law from hundreds to thousands of random starts
of L-BFGS. Given the floor c, though, log(L - c) is linear in the weights, so a grid over c with one
small weighted least-squares problem each (weights (L - c)^2, which is what an error of L means
on that scale) finds the valley, and a few Levenberg-Marquardt steps on all parameters find its
floor: seconds become milliseconds. Huber's weights keep single outlying trials from pulling. A
normal prior keeps fits finite with fewer trials than domains. It is on how far slopes are from
their mean times the height of the losses over the floor, which is how much the mixture moves the
loss: on the slopes alone it would see nothing where the floor is far below and the exponential
is nearly a straight line.

Losses are in units of their standard deviation.

Shapes: N trials, D domains, P = D + 1 parameters (c, then t).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mixopt.system import Array

LOWEST_FLOOR = 30.0  # standard deviations below the least loss
FLOORS_BELOW = np.geomspace(0.01, 27.0, 16)
STARTS = 3
STEPS = 60
ENOUGH = 1e-5  # a step that gains a smaller part of the loss is the last
MOST_EXPONENT = 30.0  # far above any loss in standard deviations, and the exponential is finite


@dataclass(frozen=True)
class ExponentialFit:
    """Penalised weighted least squares for one target, and the parameters reached so far."""

    weights_ND: Array
    losses_N: Array
    penalty: float
    trust_N: Array | None = None
    parameters_P: Array = None  # type: ignore[assignment]

    def best(self, starts: int = STARTS, steps: int = STEPS) -> ExponentialFit:
        """Return the fit at the lowest point that the best starts lead to."""
        grid = (self._at(self.losses_N.min() - below) for below in FLOORS_BELOW)
        ranked = sorted(grid, key=ExponentialFit.loss)[:starts]
        return min((start.descend(steps) for start in ranked), key=ExponentialFit.loss)

    def predict(self, weights_ND: Array) -> Array:
        """Return losses, shape (N,)."""
        predicted: Array = self.parameters_P[0] + exponential(weights_ND, self.parameters_P[1:])
        return predicted

    def loss(self) -> float:
        """Return the penalised sum of squares."""
        apart_D = self._apart()
        squares = self._trusted() @ self.residuals() ** 2
        return float(squares + self.penalty * self._height() ** 2 * (apart_D @ apart_D))

    def descend(self, steps: int = STEPS) -> ExponentialFit:
        """Go downhill by Levenberg-Marquardt until a step gains nothing."""
        here, loss, damping = self, self.loss(), 1e-3
        for _ in range(steps):
            there = here._step(damping)
            gain = loss - there.loss()
            if gain > 0:
                here, loss, damping = there, loss - gain, max(damping / 5, 1e-9)
            else:
                damping *= 4
            if damping > 1e6 or 0 < gain < ENOUGH * loss:
                break
        return here

    def robust(self, cut: float, rounds: int = 5) -> ExponentialFit:
        """Weigh down residuals beyond `cut` robust standard deviations, and fit again."""
        fit = self
        for _ in range(rounds):
            size_N = np.abs(fit.residuals())
            limit = cut * max(1.4826 * float(np.median(size_N)), 1e-6)
            if (size_N <= limit).all():
                break
            fit = replace(
                fit, trust_N=np.minimum(1.0, limit / np.maximum(size_N, limit * 1e-3))
            ).descend()
        return fit

    def spread(self) -> tuple[float, Array]:
        """Return the residuals' standard deviation and the inverse of the curvature, (P, P)."""
        _, curvature_PP, jacobian_NP = self._local()
        inverse_PP = np.linalg.pinv(curvature_PP, hermitian=True)
        fitted = np.einsum("n,np,pq,nq->", self._trusted(), jacobian_NP, inverse_PP, jacobian_NP)
        freedom = max(len(self.losses_N) - float(fitted), 1.0)
        noise = float(np.sqrt((self.residuals() ** 2).sum() / freedom))
        return noise, np.asarray(inverse_PP, dtype=np.float64)

    def residuals(self) -> Array:
        """Predicted less observed losses."""
        return self.predict(self.weights_ND) - self.losses_N

    def _trusted(self) -> Array:
        return np.ones(len(self.losses_N)) if self.trust_N is None else self.trust_N

    def _apart(self) -> Array:
        """Return how far each slope is from their mean."""
        slopes_D = self.parameters_P[1:]
        apart: Array = slopes_D - slopes_D.mean()
        return apart

    def _height(self) -> float:
        """Return how high a typical loss is over the floor; never 0."""
        return float(self.losses_N.mean() - self.parameters_P[0]) + 1.0

    def _at(self, floor: float) -> ExponentialFit:
        """Return the fit with this floor and the best slopes on the logarithm's scale."""
        excess_N = self.losses_N - floor
        weighted_ND = self.weights_ND * excess_N[:, None]
        domains = self.weights_ND.shape[1]
        height = float(self.losses_N.mean()) - floor + 1.0
        curvature_DD = weighted_ND.T @ weighted_ND + 1e-9 * np.eye(domains)
        curvature_DD += self.penalty * height**2 * (np.eye(domains) - 1.0 / domains)
        slopes_D = np.linalg.solve(curvature_DD, weighted_ND.T @ (excess_N * np.log(excess_N)))
        return replace(self, parameters_P=np.concatenate([[floor], slopes_D]))

    def _step(self, damping: float) -> ExponentialFit:
        gradient_P, curvature_PP, _ = self._local()
        lowest, highest = self.losses_N.min() - LOWEST_FLOOR, np.median(self.losses_N)
        floor = self.parameters_P[0]
        if (floor <= lowest and gradient_P[0] > 0) or (floor >= highest and gradient_P[0] < 0):
            # The floor would leave its bounds: the slopes move without it.
            gradient_P[0], curvature_PP[0, 1:], curvature_PP[1:, 0] = 0.0, 0.0, 0.0
        damped_PP = curvature_PP + damping * np.diag(np.diag(curvature_PP) + 1e-9)
        parameters_P = self.parameters_P - np.linalg.solve(damped_PP, gradient_P)
        parameters_P[0] = min(max(parameters_P[0], lowest), highest)
        return replace(self, parameters_P=parameters_P)

    def _local(self) -> tuple[Array, Array, Array]:
        """Return half the gradient, half the Gauss-Newton curvature, and the Jacobian."""
        excess_N = exponential(self.weights_ND, self.parameters_P[1:])
        jacobian_NP = jacobian(self.weights_ND, excess_N)
        weighted_NP = jacobian_NP * self._trusted()[:, None]
        gradient_P = weighted_NP.T @ (self.parameters_P[0] + excess_N - self.losses_N)
        curvature_PP = weighted_NP.T @ jacobian_NP
        # The prior is the square of height x apart, and the height falls as the floor rises.
        apart_D, height, domains = self._apart(), self._height(), self.weights_ND.shape[1]
        prior_DP = np.column_stack([-apart_D, height * (np.eye(domains) - 1.0 / domains)])
        gradient_P += self.penalty * prior_DP.T @ (height * apart_D)
        curvature_PP += self.penalty * prior_DP.T @ prior_DP
        return gradient_P, curvature_PP, jacobian_NP


def exponential(weights_ND: Array, slopes: Array) -> Array:
    """Return exp(weights @ slopes), kept finite."""
    excess: Array = np.exp(np.minimum(weights_ND @ slopes, MOST_EXPONENT))
    return excess


def jacobian(weights_ND: Array, excess_N: Array) -> Array:
    """Return derivatives of the predictions by (c, t), shape (N, P)."""
    ones_N1 = np.ones((len(weights_ND), 1))
    derivatives: Array = np.concatenate([ones_N1, weights_ND * excess_N[:, None]], axis=1)
    return derivatives
