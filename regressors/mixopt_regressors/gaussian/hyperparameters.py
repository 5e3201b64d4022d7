"""Learn a Gaussian process's hyperparameters: the most probable ones, by exact gradients.

What is minimised is minus the logarithm of the marginal likelihood times a prior, in units in
which the prior is standard normal. The gradient is exact and needs the inverse covariance once,
so that a step on 64 trials takes a tenth of a millisecond and L-BFGS is there after about 30.
One start, at the prior's centre, is enough: on published runs, starts at random seldom found a
better optimum, and the predictions from those were no better.

What a dozen targets or more have in common is learned too: the parameters of a sample of them make
the prior of all (`pooled`). Few trials say little about one target's lengths, and much about which
domains matter to any.

Replicates tell the noise directly. Their pooled variance joins the prior of the noise with the
spread that a variance of so many degrees of freedom has; the likelihood counts them too, and on
purpose: where the law fits badly, noise is not to take the blame.

Shapes: N trials, D domains, M targets, P parameters (mixopt_regressors.gaussian.kernels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import lapack
from scipy.optimize import minimize
from scipy.special import digamma, polygamma

from mixopt.fitting import row_groups
from mixopt.system import Array, IntArray
from mixopt_regressors.gaussian.kernels import Matern, log_weights

LENGTH, LENGTH_SPREAD = 1.5, 1.2  # of the logarithm; so are the next two
VARIANCE, VARIANCE_SPREAD = 1.0, 3.0
NOISE, NOISE_SPREAD = 0.01, 3.0
POWER, POWER_SPREAD = -0.5, 1.0  # of the logit
MANY_DOMAINS = 17  # with more, lengths have a prior that keeps mixtures as alike, and as free
FARTHEST = 6.0  # standard deviations of the prior
MIN_REPLICATE_VARIANCE = 1e-6  # in variances of the losses
STEPS = 60
FIRST = 256  # trials that parameters are learned from before they are polished on more
POLISH = 12  # steps on more trials than that
CURVATURE_STEP = 1e-3
MIN_POOLED = 12  # targets from which on they share a prior
POOLED = 32  # targets that it is learned from
POOLED_STEPS = 30  # of each target from its centre
MIN_POOLED_SPREAD = 0.3  # of the first prior's: parameters found by few steps agree too well


@dataclass(frozen=True)
class Prior:
    """Independent normal distributions of the parameters."""

    centers_P: Array
    spreads_P: Array

    @classmethod
    def of(cls, domains: int, replicate_variance: float, freedom: int) -> Prior:
        """Return the prior, given what replicates say of the noise."""
        crowd = np.sqrt(max(1.0, domains / MANY_DOMAINS))
        noise, noise_spread = _noise_prior(replicate_variance, freedom)
        centers = [*[np.log(LENGTH * crowd)] * domains, POWER, np.log(VARIANCE), noise]
        spreads = [*[LENGTH_SPREAD / crowd] * domains, POWER_SPREAD, VARIANCE_SPREAD, noise_spread]
        return cls(np.array(centers), np.array(spreads))


@dataclass(frozen=True)
class Evidence:
    """Trials of one target, and how probable parameters are in the light of them."""

    rows: Array
    losses_N: Array
    prior: Prior

    def some(self, rows_K: IntArray) -> Evidence:
        """Return the evidence of some of the trials; the prior knows all of them."""
        return replace(self, rows=self.rows[rows_K], losses_N=self.losses_N[rows_K])

    def learned(self, order_N: IntArray, most: int, steps: int = STEPS) -> Array:
        """Return the most probable parameters, learned from a few trials and polished on more."""
        found_P = self.some(order_N[: min(FIRST, most)]).most_probable(steps=steps)
        if min(len(order_N), most) <= FIRST:
            return found_P
        return self.some(order_N[:most]).most_probable(found_P, POLISH)

    def most_probable(self, start_P: Array | None = None, steps: int = STEPS) -> Array:
        """Return the parameters where at most so many steps of L-BFGS end."""
        centers_P, spreads_P = self.prior.centers_P, self.prior.spreads_P
        start = np.zeros_like(centers_P) if start_P is None else (start_P - centers_P) / spreads_P
        result = minimize(
            self.objective,
            np.clip(start, -FARTHEST, FARTHEST),
            args=(log_weights(self.rows),),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-FARTHEST, FARTHEST)] * len(start),
            options={"maxiter": steps, "ftol": 1e-5, "gtol": 1e-2},
        )
        found_P: Array = centers_P + spreads_P * np.asarray(result.x, dtype=np.float64)
        return found_P

    def objective(self, whitened_P: Array, logs_ND: Array) -> tuple[float, Array]:
        """Return minus the log posterior and its gradient, but for a constant."""
        kernel = Matern.of(self.prior.centers_P + self.prior.spreads_P * whitened_P)
        side = kernel.warped(logs_ND)
        pairs = kernel.pairs(side, side)
        factor_NN = cholesky(kernel.noisy(pairs))
        dual_N = lapack.dpotrs(factor_NN, self.losses_N, lower=1)[0]
        value = 0.5 * self.losses_N @ dual_N + np.log(np.diag(factor_NN)).sum()
        by_covariance_NN = _inverse(factor_NN)
        by_covariance_NN -= np.outer(dual_N, dual_N)
        by_covariance_NN *= 0.5
        gradient_P = kernel.pull_back(pairs, logs_ND, by_covariance_NN)
        value += 0.5 * whitened_P @ whitened_P
        return float(value), self.prior.spreads_P * gradient_P + whitened_P

    def spread(self, parameters_P: Array, trials: int) -> Array:
        """Return a root of the parameters' posterior covariance (Laplace's approximation)."""
        whitened_P = (parameters_P - self.prior.centers_P) / self.prior.spreads_P
        logs_ND = log_weights(self.rows)
        steps_PP = CURVATURE_STEP * np.eye(len(whitened_P))
        ahead_PP = np.array([self.objective(whitened_P + s, logs_ND)[1] for s in steps_PP])
        behind_PP = np.array([self.objective(whitened_P - s, logs_ND)[1] for s in steps_PP])
        curvature_PP = (ahead_PP - behind_PP) / (2.0 * CURVATURE_STEP)
        values_P, vectors_PP = np.linalg.eigh((curvature_PP + curvature_PP.T) / 2.0)
        # The prior alone has curvature 1; trials only add to it, in proportion to their number.
        known_P = 1.0 + np.maximum(values_P - 1.0, 0.0) * trials / len(self.losses_N)
        root_PP: Array = self.prior.spreads_P[:, None] * vectors_PP / np.sqrt(known_P)
        return root_PP


def evidences(rows: Array, losses_NM: Array) -> list[Evidence]:
    """Return the evidence of each target, its losses in standard deviations from their mean."""
    variance_M, freedom = replicate_variances(rows, losses_NM)
    priors = [Prior.of(rows.shape[1], variance, freedom) for variance in variance_M.tolist()]
    pairs = zip(losses_NM.T, priors, strict=True)
    return [Evidence(rows, losses_N, prior) for losses_N, prior in pairs]


def pooled(every: Sequence[Evidence], order_N: IntArray, most: int) -> Prior:
    """Return the prior that a sample of the targets agrees on."""
    some_N = order_N[: min(FIRST, most)]
    sample = np.linspace(0, len(every) - 1, min(len(every), POOLED)).astype(int)
    found_KP = np.array([every[target].some(some_N).most_probable() for target in sample])
    spreads_P = every[0].prior.spreads_P
    narrow_P = np.clip(found_KP.std(axis=0), MIN_POOLED_SPREAD * spreads_P, spreads_P)
    return Prior(found_KP.mean(axis=0), narrow_P)


def replicate_variances(weights_ND: Array, losses_NM: Array) -> tuple[Array, int]:
    """Return the pooled variance of trials of one mixture, and its degrees of freedom."""
    rows = np.unique(np.hstack([np.round(weights_ND, 9), losses_NM]), axis=0)
    domains = weights_ND.shape[1]
    _, group_N = np.unique(row_groups(rows[:, :domains]), return_inverse=True)
    freedom = len(rows) - int(group_N.max()) - 1
    losses = rows[:, domains:]
    sums_GM = np.zeros((group_N.max() + 1, losses.shape[1]))
    np.add.at(sums_GM, group_N, losses)
    apart_NM = losses - (sums_GM / np.bincount(group_N)[:, None])[group_N]
    variance_M: Array = (apart_NM**2).sum(axis=0) / max(freedom, 1)
    return variance_M, freedom


def cholesky(covariance_NN: Array) -> Array:
    """Return the lower Cholesky factor; its upper triangle is 0."""
    factor_NN, failed = lapack.dpotrf(covariance_NN, lower=1, clean=1)
    assert not failed, "the jitter keeps a covariance of bounded parameters positive definite"
    return np.asarray(factor_NN, dtype=np.float64)


def _inverse(factor_NN: Array) -> Array:
    lower_NN, _ = lapack.dpotri(factor_NN, lower=1)
    inverse_NN: Array = lower_NN + np.tril(lower_NN, -1).T
    return inverse_NN


def _noise_prior(replicate_variance: float, freedom: int) -> tuple[float, float]:
    """Return centre and spread of the log noise: the prior's, and the replicates' on top."""
    if freedom < 1:
        return float(np.log(NOISE)), NOISE_SPREAD
    half = freedom / 2.0
    seen = np.log(max(replicate_variance, MIN_REPLICATE_VARIANCE))
    seen -= digamma(half) - np.log(half)
    precision, own = NOISE_SPREAD**-2, 1.0 / float(polygamma(1, half))
    center = (precision * np.log(NOISE) + own * seen) / (precision + own)
    return float(center), float((precision + own) ** -0.5)
