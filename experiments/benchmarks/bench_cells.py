"""CPU seconds of design, fit, proposal and map of 40 topics x 5 quality levels and 20 losses.

    OMP_NUM_THREADS=1 python experiments/benchmarks/bench_cells.py --trials 256

The target is 3 CPU minutes for 256 trials, and of 840 trials of 168 cells (--trials 840 --topics 42
--levels 4 --fit) 60 CPU seconds of the fit.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "published"))

from cells import LEVELS, TOPICS, cells_world

from mixopt.config import DesignConfig, FitConfig
from mixopt.fitting import fit_trials
from mixopt.proposals import ProposalRequest, propose_mixture
from mixopt.reporting import figure_svg, plot_cells
from mixopt.trials import make_design


def main() -> None:
    """Print the seconds of each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=256)
    parser.add_argument("--topics", type=int, default=TOPICS)
    parser.add_argument("--levels", type=int, default=LEVELS)
    parser.add_argument("--fit", action="store_true", help="end after the fit")
    given = parser.parse_args()
    world = cells_world("additive", 0, given.topics, given.levels)
    config = DesignConfig(trials=given.trials, rounds=[], anchors=[], replicates=0)
    start = time.process_time()
    design = make_design(config, world.natural, world.constraints, 0)
    start = _say("design", start)
    table = world.train(np.array([trial.mixture.array for trial in design]), 0)
    start = time.process_time()
    fit = fit_trials(table, FitConfig(), world.objective, seed=0)
    start = _say("fit", start)
    print(fit.summary())
    if given.fit:
        return
    proposal = propose_mixture(ProposalRequest(fit, world.constraints, world.natural))
    start = _say("proposal", start)
    figure_svg(plot_cells(proposal))
    _say("map", start)
    largest = float(world.values(world.natural.array[None])[0]) - world.best
    gain = 1.0 - world.regret(proposal.mixture.over(world.domains).array) / largest
    print(f"gain over natural, share of the best mixture's: {gain:.3f}")


def _say(step: str, start: float) -> float:
    print(f"{step}: {time.process_time() - start:.1f} CPU s", flush=True)
    return time.process_time()


if __name__ == "__main__":
    main()
