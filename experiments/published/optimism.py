"""Compare what a proposal says of its own optimism with the truth, in known worlds.

    OMP_NUM_THREADS=1 python experiments/published/optimism.py \
        > experiments/published/results_optimism.md

The prediction at the proposal is too good by the true objective there less the predicted one. The
product's estimate (`mixopt.proposals.optimism`) is the mean error of the held-out trials that were
predicted best. Beside it are the estimates that it was chosen over: held-out errors of the nearest
trials, weighted by exp(-10 x total variation), and refits on resampled trials, of which each is
asked what it predicts at its own optimum and the full fit what it predicts there. Seeds from 100 on
chose; what is printed is from 200 on.

Fits are the default ones. A ratio near 1 says that the estimate is right on average; errors are how
far it is off in one world.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import numpy as np
from decision_ways import designed, proposed, repetition_of
from known_worlds import KINDS, Kind, KnownWorld, known_world

from mixopt.config import FitConfig
from mixopt.fitting import Fit, fit_trials, resampled_fits, select_targets
from mixopt.mixture import total_variation
from mixopt.objective import Objective
from mixopt.proposals import Problem, search
from mixopt.system import Array

NEAR = 0.1  # total variation at which a trial counts 1 / e as much
SAMPLES = 2_000


@dataclass(frozen=True)
class Promise:
    """By how much a prediction was too good, and the estimates of that.

    Attributes:
        kind: The world.
        actual: The true objective of the proposal less the predicted one.
        estimates: By name; `mixopt` is the product's.
        seconds: CPU seconds.
    """

    kind: Kind
    actual: float
    estimates: dict[str, float]
    seconds: float


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--worlds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--first", type=int, default=200, help="first seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--refits", type=int, default=0, help="refits; none leaves them out")
    parser.add_argument("--regressor", default="auto")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + asked.seeds)
    jobs = [
        (kind, seed, asked.trials, asked.regressor, asked.refits)
        for seed in seeds
        for kind in asked.worlds
    ]
    with ProcessPoolExecutor(asked.processes, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(promise, *zip(*jobs, strict=True)))
    _print(found, asked)


def promise(kind: Kind, seed: int, count: int, regressor: str, refits: int) -> Promise:
    """Propose in one world and compare with the truth."""
    start = time.process_time()
    world = known_world(kind, seed)
    trials = designed(world, count, seed)
    config = FitConfig(regressors=[regressor])
    known = repetition_of(world, trials)
    fit = fit_trials(trials, config, world.objective, seed, repetition=known)
    proposal = proposed(world, trials, fit, seed)
    mixture_D = proposal.mixture.array
    estimates = {
        "mixopt": proposal.optimism.estimate or 0.0,
        "nearest": nearest(fit, world.objective, mixture_D),
    }
    if refits:
        estimates["refits"] = of_refits(fit, world, refits, seed)
    actual = float(world.values(mixture_D[None])[0]) - proposal.predicted_objective.value
    return Promise(kind, actual, estimates, time.process_time() - start)


def nearest(fit: Fit, objective: Objective, mixture_D: Array) -> float:
    """Return the mean error of held-out trials, the near ones counting most."""
    weight_N = np.exp(-total_variation(fit.data.weights_ND, mixture_D) / NEAR)
    return float(weight_N @ fit.objective_errors(objective) / weight_N.sum())


def of_refits(fit: Fit, world: KnownWorld, count: int, seed: int) -> float:
    """Return what the full fit predicts at refits' own optima, less what they predict there."""
    columns, trials = world.objective.columns, fit.trials
    whole = Problem(
        select_targets(fit.regressor, columns),
        world.objective.only_measured(),
        world.constraints.allowed,
        world.natural.array,
        trials.weights(),
    )
    less = []
    for one in resampled_fits(fit, columns, count=count, seed=seed).of(columns):
        again = replace(whole, regressor=one)
        found = search(again, "auto", samples=SAMPLES, average=32, seed=seed)
        less.append(float(whole.value(found.weights_D[None])[0]) - found.value)
    return float(np.mean(less))


def _print(found: Sequence[Promise], asked: argparse.Namespace) -> None:
    command = f"--trials {asked.trials} --first {asked.first} --seeds {asked.seeds}"
    command += f" --worlds {' '.join(asked.worlds)} --refits {asked.refits}"
    print("# How much too good a prediction at a proposal is\n")
    print(f"Command: `OMP_NUM_THREADS=1 python experiments/published/optimism.py {command}")
    print(f"--regressor {asked.regressor}`, on 2 cores. Nats per token, means over the seeds.\n")
    names = list(found[0].estimates)
    print(f"| world | actual | {' | '.join(names)} |")
    print("|---" * (2 + len(names)) + "|")
    for kind in dict.fromkeys(one.kind for one in found):
        _row(kind, [one for one in found if one.kind == kind], names)
    _row("all", found, names)
    actual_K = np.array([one.actual for one in found])
    print(f"\n| estimate | mean over actual | error in a world (0: {_size(actual_K)}) |")
    print("|---|---|---|")
    for name in names:
        estimate_K = np.array([one.estimates[name] for one in found])
        ratio = float(estimate_K.mean() / actual_K.mean())
        print(f"| {name} | {ratio:.2f} | {_size(estimate_K - actual_K)} |")
    print(f"\n{sum(one.seconds for one in found):.0f} CPU seconds.")


def _row(title: str, found: Sequence[Promise], names: Sequence[str]) -> None:
    actual = np.mean([one.actual for one in found])
    means = [f"{np.mean([one.estimates[name] for one in found]):+.4f}" for name in names]
    print(f"| {title} | {actual:+.4f} | {' | '.join(means)} |")


def _size(values_K: Array) -> str:
    return f"{np.sqrt((values_K**2).mean()):.4f}"


if __name__ == "__main__":
    main()
