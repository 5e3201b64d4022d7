"""Do conditional rounds pay in worlds of topics x quality levels?

    python experiments/published/cells.py --worlds 3 --trials 48 --topics 12 --levels 4

The losses are those of known_worlds.py over 200 cells. What a cell is worth to a loss is what its
topic is worth, times what its quality is worth in that topic. `additive` has no more; in `within`
pairs of levels of one topic help only together; in `between` pairs of topics do, cell by cell.
"""

from __future__ import annotations

import argparse
import time
from typing import Literal, get_args

import numpy as np
from known_worlds import NOISE, KnownWorld, _objective, _Terms

from mixopt.config import DesignConfig, FitConfig, ProposeConfig, Stage
from mixopt.constraints import Constraints
from mixopt.fitting import fit_trials
from mixopt.mixture import Mixture
from mixopt.proposals import (
    ProposalRequest,
    Surrogate,
    best_candidate,
    choose_batch,
    draw_candidates,
    propose_mixture,
)
from mixopt.system import Array
from mixopt.trials import Trials, first_stage, make_design, stage_limits

Kind = Literal["additive", "within", "between"]
TOPICS, LEVELS, LOSSES = 40, 5, 20
CONDITIONAL: list[Stage] = ["within", "between", "all"]


def cells_world(kind: Kind, seed: int, topics: int = TOPICS, levels: int = LEVELS) -> KnownWorld:
    """Draw a world of cells."""
    rng = np.random.default_rng([seed, 31, get_args(Kind).index(kind)])
    count = topics * levels
    domains = tuple(f"t{t:02}/q{q}" for t in range(topics) for q in range(levels))
    topic_MT = rng.gamma(0.4, 0.4, (LOSSES, topics))
    order_TL = np.sort(rng.lognormal(0.0, 0.7, (topics, levels)), axis=1)
    worth_MD = (topic_MT[:, :, None] * order_TL[None]).reshape(LOSSES, count)
    if kind == "within":
        ends = ((levels - 1, 0), (levels - 2, 1))
        pairs = [(t * levels + a, t * levels + b) for t in range(topics) for a, b in ends]
    else:
        tops = rng.permutation(topics).reshape(-1, 2)
        pairs = [(a * levels + q, b * levels + q) for a, b in tops for q in range(levels)]
    together = 0.0 if kind == "additive" else 1.0
    pairs_P2 = np.array(pairs)
    terms = _Terms(
        floor_M=rng.uniform(1.0, 2.0, LOSSES),
        height_M=rng.uniform(0.6, 1.4, LOSSES),
        rest_M=rng.uniform(0.03, 0.1, LOSSES),
        decay_M=rng.uniform(0.25, 0.6, LOSSES),
        bend=float(rng.uniform(0.65, 0.85)),
        worth_MD=worth_MD,
        pairs_P2=pairs_P2,
        together_MP=together * rng.gamma(0.7, 0.6, (LOSSES, len(pairs_P2))),
        rivals_Q2=np.empty((0, 2), int),
        against_MQ=np.empty((LOSSES, 0)),
        tired_M=np.zeros(LOSSES),
    )
    sizes_T = np.exp(rng.normal(0.0, 1.0, topics))
    sizes_D = (sizes_T[:, None] * rng.dirichlet(np.full(levels, 5.0), topics)).ravel()
    natural = Mixture.from_array(domains, sizes_D / sizes_D.sum())
    objective, limits = _objective(LOSSES, rng), Constraints(domains)
    return KnownWorld(kind, seed, domains, natural, objective, limits, NOISE, None, None, terms)


def rounds_of(world: KnownWorld, trials: int, stages: list[Stage] | None, seed: int) -> Trials:
    """Train a design round by round, flat or in stages, as a run does."""
    config = DesignConfig(trials=trials, stages=stages, max_usage=None)
    design = make_design(config, world.natural, world.constraints, seed)
    table = world.train(np.array([trial.mixture.array for trial in design]), seed)
    held = None
    for number, count in enumerate(config.planned_rounds[1:], start=1):
        surrogate = Surrogate.of(fit_trials(table, FitConfig(), world.objective, seed))
        limits, natural_D = world.constraints, world.natural.array
        if stages:
            before = first_stage(config, world.natural, limits)
            if held is not None:
                before = stage_limits(stages[number - 1], held, limits)
            found_D = best_candidate(surrogate, before.allowed, natural_D, seed=seed)
            held = Mixture.from_array(world.domains, found_D)
            limits = stage_limits(stages[number], held, limits)
        candidates_KD = draw_candidates(surrogate, limits.allowed, natural_D, seed=seed + number)
        batch = choose_batch(surrogate, candidates_KD, count, taken_ND=table.weights(), seed=seed)
        table = table.joined(world.train(batch.weights_BD, seed, first=len(table)))
    return table


def proposed(world: KnownWorld, table: Trials) -> Array:
    """Return the proposal of a fit of all trials."""
    fit = fit_trials(table, FitConfig(), world.objective, seed=0)
    search = ProposeConfig(bootstrap=0)
    request = ProposalRequest(fit, world.constraints, world.natural, search=search)
    return propose_mixture(request).mixture.over(world.domains).array


def main() -> None:
    """Print each way's gain over natural as a share of the optimum's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=128)
    parser.add_argument("--topics", type=int, default=TOPICS)
    parser.add_argument("--levels", type=int, default=LEVELS)
    given = parser.parse_args()
    trials = given.trials
    print("| world | seed | way | trials | gain, share of the optimum's | CPU s |")
    print("|---|---|---|---|---|---|", flush=True)
    for kind in get_args(Kind):
        for seed in range(given.worlds):
            world = cells_world(kind, seed, given.topics, given.levels)
            largest = float(world.values(world.natural.array[None])[0]) - world.best
            for way, count, plan in (
                ("flat", trials, None),
                ("flat", 2 * trials, None),
                ("within, between, all", trials, CONDITIONAL),
            ):
                start = time.process_time()
                table = rounds_of(world, count, plan, seed)
                weights_D = proposed(world, table)
                gain = 1.0 - world.regret(weights_D) / largest
                best = 1.0 - (float(world.values(table.weights()).min()) - world.best) / largest
                spent = time.process_time() - start
                print(
                    f"| {kind} | {seed} | {way} | {count} | {gain:.3f} (best trial {best:.3f}) |"
                    f" {spent:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
