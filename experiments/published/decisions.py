"""Compare what mixopt, RegMix and Olmix would train on, where it is known how good that is.

    OMP_NUM_THREADS=1 python experiments/published/decisions.py --data ../shared/data/olmix \
        > experiments/published/results_decisions.md

In known worlds (known_worlds.py, no law of ours nor of theirs) each way gets the same random
trials, noise included, and proposes a mixture; its regret is the true objective there less that of
the optimum. Ours is the product's path, `fit_trials` with the default configuration and
`propose_mixture`; RegMix's and Olmix's are in peer_procedures.py. In rounds, as `mixopt run` has it
by default, ours chooses half of the trials by fits on those before. The controls need no fit: the
best observed trial, the natural and the uniform mixture.

On Olmix's DCLM swarm (127 runs, 24 domains, 110 tasks) 96 runs are fitted and each way picks, of
the 31 others, the run with the best predicted mean over the tasks. The controls are those of
`mixopt fit`, which know no law, and chance.

Each seed draws a world, the mixtures and the noise. The interval of a paired difference holds 90%
by Student's t over the seeds.

Shapes: N trials, D domains, M losses.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from decision_ways import IN_ROUNDS, OURS, UNIT, WAYS, designed, ours_in_rounds
from known_worlds import KINDS, Kind, KnownWorld, known_world
from peer_procedures import OlmixFit, RegMixFit
from published_data import dclm, objective_of, some
from scipy.special import stdtrit

from mixopt.config import FitConfig
from mixopt.fitting import controls, fit_trials
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials import Trials

FITTED = 96  # runs of the swarm; the others are picked from


@dataclass(frozen=True)
class Found:
    """The result of one way in one setting with one seed."""

    setting: str  # the world and how many trials, or the swarm
    way: str
    seed: int
    value: float  # regret, or the rank of the pick
    seconds: float  # of the CPU, of fit and search


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the swarm; left out without")
    parser.add_argument("--worlds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--trials", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=110, help="first tasks of the swarm")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    each = product(range(options.seeds), options.worlds, options.trials)
    jobs = [(kind, count, seed) for seed, kind, count in each]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        worlds = [one for job in pool.map(_in_world, *zip(*jobs, strict=True)) for one in job]
        draws = [] if options.data is None else range(options.seeds)
        picks = [pool.submit(_in_swarm, options.data, seed, options.tasks) for seed in draws]
        swarm = [one for job in picks for one in job.result()]
    _print_all(worlds, swarm, options.seeds)


def _in_world(kind: Kind, count: int, seed: int) -> list[Found]:
    world = known_world(kind, seed)
    trials, setting = designed(world, count, seed), f"{kind}, {count} trials"
    results = [
        _found(world, setting, name, partial(way, world, trials, seed), seed)
        for name, way in WAYS.items()
    ]
    rounds = partial(ours_in_rounds, world, count, seed)
    return [*results, _found(world, setting, IN_ROUNDS, rounds, seed)]


def _found(
    world: KnownWorld, setting: str, name: str, way: Callable[[], Array], seed: int
) -> Found:
    start = time.process_time()
    weights_D = way()
    seconds = time.process_time() - start
    return Found(setting, name, seed, world.regret(weights_D), seconds)


def _in_swarm(folder: Path, seed: int, tasks: int) -> list[Found]:
    table = dclm(folder)
    table = table.with_targets(table.targets[:tasks])
    order = np.random.default_rng(seed).permutation(len(table))
    objective = objective_of("mean", table.targets)
    swarm = Swarm(some(table, order[:FITTED]), some(table, order[FITTED:]), objective)
    return [*swarm.predicted(seed), *swarm.without_a_law(seed)]


@dataclass(frozen=True, eq=False)
class Swarm:
    """Fitted runs, held-out runs to pick from, and the objective."""

    train: Trials
    held_out: Trials
    objective: Objective

    def predicted(self, seed: int) -> Iterable[Found]:
        """Yield the rank of each way's pick."""
        weights_ND, losses_NM = self.train.weights(), self.train.losses(UNIT)
        unseen_ND, value = self.held_out.weights(), self.objective.value
        known = self.train, FitConfig(), self.objective, seed
        ways: dict[str, Callable[[], Array]] = {
            OURS: lambda: fit_trials(*known).predict(unseen_ND).objective_N,
            "RegMix": lambda: RegMixFit.of(weights_ND, value(losses_NM)).predict(unseen_ND),
            "Olmix": lambda: value(OlmixFit.of(weights_ND, losses_NM).predict(unseen_ND)),
        }
        for name, way in ways.items():
            start = time.process_time()
            rank = self._rank(way())
            yield Found("swarm", name, seed, rank, time.process_time() - start)

    def without_a_law(self, seed: int) -> Iterable[Found]:
        """Yield the rank of each control's pick, and of a random one on average."""
        fold_N = np.repeat([0, 1], [len(self.train), len(self.held_out)])
        weights_ND = np.vstack([self.train.weights(), self.held_out.weights()])
        losses_NM = np.vstack([self.train.losses(UNIT), self.held_out.losses(UNIT)])
        for control in controls(weights_ND, losses_NM, fold_N, self.train.domains, self.objective):
            if control.name != "mean":
                rank = self._rank(control.predicted_NQ[fold_N == 1, 0])
                yield Found("swarm", control.name, seed, rank, 0.0)
        yield Found("swarm", "chance", seed, (len(self.held_out) + 1) / 2, 0.0)

    def _rank(self, predicted_N: Array) -> float:
        observed_N = self.objective.value(self.held_out.losses(UNIT))
        return float(1 + (observed_N < observed_N[int(np.argmin(predicted_N))]).sum())


def _print_all(worlds: Sequence[Found], swarm: Sequence[Found], seeds: int) -> None:
    command = "OMP_NUM_THREADS=1 python experiments/published/decisions.py"
    given = " ".join(sys.argv[1:])
    print("# What each way would train on\n")
    print(f"Command: `{command} {given}`, on 2 cores.")
    print(f"Mean over {seeds} seeds, largest in brackets.\n")
    for kind, words in KINDS.items():
        of_kind = [row for row in worlds if row.setting.startswith(f"{kind},")]
        if of_kind:
            print(f"## {kind}: {words}\n\nRegret in nats per token.\n")
            _print(of_kind)
    if swarm:
        print("## The DCLM swarm\n\nTrue rank of the pick among the held-out runs; 1 is best.\n")
        _print(swarm)
    print(f"{sum(row.seconds for row in (*worlds, *swarm)):.0f} CPU seconds in fits and searches.")


def _print(results: Sequence[Found]) -> None:
    first = "" if results[0].setting == "swarm" else " trials |"
    print(f"|{first} way | mean (largest) | {OURS} less it | CPU s |")
    print("|---" * (5 if first else 4) + "|")
    for setting in dict.fromkeys(row.setting for row in results):
        of_setting = [row for row in results if row.setting == setting]
        base = {row.seed: row.value for row in of_setting if row.way == OURS}
        for way in dict.fromkeys(row.way for row in of_setting):
            of_way = [row for row in of_setting if row.way == way]
            differences = [base[row.seed] - row.value for row in of_way]
            paired = "" if way == OURS else interval(differences)
            count = f" {setting.split()[1]} |" if first else ""
            cell, seconds = _cell([r.value for r in of_way]), np.mean([r.seconds for r in of_way])
            print(f"|{count} {way} | {cell} | {paired} | {seconds:.1f} |")
    print(flush=True)


def _cell(values: Sequence[float]) -> str:
    return f"{np.mean(values):.4f} ({max(values):.4f})"


def interval(differences: Sequence[float]) -> str:
    """Return the mean with its 90% interval by Student's t over seeds."""
    count, mean = len(differences), float(np.mean(differences))
    if count < 2:
        return f"{mean:+.4f}"
    half = float(stdtrit(count - 1, 0.95) * np.std(differences, ddof=1) / np.sqrt(count))
    return f"{mean:+.4f} ({mean - half:+.4f}..{mean + half:+.4f})"


if __name__ == "__main__":
    main()
