"""Objectives that trials can rank: held-out correlation before and after, on published tables.

    OMP_NUM_THREADS=1 python experiments/published/objectives.py W.csv L.csv --trials 64 --splits 5

A fit sees some of the runs and offers objectives (mixopt.fitting.factors), chosen on these alone.
All other runs are predicted: the rank correlation of each objective with itself, and with the mean
that the fit began with.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from published_data import some

from mixopt.fitting import readiness, spearman
from mixopt.trials import Trials


def main() -> None:
    """Print the mean over splits for each objective."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mixtures", type=Path)
    parser.add_argument("losses", type=Path)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--regressor", default="auto")
    parser.add_argument("--higher", action="store_true", help="higher is better in all columns")
    options = parser.parse_args()
    table = Trials.from_csv(options.mixtures, options.losses)
    direction = dict.fromkeys(table.targets, "higher") if options.higher else {}
    scores = defaultdict(list)
    for split in range(options.splits):
        order = np.random.RandomState(split).permutation(len(table))
        known, unseen = some(table, order[: options.trials]), some(table, order[options.trials :])
        fit = known.fit(regressors=[options.regressor], direction=direction)
        predicted_NM = fit.predict_turned(unseen.weights()).losses_NM
        seen_NM = fit.objective.losses(unseen.with_targets(fit.targets))
        now_N = fit.objective.value(seen_NM)
        for offer in readiness(fit).offers:
            predicted_N = offer.objective.value(predicted_NM)
            itself = spearman(predicted_N, offer.objective.value(seen_NM)) or 0.0
            row = [offer.spearman or 0.0, itself, spearman(predicted_N, now_N) or 0.0]
            scores[offer.name].append(row)
    print("| objective | held-out folds say | unseen runs: itself | the mean |\n|---|---|---|---|")
    for name, rows in scores.items():
        cells = " | ".join(f"{mean:.3f}" for mean in np.mean(rows, axis=0))
        print(f"| {name} | {cells} |")


if __name__ == "__main__":
    main()
