"""What share of losses 90% intervals hold beyond the trials, where the truth is known.

    OMP_NUM_THREADS=1 python experiments/published/intervals_beyond.py \
        > experiments/published/results_intervals_beyond.md

In known worlds (known_worlds.py, no law of ours) 32 trials lie around the natural mixture, and
losses with noise are predicted everywhere. By how far a mixture is beyond the trials' reach, in
units of their radius (mixopt.fitting.intervals), the share of losses is counted that are inside
intervals of one width, inside those that follow the regressor's deviations alone, and inside those
of the product, which widen with the distance as well.

Shapes: N mixtures, D domains, M losses.
"""

from __future__ import annotations

import argparse

import numpy as np
from known_worlds import KINDS, Kind, KnownWorld, known_world

from mixopt.config import FitConfig
from mixopt.fitting import Fit, conformal_quantile, fit_trials
from mixopt.system import Array

NAMES = ("auto", "gaussian_process", "log_linear", "linear")
WORLDS: tuple[Kind, ...] = ("plain", "interaction")
BINS = {"within": (-np.inf, 0.0), "to 0.25": (0.0, 0.25), "to 0.5": (0.25, 0.5)}
BINS |= {"to 1": (0.5, 1.0), "above 1": (1.0, np.inf)}
TRIALS, ASKED = 32, 400
AROUND = (4.0, 10.0)  # strengths of the draws around the natural mixture, in turn


def main() -> None:
    """Print a table for each kind of world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    seeds = parser.parse_args().seeds
    print(
        "# Intervals beyond the trials\n\n"
        "Command: `OMP_NUM_THREADS=1 python experiments/published/intervals_beyond.py`. Share of"
        " losses in 90%\nintervals: of one width / by deviations / by deviations and distance. The"
        " columns are how far\nbeyond the trials' reach a mixture is, in units of their radius."
        f" {seeds} synthetic worlds each, {TRIALS} trials.\n"
    )
    for kind in WORLDS:
        print(f"## {kind.capitalize()}: {KINDS[kind]}\n")
        print(f"| regressor | {' | '.join(BINS)} |")
        print("|---" * (len(BINS) + 1) + "|")
        for name in NAMES:
            shares = np.nanmean([_shares(kind, name, seed) for seed in range(seeds)], axis=0)
            cells = [" / ".join(f"{share:.2f}" for share in row) for row in shares]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
        print()


def _shares(kind: Kind, name: str, seed: int) -> Array:
    """Return the share of losses inside, by distance and by kind of interval, shape (5, 3)."""
    world, rng = known_world(kind, seed=seed), np.random.default_rng([seed, 17])
    near_ND = _around(world, AROUND[seed % 2], TRIALS, rng)
    fit = fit_trials(
        world.train(near_ND, seed=seed), FitConfig(regressors=[name]), world.objective, seed
    )
    asked_ND = np.vstack([world.random(ASKED // 2, seed), _around(world, 4.0, ASKED // 4, rng)])
    uniform_ND = rng.dirichlet(np.ones(len(world.domains)), ASKED // 4)
    return _inside(fit, world, np.vstack([asked_ND, uniform_ND]), rng)


def _around(world: KnownWorld, strength: float, count: int, rng: np.random.Generator) -> Array:
    weights_ND = rng.dirichlet(strength * world.natural.array + 0.3, count)
    return world.constraints.simplex.inside(weights_ND)


def _inside(fit: Fit, world: KnownWorld, asked_ND: Array, rng: np.random.Generator) -> Array:
    truth_NM = world.truth(asked_ND)
    prediction, stretch_N1 = fit.predict(asked_ND), fit.reach.stretch(asked_ND)[:, None]
    noise_NM = world.deviations_M * rng.standard_normal(truth_NM.shape)
    off_NM = np.abs(truth_NM + noise_NM - prediction.losses_NM)
    halves_NM = prediction.high_NM - prediction.losses_NM
    even_M = [conformal_quantile(np.abs(errors_N)) for errors_N in fit.errors.errors_NM.T]
    inside = np.stack([off_NM <= even_M, off_NM <= halves_NM / stretch_N1, off_NM <= halves_NM])
    beyond_N = (fit.reach.nearest(asked_ND) - fit.reach.reach) / fit.reach.radius
    rows = [(beyond_N > low) & (beyond_N <= high) for low, high in BINS.values()]
    nothing = np.full(3, np.nan)
    return np.stack([inside[:, at].mean(axis=(1, 2)) if at.any() else nothing for at in rows])


if __name__ == "__main__":
    main()
