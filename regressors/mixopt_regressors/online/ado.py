"""Adaptive Data Optimization: upweight domains whose learning curve still falls.

At intervals a power law of all samples seen is fitted to each domain's training losses
. After each step, with mu the natural mixture and h the recent realised shares,

    rho is in proportion to mu h^0.5 alpha (L - floor) / n,   each at least 0.01
    p = 0.9 mean rho + 0.1 rho,   mean rho += (rho - mean rho) / (t + 1)

(github.com/yidingjiang/ado). The slope is that of the fitted law, with alpha >= 0.05. Until the
first fit the mixture is the natural one.

Losses go into the fit as means over blocks of steps, in place of each tenth step of a smoothed
curve; a block without the domain says nothing, in place of repeating the loss before.

The law is log L = log(exp(a) n^-alpha + exp(e)) by a Huber loss, 0 <= alpha <= 0.8, a <= 6.5,
e >= 0.5. The published fit descends from each of 8 x 8 x 8 points; here the best a of each
(alpha, e) is a median, and one descent begins at the best of these 64.

Shapes: B blocks, D domains, P = 3 parameters of the law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mixopt.online import Need, Plan
from mixopt.system import Array
from mixopt_regressors.online.online_estimator import OnlineEstimator, Seen, means, option

HUBER = 1e-3
EXPONENTS = np.arange(0.0, 0.8, 0.1)
FLOORS = 8
MAX_A, MIN_E, MAX_ALPHA = 6.5, 0.5, 0.8
MIN_LOSSES = 4  # losses that can tell three parameters apart


def fit_law(samples_N: Array, losses_N: Array) -> Array | None:
    """Return a, e and alpha; None where fewer than four losses are known."""
    known_N = np.isfinite(losses_N) & (losses_N > 0) & (samples_N > 0)
    if known_N.sum() < MIN_LOSSES:
        return None
    from scipy.optimize import minimize

    logs_N, targets_N = np.log(samples_N[known_N]), np.log(losses_N[known_N])
    # The published floor of e is for losses of several nats; smaller ones need a lower one.
    least_e = min(MIN_E, targets_N.min() - 1.0)
    best = minimize(
        _descent,
        _start(logs_N, targets_N, least_e),
        args=(logs_N, targets_N),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, MAX_A), (least_e, None), (0.0, MAX_ALPHA)],
    )
    return np.array(best.x) if np.isfinite(best.x).all() else None


def _start(logs_N: Array, targets_N: Array, least_e: float) -> Array:
    """Return the best point of the grid, over G floors and exponents."""
    floors = np.linspace(least_e, max(targets_N.min() - 1e-3, least_e), FLOORS)
    e_G, alpha_G = (axis.ravel() for axis in np.meshgrid(floors, EXPONENTS))
    above_GN = np.log(np.maximum(np.exp(targets_N) - np.exp(e_G)[:, None], 1e-6))
    a_G = np.minimum(np.median(above_GN + np.outer(alpha_G, logs_N), axis=1), MAX_A)
    misses_GN = _misses((a_G[:, None], e_G[:, None], alpha_G[:, None]), logs_N, targets_N)
    best = int(np.argmin(_huber(misses_GN)))
    return np.array([a_G[best], e_G[best], alpha_G[best]])


def _misses(point: Any, logs_N: Array, targets_N: Array) -> Array:
    a, e, alpha = point
    misses: Array = np.logaddexp(a - alpha * logs_N, e) - targets_N
    return misses


def _descent(point: Array, logs_N: Array, targets_N: Array) -> tuple[float, Array]:
    """Return the mean Huber loss in units of its width, and its gradient."""
    a, _, alpha = point
    misses_N = _misses(point, logs_N, targets_N)
    falling_N = np.exp(a - alpha * logs_N - misses_N - targets_N)  # the part that can be learned
    slopes_N3 = np.stack([falling_N, 1.0 - falling_N, -logs_N * falling_N], axis=1)
    unit = HUBER * len(logs_N)
    pull_N = np.clip(misses_N, -HUBER, HUBER) / unit
    gradient: Array = (pull_N[:, None] * slopes_N3).sum(axis=0)
    return float(_huber(misses_N[None])[0]) / unit, gradient


def _huber(misses_GN: Array) -> Array:
    size_GN = np.abs(misses_GN)
    far_GN = HUBER * (size_GN - 0.5 * HUBER)
    total_G: Array = np.where(size_GN > HUBER, far_GN, 0.5 * size_GN**2).sum(axis=1)
    return total_G


BLOCKS = 500  # of a run, at most: more points do not make the fit better, only slower
SAMPLE = 1024  # tokens of the published sample, which bounds of the law are made for
FITS, WARM_UP = 20, 20  # of a run; the published one of 60,000 steps fits each 1,000
MIN_SHARE, MIN_ALPHA = 0.01, 0.05
KEPT = 0.9  # of the recent shares at each update, and of the mean rho in the mixture


@dataclass(eq=False)
class ADOEstimator(OnlineEstimator):
    """Weighs domains by the slope of their scaling law.

    Attributes:
        warmup_steps: Optimiser steps on the natural mixture, which the fits leave out; None is
            5% of the run.
        fit_steps: Optimiser steps between fits; None is 5% of the run.
        update_steps: Optimiser steps of a plan; the published is 1.
    """

    name: ClassVar[str] = "ado"
    needs: ClassVar[frozenset[Need]] = frozenset({"training_loss"})
    saved: ClassVar[tuple[str, ...]] = (
        "samples", "samples_B", "losses_BD", "laws_DP", "next_fit", "recent_D", "mean_rho_D",
        "block_start", "block_samples", "block_sum_D", "block_count_D",
    )  # fmt: skip

    warmup_steps: int | None = option(None, least=0)
    fit_steps: int | None = option(None, least=1)
    update_steps: int = option(1, least=1)

    def _first(self) -> Plan:
        steps, natural_D = self.setting.steps, self.setting.natural_D
        self.warmup = steps // WARM_UP if self.warmup_steps is None else self.warmup_steps
        self.between_fits = self.fit_steps or math.ceil(steps / FITS)
        self.next_fit = self.warmup + self.between_fits
        self.block_steps = math.ceil(steps / BLOCKS)
        self.recent_D, self.mean_rho_D = natural_D.copy(), natural_D.copy()
        self.laws_DP = np.full((len(natural_D), 3), np.nan)
        self.samples = 0.0
        self.samples_B = np.empty(0)
        self.losses_BD = np.empty((0, len(natural_D)))
        self._open_block(self.warmup)
        return self._plan(natural_D, self.warmup or self.update_steps)

    def _next(self, seen: Seen) -> Plan:
        tokens = seen.tokens_D.sum()
        self.samples += float(tokens) / SAMPLE
        if tokens > 0:
            self.recent_D = KEPT * self.recent_D + (1.0 - KEPT) * seen.tokens_D / tokens
        if seen.step > self.warmup:
            self._fill_block(seen)
        else:
            self._open_block(seen.step)
        if seen.step >= self.next_fit:
            self._fit()
            self.next_fit = seen.step + self.between_fits
        if np.isnan(self.laws_DP).any():
            return self._plan(self.setting.natural_D, self.update_steps)
        return self._plan(self._mixture(seen.step), self.update_steps)

    def _open_block(self, step: int) -> None:
        self.block_start, self.block_samples = step, self.samples
        self.block_sum_D = np.zeros(len(self.setting.domains))
        self.block_count_D = self.block_sum_D

    def _fill_block(self, seen: Seen) -> None:
        self.block_sum_D = self.block_sum_D + seen.loss_sum_D
        self.block_count_D = self.block_count_D + seen.loss_count_D
        if seen.step - self.block_start < self.block_steps:
            return
        mean_D = means(self.block_sum_D, self.block_count_D)
        middle = (self.block_samples + self.samples) / 2.0
        self.samples_B = np.append(self.samples_B, middle)
        self.losses_BD = np.vstack([self.losses_BD, mean_D])
        self._open_block(seen.step)

    def _fit(self) -> None:
        """Fit each domain again; what cannot be fitted keeps the law that it has."""
        laws_DP = self.laws_DP.copy()
        for d, losses_B in enumerate(self.losses_BD.T):
            law = fit_law(self.samples_B, losses_B)
            laws_DP[d] = laws_DP[d] if law is None else law
        self.laws_DP = laws_DP

    def _mixture(self, step: int) -> Array:
        a_D, _, alpha_D = self.laws_DP.T
        above_floor_D = np.exp(a_D - alpha_D * np.log(self.samples))
        slopes_D = np.maximum(alpha_D, MIN_ALPHA) * above_floor_D / self.samples
        rho_D = self.setting.natural_D * np.sqrt(self.recent_D) * slopes_D
        rho_D = np.maximum(rho_D / rho_D.sum(), self._least_share())
        rho_D = rho_D / rho_D.sum()
        weights_D: Array = KEPT * self.mean_rho_D + (1.0 - KEPT) * rho_D
        part = min(self.update_steps / (step + 1.0), 1.0)
        self.mean_rho_D = (1.0 - part) * self.mean_rho_D + part * rho_D
        return weights_D

    def _least_share(self) -> float:
        """Return the least share before scaling; the published one is for 22 domains."""
        return min(MIN_SHARE, 0.25 / len(self.setting.domains))

    def _plan(self, weights_D: Array, steps: int) -> Plan:
        tag = "natural" if np.isnan(self.laws_DP).any() else "scaling laws"
        return Plan(self.bounded(weights_D), steps, tag)
