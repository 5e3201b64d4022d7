"""Hyperparameters of a Gaussian process: the posterior mode, by exact gradients.

The objective is minus the log of marginal likelihood times prior, in units in which the prior is
standard normal. The exact gradient needs one inverse covariance: a step on 64 trials takes a tenth
of a millisecond, and L-BFGS converges after about 30. A single start at the prior's centre is
enough: on published runs, random starts seldom found a better optimum, and those predicted no
better.

A dozen targets or more share a prior, learned from the parameters of a sample of them (`pooled`):
few trials tell little about the length scales of one target, but much about which domains matter.

Replicates measure the noise directly. Their pooled variance enters the prior of the noise with the
spread of a variance with its degrees of freedom. The likelihood counts replicates too, on purpose:
a misfit of the kernel should not be attributed to noise.

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
from mixopt.trials import Noise
from mixopt_regressors.gaussian.kernels import Matern, log_weights

# Centres of the prior, and spreads of the logarithms.
LENGTH = 1.5
LENGTH_SPREAD = 1.2
VARIANCE = 1.0
VARIANCE_SPREAD = 3.0
NOISE = 0.01
NOISE_SPREAD = 3.0
POWER = -0.5  # logit
POWER_SPREAD = 1.0  # of the logit
MANY_DOMAINS = 17  # with more domains the prior of lengths is longer and narrower
FARTHEST = 6.0  # bound, in standard deviations of the prior
MIN_REPLICATE_VARIANCE = 1e-6  # in variances of the losses
STEPS = 60
FIRST = 256  # trials for learning before polishing on more
POLISH = 12  # optimiser steps of polishing
CURVATURE_STEP = 1e-3
MIN_POOLED = 12  # minimum number of targets for a common prior
POOLED = 32  # targets that the common prior is learned from
POOLED_STEPS = 30  # optimiser steps of each target from its centre
MIN_POOLED_SPREAD = 0.3  # relative to the first prior: few steps underestimate the spread


@dataclass(frozen=True)
class Prior:
    """Independent normal distributions of the parameters."""

    centers_P: Array
    spreads_P: Array

    @classmethod
    def of(cls, domains: int, replicate_variance: float, freedom: int) -> Prior:
        """Return the prior, given the noise of replicates."""
        crowding = np.sqrt(max(1.0, domains / MANY_DOMAINS))
        log_lengths_D = np.full(domains, np.log(LENGTH * crowding))
        length_spreads_D = np.full(domains, LENGTH_SPREAD / crowding)
        noise, noise_spread = _noise_prior(replicate_variance, freedom)
        return cls(
            np.append(log_lengths_D, [POWER, np.log(VARIANCE), noise]),
            np.append(length_spreads_D, [POWER_SPREAD, VARIANCE_SPREAD, noise_spread]),
        )


@dataclass(frozen=True)
class Evidence:
    """Trials of one target, and the posterior of hyperparameters."""

    rows: Array
    losses_N: Array
    prior: Prior

    def subset(self, rows_K: IntArray) -> Evidence:
        """Return the evidence of some trials, with the same prior."""
        return replace(self, rows=self.rows[rows_K], losses_N=self.losses_N[rows_K])

    def learned(self, order_N: IntArray, max_rows: int, steps: int = STEPS) -> Array:
        """Return the posterior mode, learned on some trials and polished on more."""
        mode_P = self.subset(order_N[: min(FIRST, max_rows)]).most_probable(steps=steps)
        if min(len(order_N), max_rows) <= FIRST:
            return mode_P
        return self.subset(order_N[:max_rows]).most_probable(mode_P, POLISH)

    def most_probable(self, start_P: Array | None = None, steps: int = STEPS) -> Array:
        """Return the parameters after at most `steps` steps of L-BFGS."""
        centers_P = self.prior.centers_P
        spreads_P = self.prior.spreads_P
        if start_P is None:
            start_P = centers_P
        whitened_P = (start_P - centers_P) / spreads_P
        result = minimize(
            self.objective,
            np.clip(whitened_P, -FARTHEST, FARTHEST),
            args=(log_weights(self.rows),),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-FARTHEST, FARTHEST)] * len(whitened_P),
            options={"maxiter": steps, "ftol": 1e-5, "gtol": 1e-2},
        )
        return np.asarray(centers_P + spreads_P * result.x)

    def objective(self, whitened_P: Array, logs_ND: Array) -> tuple[float, Array]:
        """Return minus the log posterior up to a constant, and its gradient."""
        kernel = Matern.of(self.prior.centers_P + self.prior.spreads_P * whitened_P)
        side = kernel.warped(logs_ND)
        pairs = kernel.pairs(side, side)
        factor_NN = cholesky(kernel.noisy(pairs))
        dual_N = lapack.dpotrs(factor_NN, self.losses_N, lower=1)[0]
        value = 0.5 * self.losses_N @ dual_N + np.log(np.diag(factor_NN)).sum()
        lower_NN, _ = lapack.dpotri(factor_NN, lower=1)
        by_covariance_NN = lower_NN + np.tril(lower_NN, -1).T
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
        differences = []
        for step_P in steps_PP:
            _, ahead_P = self.objective(whitened_P + step_P, logs_ND)
            _, behind_P = self.objective(whitened_P - step_P, logs_ND)
            differences.append(ahead_P - behind_P)
        curvature_PP = np.array(differences) / (2.0 * CURVATURE_STEP)
        values_P, vectors_PP = np.linalg.eigh((curvature_PP + curvature_PP.T) / 2.0)
        # The prior has curvature 1; trials add to it in proportion to their number.
        precision_P = 1.0 + np.maximum(values_P - 1.0, 0.0) * trials / len(self.losses_N)
        root_PP: Array = self.prior.spreads_P[:, None] * vectors_PP / np.sqrt(precision_P)
        return root_PP


def evidence_by_target(rows: Array, losses_NM: Array) -> list[Evidence]:
    """Return the evidence of each target, with standardised losses."""
    noise = replicate_noise(rows, losses_NM)
    domains = rows.shape[1]
    priors = [Prior.of(domains, float(variance), noise.freedom) for variance in noise.variances_M]
    pairs = zip(losses_NM.T, priors, strict=True)
    return [Evidence(rows, losses_N, prior) for losses_N, prior in pairs]


def pooled(evidences: Sequence[Evidence], order_N: IntArray, max_rows: int) -> Prior:
    """Return the common prior, learned from a sample of the targets."""
    rows_K = order_N[: min(FIRST, max_rows)]
    targets = np.linspace(0, len(evidences) - 1, min(len(evidences), POOLED)).astype(int)
    modes_KP = np.array([evidences[target].subset(rows_K).most_probable() for target in targets])
    spreads_P = evidences[0].prior.spreads_P
    narrow_P = np.clip(modes_KP.std(axis=0), MIN_POOLED_SPREAD * spreads_P, spreads_P)
    return Prior(modes_KP.mean(axis=0), narrow_P)


def replicate_noise(weights_ND: Array, losses_NM: Array) -> Noise:
    """Return the noise of trials of one mixture; a trial that is given twice counts once."""
    rows = np.unique(np.hstack([np.round(weights_ND, 9), losses_NM]), axis=0)
    domains = weights_ND.shape[1]
    _, group_N = np.unique(row_groups(rows[:, :domains]), return_inverse=True)
    targets = [str(target) for target in range(losses_NM.shape[1])]
    return Noise.within(group_N.tolist(), rows[:, domains:], targets)


def cholesky(covariance_NN: Array) -> Array:
    """Return the lower Cholesky factor; its upper triangle is 0."""
    factor_NN, failed = lapack.dpotrf(covariance_NN, lower=1, clean=1)
    assert not failed, "the jitter keeps a covariance of bounded parameters positive definite"
    return np.asarray(factor_NN)


def _noise_prior(replicate_variance: float, freedom: int) -> tuple[float, float]:
    """Return centre and spread of the log noise, combining prior and replicates."""
    if freedom < 1:
        return float(np.log(NOISE)), NOISE_SPREAD
    half = freedom / 2.0
    observed = np.log(max(replicate_variance, MIN_REPLICATE_VARIANCE))
    observed -= digamma(half) - np.log(half)
    prior_precision = NOISE_SPREAD**-2
    replicate_precision = 1.0 / float(polygamma(1, half))
    precision = prior_precision + replicate_precision
    center = (prior_precision * np.log(NOISE) + replicate_precision * observed) / precision
    return float(center), float(precision**-0.5)
