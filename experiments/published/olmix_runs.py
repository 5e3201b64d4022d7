"""Fit part of Olmix's published DCLM swarm and print how well the rest is predicted.

    OMP_NUM_THREADS=1 python experiments/published/olmix_runs.py --data ../shared/data/olmix \
        > experiments/published/results_olmix_runs.md

127 runs over 24 domains with losses on 110 tasks, lower is better: 96 are fitted, 31 held out, five
random splits. Every number is of one setting, the defaults. No mixture was trained twice, so the
noise ceiling is not known. The controls know no law: the held-out run's nearest fitted one stands
for it, or how far it is from the uniform mixture does.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from published_data import mean_spearman, objective_of, some

from mixopt.config import FitConfig
from mixopt.fitting import fit_trials, spearman
from mixopt.mixture import pairwise_total_variation
from mixopt.system import Array
from mixopt.trials import Trials

NAMES = ("auto", "gaussian_process", "skills", "log_linear")
FITTED, RUNS = 96, 127


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--names", nargs="+", default=list(NAMES))
    asked = parser.parse_args()
    swarm = dclm(asked.data)
    print("# Regressors on a swarm of Olmix's\n")
    print(
        "Command: `OMP_NUM_THREADS=1 python experiments/published/olmix_runs.py --data"
        f" ../shared/data/olmix`.\n{FITTED} of {RUNS} runs fitted, the rest held out; mean over"
        f" {asked.splits} splits (least and most).\n"
    )
    print("| regressor | Spearman over 110 tasks | of their mean | in 90% intervals | CPU s |")
    print("|---|---|---|---|---|")
    for name in asked.names:
        found = np.array([_scored(name, swarm, seed) for seed in range(asked.splits)])
        cells = [_range(found[:, column]) for column in (0, 1)]
        covered = f"{found[:, 2].mean():.3f} (half-width {found[:, 3].mean():.2f} deviations)"
        cells += [covered, f"{found[:, 4].mean():.0f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    for control in ("nearest fitted run", "from uniform"):
        found = np.array([_controlled(control, swarm, seed) for seed in range(asked.splits)])
        print(f"| *{control}, no law* | {_range(found[:, 0])} | {_range(found[:, 1])} | | |")


def dclm(folder: Path) -> Trials:
    """Return the swarm, joined by `run`."""
    return Trials.from_csv(folder / "dclm_ratios.csv", folder / "dclm_metrics.csv")


def _split(swarm: Trials, seed: int) -> tuple[Trials, Trials]:
    order = np.random.RandomState(seed).permutation(len(swarm))
    return some(swarm, order[:FITTED]), some(swarm, order[FITTED:])


def _scored(name: str, swarm: Trials, seed: int) -> tuple[float, ...]:
    train, test = _split(swarm, seed)
    start = time.process_time()
    objective = objective_of("mean", train.targets)
    fit = fit_trials(train, FitConfig(regressors=[name]), objective, seed=0)
    seconds = time.process_time() - start
    predicted, losses_NM = fit.predict(test.weights()), test.losses()
    inside_NM = (predicted.low_NM <= losses_NM) & (losses_NM <= predicted.high_NM)
    halves_M = (predicted.high_NM - predicted.low_NM).mean(axis=0) / 2
    ranks = _ranks(predicted.losses_NM, losses_NM)
    width = float((halves_M / losses_NM.std(axis=0)).mean())
    return (*ranks, float(inside_NM.mean()), width, seconds)


def _controlled(control: str, swarm: Trials, seed: int) -> tuple[float, float]:
    train, test = _split(swarm, seed)
    if control == "from uniform":
        away_N = np.abs(test.weights() - 1.0 / len(test.domains)).sum(axis=1)
        return _ranks(np.tile(away_N[:, None], len(test.targets)), test.losses())
    nearest_N = pairwise_total_variation(test.weights(), train.weights()).argmin(axis=1)
    return _ranks(train.losses()[nearest_N], test.losses())


def _ranks(predicted_NM: Array, observed_NM: Array) -> tuple[float, float]:
    means = (values.mean(axis=1) for values in (predicted_NM, observed_NM))
    return mean_spearman(predicted_NM, observed_NM), spearman(*means) or 0.0


def _range(values_S: Array) -> str:
    return f"{values_S.mean():.3f} ({values_S.min():.3f} to {values_S.max():.3f})"


if __name__ == "__main__":
    main()
