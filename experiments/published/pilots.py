"""What a few runs at the target size are worth: RegMix's 1M proxies carried to its 60M runs.

    python experiments/published/pilots.py ../shared/data/regmix

The fit is on the 512 published 1M runs. Pilots are drawn from the 256 60M runs, and all others are
predicted: by the fit alone, by a line for each loss, and by co-kriging. The objective is the mean
of the 13 losses. Draws are paired: each correction sees the same pilots and the same unseen runs.

Shapes: N runs, M losses.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.config import FitConfig
from mixopt.fitting import Fit, fit_trials, predict_with_std, spearman
from mixopt.objective import Objective
from mixopt.trials import Trials

COUNTS = (1, 2, 4, 8, 16, 32)
KINDS = ("raw", "affine", "co-kriging")


def main() -> None:
    """Print a table of pilots and corrections."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the published tables")
    parser.add_argument("--regressor", default="gaussian_process")
    parser.add_argument("--draws", type=int, default=40, help="sets of pilots")
    asked = parser.parse_args()
    trials, runs = published(asked.folder, "train_1m"), published(asked.folder, "test_60m")
    shares = dict.fromkeys(trials.targets, 1 / len(trials.targets))
    objective = Objective(trials.targets, "mean", shares, "nats_per_token")
    fit = fit_trials(trials, FitConfig(regressors=[asked.regressor]), objective, 0)
    fit = replace(fit, fitted=Known(fit.regressor, runs.weights()))
    print(f"{asked.regressor} on {len(trials)} 1M runs, {asked.draws} sets of 60M pilots\n")
    print(
        "| pilots | correction | Spearman of the mean (sd of draws) | mean of 13 Spearmans", end=""
    )
    print(" | 90% intervals hold: of the mean | of the losses |\n|---|---|---|---|---|---|")
    for count in COUNTS:
        scores = [list(scored(fit, runs, count, draw)) for draw in range(asked.draws)]
        for kind, rows in zip(KINDS, np.swapaxes(np.array(scores), 0, 1), strict=True):
            ranks, targets, together, each = rows.mean(axis=0)
            spread = rows[:, 0].std(ddof=1)
            covered = f"{together:.3f} | {each:.3f}" if kind != "raw" else " | "
            print(f"| {count} | {kind} | {ranks:.4f} ({spread:.4f}) | {targets:.4f} | {covered} |")


class Known:
    """What a regressor predicts for some mixtures, asked once for all draws."""

    def __init__(self, regressor: Any, weights_ND: np.ndarray) -> None:
        means_NM, stds_NM = predict_with_std(regressor, weights_ND)
        keys = [row.tobytes() for row in weights_ND]
        self.known = dict(zip(keys, zip(means_NM, stds_NM, strict=True), strict=True))

    def predict(self, weights_ND: np.ndarray, return_std: bool = False) -> Any:
        """Look the mixtures up."""
        found = [self.known[row.tobytes()] for row in weights_ND]
        means_NM, stds_NM = (np.stack(part) for part in zip(*found, strict=True))
        return (means_NM, stds_NM) if return_std else means_NM


def published(folder: Path, name: str) -> Trials:
    """Read one of RegMix's pairs of tables."""
    return Trials.from_csv(folder / f"{name}_mixture.csv", folder / f"{name}_loss.csv")


def scored(fit: Fit, runs: Trials, count: int, draw: int) -> Iterator[list[float]]:
    """Yield ranks and coverage of each kind of correction, on the runs that are no pilots."""
    order_N = np.random.default_rng(draw).permutation(len(runs))
    pilots, unseen = some(runs, order_N[:count]), some(runs, order_N[count:])
    carried = fit.with_pilots(pilots)
    given = carried.pilots
    assert given is not None
    lines = replace(given.correction, ratio=0.0)
    for correction in (None, lines, lines.likely()):
        one = (
            fit
            if correction is None
            else replace(carried, pilots=replace(given, correction=correction))
        )
        yield score(one, unseen)


def score(fit: Fit, unseen: Trials) -> list[float]:
    """Return rank correlation of the mean, mean of those of the losses, and both coverages."""
    predicted, observed_NM = fit.predict(unseen.weights()), unseen.losses()
    observed_N = fit.objective.value(observed_NM)
    inside_N = (predicted.objective_low_N <= observed_N) & (
        observed_N <= predicted.objective_high_N
    )
    inside_NM = (predicted.low_NM <= observed_NM) & (observed_NM <= predicted.high_NM)
    pairs = zip(predicted.losses_NM.T, observed_NM.T, strict=True)
    ranks = [spearman(mine_N, theirs_N) or 0.0 for mine_N, theirs_N in pairs]
    together = spearman(predicted.objective_N, observed_N) or 0.0
    return [together, float(np.mean(ranks)), float(inside_N.mean()), float(inside_NM.mean())]


def some(runs: Trials, rows: np.ndarray) -> Trials:
    """Return some of the runs."""
    return Trials(runs.table[rows.tolist()], runs.domains, runs.targets)


if __name__ == "__main__":
    main()
