"""What RegMix and Olmix would propose from a table of trials, written from their descriptions.

- RegMix (github.com/sail-sg/regmix): LightGBM with a learning rate of 0.01 and 1,000 trees, all
  else as LightGBM has it, predicts the objective of 100,000 draws from the Dirichlet distribution
  whose parameters are the natural shares; the mean of the 128 best is proposed. Their notebook
  stops early on the test set, which a user does not have; without it accuracy is the same. With
  fewer than 40 trials no tree can split, since a leaf has at least 20, and the mean of 128 draws
  is proposed.
- Olmix (github.com/allenai/olmix): for each task `exp(c) + exp(t . w)`, by the sum of Huber's loss
  with a width of 0.02, from random starts of at most 100 steps of L-BFGS; then the mixture with
  the least mean of the tasks plus 0.05 times the KL divergence from natural, which is one convex
  problem. They start 300 times, here it is 48: where a law has about as many parameters as trials,
  more starts fit the noise better and propose worse (40 domains, 64 trials, two seeds: a regret of
  0.34 and 0.25 with 48, 0.53 and 0.77 with 300).

Caps, where there are some, hold for both: RegMix rejects draws, Olmix has them in the problem.

Shapes: N trials, D domains, M tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize

from mixopt.system import Array

DRAWS, AVERAGED = 100_000, 128
TREES, RATE, TREE_SEED = 1_000, 0.01, 42
WIDTH, STEPS, KL = 0.02, 100, 0.05
STARTS, START_SEED = 48, 0
MOST_EXPONENT = 30.0
LEAST = 1e-12  # a share whose logarithm is taken


@dataclass(frozen=True, eq=False)
class RegMixFit:
    """LightGBM with RegMix's parameters, fitted to one number."""

    booster: Any

    @classmethod
    def of(cls, weights_ND: Array, values_N: Array) -> Self:
        """Fit the objective of the trials."""
        from lightgbm import LGBMRegressor

        booster = LGBMRegressor(
            n_estimators=TREES, learning_rate=RATE, random_state=TREE_SEED, n_jobs=1, verbose=-1
        )
        return cls(booster.fit(weights_ND, values_N))

    def predict(self, weights_ND: Array) -> Array:
        """Return the predicted objective, shape (N,)."""
        return np.asarray(self.booster.booster_.predict(weights_ND), dtype=np.float64)

    def proposal(self, natural_D: Array, most_D: Array, *, seed: int, draws: int = DRAWS) -> Array:
        """Return the mean of the best draws, shape (D,).

        Args:
            natural_D: The parameters of the Dirichlet distribution, adding up to 1.
            most_D: Most weight of each domain; draws beyond are rejected.
            seed: Of the draws.
            draws: How many.
        """
        drawn_ND = np.random.default_rng(seed).dirichlet(natural_D, draws)
        kept_ND = drawn_ND[(drawn_ND <= most_D + LEAST).all(axis=1)]
        order = np.argsort(self.predict(kept_ND), kind="stable")[:AVERAGED]
        best_D: Array = kept_ND[order].mean(axis=0)
        return best_D


@dataclass(frozen=True, eq=False)
class OlmixFit:
    """A log-linear law of each task.

    Attributes:
        parameters_MP: The logarithm of the floor of each task, then the slope by each domain.
    """

    parameters_MP: Array

    @classmethod
    def of(cls, weights_ND: Array, losses_NM: Array) -> Self:
        """Fit every task by itself; losses are above 0."""
        return cls(np.array([_task(weights_ND, losses_N) for losses_N in losses_NM.T]))

    def predict(self, weights_ND: Array) -> Array:
        """Return the predicted losses, shape (N, M)."""
        exponents_NM = weights_ND @ self.parameters_MP[:, 1:].T
        return np.asarray(_exp(self.parameters_MP[:, 0]) + _exp(exponents_NM))

    def proposal(
        self, natural_D: Array, most_D: Array, shares_M: Array, *, kl: float = KL
    ) -> Array:
        """Return the minimum of the weighted mean and the divergence, shape (D,).

        Args:
            natural_D: What the divergence is from, > 0.
            most_D: Most weight of each domain.
            shares_M: Weight of each task, adding up to 1.
            kl: Weight of the divergence.
        """

        def cost(weights_D: Array) -> tuple[float, Array]:
            ratio_D = np.log(np.maximum(weights_D, LEAST) / natural_D)
            losses_M = self.predict(weights_D[None])[0]
            above_M = shares_M * (losses_M - _exp(self.parameters_MP[:, 0]))
            slope_D = above_M @ self.parameters_MP[:, 1:] + kl * (ratio_D + 1.0)
            return float(shares_M @ losses_M + kl * (weights_D @ ratio_D)), slope_D

        solved = minimize(
            cost,
            np.minimum(natural_D, most_D),
            jac=True,
            method="SLSQP",
            bounds=[(LEAST, most) for most in most_D],
            constraints={
                "type": "eq",
                "fun": lambda w_D: w_D.sum() - 1.0,
                "jac": lambda w_D: np.ones(len(w_D)),
            },
            options={"maxiter": 1_000, "ftol": 1e-12},
        )
        found_D = np.clip(solved.x, 0.0, most_D)
        mixture_D: Array = found_D / found_D.sum()
        return mixture_D


def _task(weights_ND: Array, losses_N: Array) -> Array:
    """Return the law of one task with the least cost over all starts, shape (D + 1,)."""
    rng = np.random.default_rng(START_SEED)
    ends = []
    for _ in range(STARTS):
        floor = np.log(rng.uniform(0.1, 1.0) * losses_N.min())
        start_P = np.append(floor, rng.standard_normal(weights_ND.shape[1]))
        ends.append(
            minimize(
                _huber,
                start_P,
                args=(weights_ND, losses_N),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": STEPS},
            )
        )
    return np.asarray(min(ends, key=lambda end: float(end.fun)).x, dtype=np.float64)


def _huber(parameters_P: Array, weights_ND: Array, losses_N: Array) -> tuple[float, Array]:
    """Return the sum of Huber's losses and its slope by the parameters."""
    floor, above_N = float(_exp(parameters_P[0])), _exp(weights_ND @ parameters_P[1:])
    error_N = floor + above_N - losses_N
    pull_N = np.clip(error_N, -WIDTH, WIDTH)
    cost = float((pull_N * (error_N - 0.5 * pull_N)).sum())
    return cost, np.concatenate([[pull_N.sum() * floor], (pull_N * above_N) @ weights_ND])


def _exp(exponents: Any) -> Array:
    return np.asarray(np.exp(np.minimum(exponents, MOST_EXPONENT)))
