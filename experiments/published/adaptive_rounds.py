"""Compare rounds that a fit chooses with random trials: in known worlds and on published runs.

    OMP_NUM_THREADS=1 python experiments/published/adaptive_rounds.py --data ../shared/data/regmix \
        > experiments/published/results_adaptive_rounds.md

Is what is proposed after 128 trials in rounds (64, then twice 32) as good as what is proposed after
512 random ones? Every way is fitted by the same regressor and ends in the product's own search; a
regret is the true objective of what is proposed, less that of the best mixture. What differs is how
the next batch is chosen; the control draws it at random among the candidates, which are near the
optimum already.

What is tried is in round_oracles.py: known worlds whose domains interact, whose domains are
repeated, and of 40 domains, with noise below the regrets; and a law fitted to RegMix's 768
published runs, with the noise of a trial over the square root of 8, as if each trial were the mean
of 8 replicates.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
from round_oracles import ORACLES, First, Oracle, oracle_of

from mixopt.designs import Surrogate, choose_batch
from mixopt.system import Array

ROUNDS, MANY = (64, 32, 32), 512
Choice = Literal["random candidates", "variance", "expected_improvement", "knowledge_gradient"]
WAYS: tuple[tuple[First, Choice], ...] = (
    ("dirichlet", "random candidates"),
    ("dirichlet", "expected_improvement"),
    ("dirichlet", "knowledge_gradient"),
    ("axial", "knowledge_gradient"),
)
FEW: tuple[tuple[First, Choice], ...] = (
    ("axial", "knowledge_gradient"),
    ("dirichlet", "random candidates"),
)


@dataclass(frozen=True)
class Found:
    """Regrets after some trials: of the best that was tried, and of what is proposed."""

    way: str
    trials: int
    seed: int
    tried: float
    proposed: float


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--regressor", default="auto")
    parser.add_argument("--few", action="store_true", help="the default, its control, and random")
    parser.add_argument("--only", nargs="+", choices=ORACLES, default=list(ORACLES))
    asked = parser.parse_args()
    print("# Adaptive rounds\n")
    options = f"--regressor {asked.regressor} --only {' '.join(asked.only)}"
    options += f" --seeds {asked.seeds}{' --few' if asked.few else ''}"
    print(
        "Command: `OMP_NUM_THREADS=1 python experiments/published/adaptive_rounds.py --data"
        f" ../shared/data/regmix {options}`, 2 cores."
    )
    print(f"Regret, mean over {asked.seeds} seeds (largest in brackets), in nats per token.")
    print(f"Fitted by {asked.regressor}; rounds of {', '.join(map(str, ROUNDS))} trials.\n")
    for name in asked.only:
        jobs = [(asked.data, name, asked.regressor, seed, asked.few) for seed in range(asked.seeds)]
        with ProcessPoolExecutor(asked.processes, mp_context=get_context("spawn")) as pool:
            answers = list(pool.map(_race, *zip(*jobs, strict=True)))
        seconds = sum(taken for _, taken in answers)
        _print(f"{name}: {ORACLES[name]}", [one for found, _ in answers for one in found], seconds)


def _race(
    folder: Path, name: str, regressor: str, seed: int, few: bool
) -> tuple[list[Found], float]:
    start = time.process_time()
    oracle = oracle_of(folder, name, seed)
    counts = (MANY,) if few else (sum(ROUNDS), MANY)
    random = [_random(oracle, count, regressor, seed) for count in counts]
    rounds = [_adaptive(oracle, *way, regressor, seed) for way in (FEW if few else WAYS)]
    return random + rounds, time.process_time() - start


def _random(oracle: Oracle, count: int, regressor: str, seed: int) -> Found:
    weights_ND = oracle.first("dirichlet", count, seed)
    return _found(oracle, "random", weights_ND, regressor, seed)


def _adaptive(oracle: Oracle, method: First, choice: Choice, regressor: str, seed: int) -> Found:
    weights_ND = oracle.first(method, ROUNDS[0], seed)
    for number, count in enumerate(ROUNDS[1:], start=1):
        surrogate = oracle.fit(oracle.train(weights_ND, seed), regressor, seed)
        batch_BD = _batch(oracle, choice, surrogate, count, seed + number)
        weights_ND = np.vstack([weights_ND, batch_BD])
    return _found(oracle, f"{method}, then {choice}", weights_ND, regressor, seed)


def _batch(oracle: Oracle, choice: Choice, surrogate: Surrogate, count: int, seed: int) -> Array:
    candidates_KD = oracle.candidates(surrogate, seed)
    if choice == "random candidates":
        rows = np.random.default_rng(seed).permutation(len(candidates_KD))[:count]
        return candidates_KD[rows]
    return choose_batch(surrogate, candidates_KD, count, acquisition=choice, seed=seed).weights_BD


def _found(oracle: Oracle, way: str, weights_ND: Array, regressor: str, seed: int) -> Found:
    surrogate = oracle.fit(oracle.train(weights_ND, seed), regressor, seed)
    proposed = float(oracle.truth(oracle.propose(surrogate, seed)[None])[0])
    tried = float(oracle.truth(weights_ND).min())
    return Found(way, len(weights_ND), seed, tried - oracle.best, proposed - oracle.best)


def _print(title: str, found: Sequence[Found], seconds: float) -> None:
    print(f"## {title}\n")
    print(f"| chosen by | trials | best tried | proposed | proposed - that of {MANY} random |")
    print("|---|---|---|---|---|")
    many = {one.seed: one for one in found if one.trials == MANY}
    for way, count in dict.fromkeys((one.way, one.trials) for one in found):
        own = [one for one in found if (one.way, one.trials) == (way, count)]
        tried, proposed = ([getattr(o, n) for o in own] for n in ("tried", "proposed"))
        less = [one.proposed - many[one.seed].proposed for one in own]
        paired = "" if count == MANY else _interval(less)
        print(f"| {way} | {count} | {_cell(tried)} | {_cell(proposed)} | {paired} |")
    print(f"\n{seconds:.0f} CPU seconds.\n", flush=True)


def _cell(regrets: list[float]) -> str:
    return f"{np.mean(regrets):.4f} ({max(regrets):.4f})"


def _interval(differences: list[float]) -> str:
    """Return the mean with its 90% interval by Student's t over seeds."""
    from scipy.special import stdtrit

    count, mean = len(differences), float(np.mean(differences))
    if count < 2:
        return f"{mean:+.4f}"
    half = float(stdtrit(count - 1, 0.95) * np.std(differences, ddof=1) / np.sqrt(count))
    return f"{mean:+.4f} ({mean - half:+.4f}..{mean + half:+.4f})"


if __name__ == "__main__":
    main()
