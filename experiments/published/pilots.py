"""What a few runs at the target size are worth: RegMix's 1M proxies carried to larger runs.

    OMP_NUM_THREADS=1 python experiments/published/pilots.py ../shared/data/regmix \
        > experiments/published/results_pilots.md

The fit is on the 512 published 1M runs. Pilots are drawn from the runs of one larger size, and all
others are predicted: by the fit alone, by a line for each loss, and by what `Fit.with_pilots` does,
which has a residual beside the lines. Controls: the domain's own share and the mean of the pilots
with Student's t. The objective is the mean of the 13 losses; then each loss alone. Draws are
paired: every way sees the same pilots and unseen runs.

Shapes: N runs, M losses.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from published_data import objective_of, regmix, some
from scipy.stats import t

from mixopt.config import FitConfig
from mixopt.fitting import Fit, controls, fit_trials, predict_with_std, spearman
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials import Trials

COUNTS = (1, 2, 4, 8, 16, 32)
SINGLE = (8, 16)  # pilots with which each loss alone is judged too
HEAD = "| pilots | way | Spearman (sd) | RMSE | 90% intervals hold | half-width |"
Scores = tuple[float, float, float, float]


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the published tables")
    parser.add_argument("--regressor", default="auto")
    parser.add_argument("--draws", type=int, default=20, help="sets of pilots")
    parser.add_argument("--runs", nargs="+", default=["test_60m", "test_1B"])
    options = parser.parse_args()
    trials = regmix(options.folder, "train_1m")
    objective = objective_of("mean", trials.targets)
    fit = fit_trials(trials, FitConfig(regressors=[options.regressor]), objective, 0)
    print("# Pilots\n")
    print(
        "Command: `OMP_NUM_THREADS=1 python experiments/published/pilots.py"
        " ../shared/data/regmix`.\n"
        f"{options.regressor} on {len(trials)} 1M runs, {options.draws} sets of pilots. RMSE and"
        " half-widths are in standard\ndeviations of the objective over the unseen runs.\n"
    )
    for name in options.runs:
        runs = regmix(options.folder, name)
        asked_ND = np.vstack([runs.weights(), trials.weights()])
        known = replace(fit, fitted=Known(fit.regressor, asked_ND))
        print(f"## {len(runs)} runs of {name}\n\nMean of 13 losses.\n\n{HEAD}")
        print("|---|---|---|---|---|---|", flush=True)
        for count in COUNTS:
            _print(count, [dict(_scored(known, runs, count, n)) for n in range(options.draws)])
        print(
            f"\nEach loss alone as the objective, mean of 13.\n\n{HEAD}\n|---|---|---|---|---|---|"
        )
        for count in SINGLE:
            draws = range(options.draws // 4)
            _print(count, [row for n in draws for row in _each(known, runs, count, n)])
        print()


class Known:
    """Predictions of a regressor for some mixtures, computed once for all draws."""

    def __init__(self, regressor: Any, weights_ND: np.ndarray) -> None:
        means_NM, stds_NM = predict_with_std(regressor, weights_ND)
        keys = [row.tobytes() for row in weights_ND]
        self.known = dict(zip(keys, zip(means_NM, stds_NM, strict=True), strict=True))

    def predict(self, weights_ND: np.ndarray, return_std: bool = False) -> Any:
        """Look the mixtures up."""
        pairs = [self.known[row.tobytes()] for row in weights_ND]
        means_NM, stds_NM = (np.stack(part) for part in zip(*pairs, strict=True))
        return (means_NM, stds_NM) if return_std else means_NM


def _split(runs: Trials, count: int, draw: int) -> tuple[Trials, Trials]:
    order_N = np.random.default_rng(draw).permutation(len(runs))
    return some(runs, order_N[:count]), some(runs, order_N[count:])


def _scored(fit: Fit, runs: Trials, count: int, draw: int) -> Iterator[tuple[str, Scores]]:
    """Yield the scores of each way on the runs that are not pilots."""
    pilots, unseen = _split(runs, count, draw)
    carried = fit.with_pilots(pilots)
    yield "own share", _own_share(fit, unseen)
    if count > 1:
        yield "mean of the pilots", _pilots_mean(fit.objective, pilots, unseen)
    yield "uncorrected", (_rank(fit, unseen), np.nan, np.nan, np.nan)
    yield "lines", _lines(carried, fit.objective, unseen)
    yield "lines and residual", _carried(carried, fit.objective, unseen)


def _each(fit: Fit, runs: Trials, count: int, draw: int) -> Iterator[dict[str, Scores]]:
    """Yield the scores of lines and a residual for each loss alone."""
    pilots, unseen = _split(runs, count, draw)
    carried = fit.with_pilots(pilots)
    for name in fit.targets:
        objective = objective_of(name, fit.targets)
        yield {
            "lines": _lines(carried, objective, unseen),
            "lines and residual": _carried(carried, objective, unseen),
        }


def _carried(fit: Fit, objective: Objective, unseen: Trials) -> Scores:
    prediction = fit.predict(unseen.weights(), objective)
    halves_N = prediction.objective_high_N - prediction.objective_N
    return _score(prediction.objective_N, halves_N, objective.value(unseen.losses()))


def _lines(fit: Fit, objective: Objective, unseen: Trials) -> Scores:
    """Score the lines alone."""
    assert fit.correction is not None
    drawn, weights_ND = fit.correction.lines, unseen.weights()
    alone = replace(drawn, dual_KM=np.zeros_like(drawn.dual_KM))
    lines = replace(fit.correction, lines=alone)
    value_N = objective.value(lines.apply(np.asarray(fit.fitted.predict(weights_ND)), weights_ND))
    scores = _score(value_N, np.zeros_like(value_N), objective.value(unseen.losses()))
    return scores[0], scores[1], np.nan, np.nan


def _pilots_mean(objective: Objective, pilots: Trials, unseen: Trials) -> Scores:
    known_K, truth_N = (objective.value(table.losses()) for table in (pilots, unseen))
    count = len(known_K)
    half = t.ppf(0.95, count - 1) * known_K.std(ddof=1) * np.sqrt(1 + 1 / count)
    return _score(np.full(len(truth_N), known_K.mean()), np.full(len(truth_N), half), truth_N)


def _own_share(fit: Fit, unseen: Trials) -> Scores:
    trials, fold_N = fit.trials, np.repeat([0, 1], [len(fit.trials), len(unseen)])
    predictors = controls(
        np.vstack([trials.weights(), unseen.weights()]),
        np.vstack([trials.losses(), unseen.losses()]),
        fold_N,
        fit.domains,
        fit.objective,
    )
    ranks_NQ = next(control.ranks_NQ for control in predictors if control.name == "own_share")
    assert ranks_NQ is not None
    truth_N = fit.objective.value(unseen.losses())
    return spearman(ranks_NQ[fold_N == 1, 0], truth_N) or 0.0, np.nan, np.nan, np.nan


def _rank(fit: Fit, unseen: Trials) -> float:
    predicted_N = fit.predict(unseen.weights()).objective_N
    return spearman(predicted_N, fit.objective.value(unseen.losses())) or 0.0


def _score(value_N: Array, halves_N: Array, truth_N: Array) -> Scores:
    error_N, spread = np.abs(value_N - truth_N), float(truth_N.std())
    rank, inside = spearman(value_N, truth_N) or 0.0, float((error_N <= halves_N).mean())
    return rank, float(np.sqrt((error_N**2).mean())) / spread, inside, halves_N.mean() / spread


def _print(count: int, rows: list[dict[str, Scores]]) -> None:
    for name in rows[0]:
        scores = np.array([row[name] for row in rows])
        rank, off, inside, half = scores.mean(axis=0)
        numbers = [
            "-" if np.isnan(x) else f"{x:.{d}f}" for x, d in ((off, 3), (inside, 3), (half, 2))
        ]
        ranked = f"{rank:.4f} ({scores[:, 0].std(ddof=1):.4f})"
        print(f"| {count} | {name} | {ranked} | {' | '.join(numbers)} |", flush=True)


if __name__ == "__main__":
    main()
