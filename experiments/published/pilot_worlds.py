"""Choose the constants of the objective's residual in synthetic worlds of two sizes.

    OMP_NUM_THREADS=1 python experiments/published/pilot_worlds.py \
        > experiments/published/results_pilot_worlds.md

A world is a power law of mixed domains with interactions; the larger size has other helps, smaller
exponents and weaker interactions. Proxies predict the small size with an error, K runs of the
larger size are pilots, and all others are judged. What is printed for each choice of constants is
the mean over worlds: rank correlation, RMSE and half-width in deviations of the objective, and how
many 90% intervals hold. Nothing here is published data.

Shapes: N runs, D domains, M losses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import t

from mixopt.fitting import ObjectiveResidual, correct, spearman
from mixopt.objective import Objective
from mixopt.system import Array

WORLDS, RUNS = 60, 250
COUNTS = (1, 2, 4, 8, 16, 32)
CHOICES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "off by .1": {"off": 0.1},
    "off by .3": {"off": 0.3},
    "ratios to 10": {"ratios": (0.3, 1.0, 3.0, 10.0)},
    "no residual": {"ratios": (1e-9,)},
    "short lengths": {"lengths": (0.3, 0.6)},
    "long lengths": {"lengths": (1.2, 2.4, 4.8)},
}


def main() -> None:
    """Print a table."""
    worlds = [World(seed) for seed in range(WORLDS)]
    print("# Pilots in synthetic worlds\n")
    print("Command: `OMP_NUM_THREADS=1 python experiments/published/pilot_worlds.py`.")
    print(f"Mean of {WORLDS} worlds.\n")
    print("| pilots | constants | Spearman | RMSE | 90% intervals hold | half-width |")
    print("|---|---|---|---|---|---|")
    for count in COUNTS:
        for name, constants in CHOICES.items():
            scores = [one.judged(count, constants) for one in worlds]
            rank, off, held, half = np.mean(scores, axis=0)
            numbers = f"{rank:.4f} | {off:.3f} | {held:.3f} | {half:.2f}"
            print(f"| {count} | {name} | {numbers} |", flush=True)


class World:
    """Losses of the same mixtures at two sizes, and what a fit at the small one predicts."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        domains, losses = int(rng.integers(4, 20)), int(rng.integers(3, 16))
        helps_MD = rng.gamma(0.35, 1.0, (losses, domains)) + 3.0 * np.eye(losses, domains)
        changed = rng.choice([0.0, 0.15, 0.3, 0.6])
        later_MD = helps_MD * np.exp(changed * rng.standard_normal(helps_MD.shape))
        pairs_MDD = rng.choice([0.0, 0.3]) * rng.standard_normal((losses, domains, domains))
        power_M = np.exp(rng.normal(np.log(0.12), 0.3, losses))
        natural_D = rng.dirichlet(np.ones(domains))
        drawn_ND = rng.dirichlet(rng.choice([0.5, 1.0, 3.0]) * domains * natural_D + 0.02, RUNS)
        self.weights_ND = drawn_ND / drawn_ND.sum(axis=1, keepdims=True)
        small_NM = _law(self.weights_ND, helps_MD, pairs_MDD, power_M)
        slower_M = power_M * np.exp(rng.normal(-0.4, 0.35, losses))
        weaker_MDD = rng.uniform(0.3, 1.5) * pairs_MDD
        large_NM = 0.75 * _law(self.weights_ND, later_MD, weaker_MDD, slower_M)
        noise, error = rng.choice([0.01, 0.03, 0.1]), rng.choice([0.03, 0.1, 0.2])
        self.spread_M = small_NM.std(axis=0)
        self.noise_M = np.hypot(noise, error) * self.spread_M
        self.predicted_NM = small_NM + error * self.spread_M * rng.standard_normal(small_NM.shape)
        noise_NM = noise * large_NM.std(axis=0) * rng.standard_normal(large_NM.shape)
        self.observed_NM = large_NM + noise_NM
        names = tuple(f"loss{m}" for m in range(losses))
        self.objective = Objective(names, "mean", dict.fromkeys(names, 1 / losses))

    def judged(self, pilots: int, constants: dict[str, Any]) -> tuple[float, float, float, float]:
        """Return rank correlation, RMSE, coverage and half-width on the runs that are no pilots."""
        given = (self.predicted_NM, self.observed_NM, self.weights_ND)
        correction = correct(*(one[:pilots] for one in given), self.spread_M, self.noise_M)
        residual = ObjectiveResidual.learned(
            correction, self.objective, self.predicted_NM, **constants
        )
        truth_N = self.objective.value(self.observed_NM[pilots:])
        value_N = residual.value(self.predicted_NM[pilots:], self.weights_ND[pilots:])
        half_N = t.ppf(0.95, correction.freedom) * residual.std(self.weights_ND[pilots:])
        error_N, spread = np.abs(value_N - truth_N), float(truth_N.std())
        off, held = float(np.sqrt((error_N**2).mean())), float((error_N <= half_N).mean())
        return spearman(value_N, truth_N) or 0.0, off / spread, held, float(half_N.mean()) / spread


def _law(weights_ND: Array, helps_MD: Array, pairs_MDD: Array, power_M: Array) -> Array:
    helps_MD = helps_MD / helps_MD.sum(axis=1, keepdims=True)
    together_NM = np.einsum("nd,mde,ne->nm", weights_ND, pairs_MDD, weights_ND)
    losses_NM: Array = 2.0 * ((weights_ND @ helps_MD.T + 0.03) * np.exp(together_NM)) ** -power_M
    return losses_NM


if __name__ == "__main__":
    main()
