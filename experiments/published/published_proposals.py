"""Time proposals, and compare them with a million samples and with a certified optimum.

    OMP_NUM_THREADS=1 python experiments/published/published_proposals.py --data ../shared/data \
        > experiments/published/results_published_proposals.md

Regressors are fitted to the 512 runs of RegMix's train_1m. Weights are at most 15 times the natural
share, RegMix's caps, and at least 0. The samples are half RegMix's Dirichlet(natural) and half of
concentrations 1 to 64 around the natural and the uniform mixture, all moved to the nearest allowed
mixture; of a million, the best single one counts.

On a convex law the gap of Frank and Wolfe, the most that any allowed mixture can be better by,
max over s of gradient(w) . (w - s), is a certificate: its maximum over a capped simplex is exact.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from published_data import NATURAL, objective_of, regmix
from scipy.optimize import minimize

from mixopt.config import ProposeConfig
from mixopt.constraints import CappedSimplex
from mixopt.fitting import make_regressor, select_targets
from mixopt.proposals import Problem, search
from mixopt.system import Array
from mixopt.trials import Trials

CASES = (
    ("lightgbm", "pile_cc", 1_000_000),
    ("gaussian_process", "pile_cc", 1_000_000),
    ("auto", "pile_cc", 1_000_000),
    ("log_linear", "mean", 1_000_000),
    ("power", "mean", 1_000_000),
    ("skills", "mean", 1_000_000),
    ("gaussian_process", "mean", 100_000),
    ("auto", "mean", 20_000),
)
CONVEX = ("log_linear", "power", "skills")
CAP = 15.0  # times the natural share
CHUNK = 10_000
KNOWN = 8


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    runs = regmix(parser.parse_args().data / "regmix", "train_1m")
    names = dict.fromkeys(name for name, *_ in CASES)
    fits = {name: make_regressor(name, 0).fit(runs.weights(), runs.losses()) for name in names}
    print("# Proposals on published runs\n")
    print(
        "Command: `OMP_NUM_THREADS=1 python experiments/published/published_proposals.py --data"
        " ../shared/data`.\nCPU seconds on one core; predicted losses in nats per token.\n"
    )
    print("| regressor | objective | search | s | method | best sample | samples | s | natural |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, kind, samples in CASES:
        _print_case(name, fits[name], kind, samples, runs)
    print("\nTarget: a search takes < 3 s, keeps the caps exactly (checked), and is no worse than")
    print("the best of a million samples on the same regressor.\n")
    print("## Convex laws: how far from the optimum?\n")
    print("| regressor | objective | search | SLSQP, 200 random starts | certified gap |")
    print("|---|---|---|---|---|")
    for name in CONVEX:
        for kind in ("pile_cc", "mean"):
            _print_optimum(name, _problem(fits[name], kind, runs))
    print("\nTarget: within 1e-4.")


def _problem(fitted: Any, kind: str, runs: Trials) -> Problem:
    objective = objective_of(kind, runs.targets)
    natural_D = NATURAL.over(runs.domains).array
    allowed = CappedSimplex(np.zeros_like(natural_D), np.minimum(CAP * natural_D, 1.0))
    best = np.argsort(objective.value(runs.losses()), kind="stable")[:KNOWN]
    columns = objective.columns
    only = objective.only_measured()
    known_ND = runs.weights()[best]
    return Problem(select_targets(fitted, columns), only, allowed, natural_D, known_ND)


def _searched(problem: Problem) -> tuple[Any, float]:
    config, start = ProposeConfig(), time.process_time()
    found = search(problem, "auto", samples=config.samples, average=config.average, seed=0)
    seconds = time.process_time() - start
    allowed, weights_D = problem.allowed, found.weights_D
    assert (weights_D <= allowed.upper_D).all(), "a cap is broken"
    assert (weights_D >= 0).all(), "a weight is below 0"
    assert abs(weights_D.sum() - 1) < 1e-12, "weights do not add up to 1"
    return found, seconds


def _print_case(name: str, fitted: Any, kind: str, samples: int, runs: Trials) -> None:
    problem = _problem(fitted, kind, runs)
    found, seconds = _searched(problem)
    start = time.process_time()
    best = _best_sample(problem, samples)
    sampled = time.process_time() - start
    natural = float(problem.value(problem.natural_D[None])[0])
    verdict = "" if found.value <= best else " **worse**"
    cells = [
        name, kind, f"{found.value:.5f}{verdict}", f"{seconds:.2f}", found.method,
        f"{best:.5f}", f"{samples:,}", f"{sampled:.0f}", f"{natural:.5f}",
    ]  # fmt: skip
    print(f"| {' | '.join(cells)} |", flush=True)


def _best_sample(problem: Problem, samples: int) -> float:
    rng, best = np.random.default_rng(0), np.inf
    uniform_D = np.full_like(problem.natural_D, 1.0 / len(problem.natural_D))
    centers = [problem.natural_D] * 8
    centers += [c * center for c in (1, 4, 16, 64) for center in (problem.natural_D, uniform_D)]
    for at in range(0, samples, CHUNK):
        # An eighth of a chunk of 16 parts comes from each centre: half from RegMix's own.
        each = CHUNK // len(centers)
        drawn_ND = np.vstack([rng.dirichlet(alpha_D, each) for alpha_D in centers])
        more_ND = rng.dirichlet(problem.natural_D, CHUNK - len(drawn_ND))
        inside_ND = problem.allowed.project(np.vstack([drawn_ND, more_ND])[: samples - at])
        best = min(best, float(problem.value(inside_ND).min()))
    return best


def _print_optimum(name: str, problem: Problem) -> None:
    found, _ = _searched(problem)
    pieces_M = problem.objective.pieces()[0]

    def value(weights_D: Array) -> float:
        return float(pieces_M @ np.asarray(problem.regressor.predict(weights_D[None]))[0])

    def slope(weights_D: Array) -> Array:
        return np.asarray(pieces_M @ problem.regressor.gradient(weights_D))

    best, rng = np.inf, np.random.default_rng(0)
    upper_D = problem.allowed.upper_D
    starts = problem.allowed.from_cube(rng.random((200, problem.allowed.dimensions)))
    for start_D in starts:
        reached = minimize(
            value,
            start_D,
            jac=slope,
            bounds=[(0.0, most) for most in upper_D],
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like},
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-13},
        )
        inside_D = problem.allowed.project(reached.x)
        best = min(best, value(inside_D))
    gap = _gap(slope(found.weights_D), found.weights_D, upper_D)
    kind = "pile_cc" if len(problem.objective.measured) == 1 else "mean"
    print(f"| {name} | {kind} | {found.value:.7f} | {best:.7f} | {gap:.1e} |", flush=True)


def _gap(slope_D: Array, weights_D: Array, upper_D: Array) -> float:
    """Return the most that a convex function can fall from here: fill the steepest domains."""
    left, filled_D = 1.0, np.zeros_like(upper_D)
    for domain in np.argsort(slope_D):
        filled_D[domain] = min(upper_D[domain], left)
        left -= filled_D[domain]
    return float(slope_D @ (weights_D - filled_D))


if __name__ == "__main__":
    main()
