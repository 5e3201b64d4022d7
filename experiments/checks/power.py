"""Compare the power that is claimed for a sweep with that of simulated sweeps.

    python experiments/checks/power.py [--worlds 1000]

A world is a control, K arms with true accuracies around it, and runs that each answer their own
questions or have their own noise. The realised power is the share of worlds in which the best arm
is significantly better than the control at the level of all arms together. A row of the table is a
plan; the exit code is 1 where a claim is off by more than 0.05.
"""

from __future__ import annotations

import argparse
import itertools
import sys

import numpy as np

from mixopt.fitting import power
from mixopt.fitting.power import critical_difference

TOLERANCE = 0.05


def realised(
    rng: np.random.Generator, plan: tuple[int, int, float, int | None], worlds: int, noise: float
) -> float:
    """Return the share of simulated sweeps whose best arm is significantly better."""
    arms, seeds, spread, items = plan
    true = 0.5 + spread * rng.standard_normal((worlds, arms + 1))
    true[:, 0] = 0.5
    if items is None:
        runs = true[..., None] + noise * rng.standard_normal((worlds, arms + 1, seeds))
    else:
        runs = rng.binomial(items, true.clip(0, 1)[..., None], (worlds, arms + 1, seeds)) / items
    means = runs.mean(axis=2)
    best = means[:, 1:].max(axis=1) - means[:, 0]
    error = np.sqrt(2 / seeds) * noise
    return float((best > critical_difference(arms) * error).mean())


def main() -> int:
    """Print a row for each plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=1000)
    worlds, rng, off = parser.parse_args().worlds, np.random.default_rng(0), 0.0
    print(f"{'arms':>5} {'seeds':>5} {'spread':>7} {'items':>6} {'noise':>7} claimed realised")
    for arms, seeds, spread, items in itertools.product(
        (1, 4, 12, 32), (1, 3), (0.0, 0.01, 0.03), (None, 164, 1319)
    ):
        noise = 0.012 if items is None else float(np.sqrt(0.25 / items))
        claimed = power(noise, spread, arms, seeds=seeds).power
        share = realised(rng, (arms, seeds, spread, items), worlds, noise)
        off = max(off, abs(claimed - share))
        cell = items or "-"
        print(
            f"{arms:5d} {seeds:5d} {spread:7.3f} {cell:>6} {noise:7.4f} {claimed:7.3f} {share:8.3f}"
        )
    print(f"largest difference {off:.3f} over {worlds} worlds each; allowed {TOLERANCE}")
    return int(off > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
