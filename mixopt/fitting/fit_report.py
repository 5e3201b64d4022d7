"""The table of a fit: each regressor on held-out folds, beside its controls and the ceiling.

A row is one predictor and one target: `predictor`, `kind` (regressor, control, ceiling), `target`
(an evaluation domain, or `OBJECTIVE`), `spearman`, `rmse`. The ceiling's rmse is the spread of
replicates, and its spearman what a perfect predictor would reach under that noise. Trials of
several sizes are ranked within each, and have no ceiling.

Shapes: N trials, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from mixopt.fitting.cross_validation import rmse, spearman_within
from mixopt.fitting.fit_data import FitData
from mixopt.fitting.held_out_predictions import OBJECTIVE, HeldOutPredictions
from mixopt.fitting.noise_ceiling import best_spearman, replicate_spread

CEILING = "replicates"
Row = tuple[str, str, str, float | None, float]
SCHEMA: dict[str, Any] = {
    "predictor": pl.String,
    "kind": pl.String,
    "target": pl.String,
    "spearman": pl.Float64,
    "rmse": pl.Float64,
}


def report_table(predictors: Sequence[HeldOutPredictions], data: FitData) -> pl.DataFrame:
    """Return the table of regressors, controls and ceiling.

    Args:
        predictors: What each predicts for held-out folds.
        data: What was observed; its seed is that of the simulated noise of the ceiling.
    """
    rows = [row for one in predictors for row in _rows(one, data)]
    if data.sizes.count == 1:
        rows += _ceiling(data)
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def summary_line(report: pl.DataFrame, name: str) -> str:
    """Say in a line how good a regressor is on held-out folds, beside the others and the mean."""
    rows = report.filter(pl.col("target") == OBJECTIVE)
    error = dict(zip(rows["predictor"], rows["rmse"], strict=True))
    rank = dict(zip(rows["predictor"], rows["spearman"], strict=True))
    kinds = zip(rows["predictor"], rows["kind"], strict=True)
    others = [one for one, kind in kinds if kind in ("regressor", "member") and one != name]
    beaten = "".join(f"{one} {error[one]:.4f}, " for one in others)
    ranks = "none" if rank[name] is None else f"{rank[name]:.3f}"
    return (
        f"{name}: error of the objective on held-out folds {error[name]:.4f}"
        f" ({beaten}the mean {error['mean']:.4f}), Spearman {ranks}"
    )


def _rows(one: HeldOutPredictions, data: FitData) -> list[Row]:
    """Return the rows of one predictor; trials are ranked within their size."""
    size_N, ranks_NM = data.sizes.group_N, one.ranks_NM
    rank = None if one.ranks_N is None else spearman_within(one.ranks_N, data.observed_N, size_N)
    rows: list[Row] = [
        (one.name, one.kind, OBJECTIVE, rank, rmse(one.objective_N, data.observed_N))
    ]
    for column, target in enumerate(data.objective.evaluation):
        seen_N, predicted_N = data.losses_NM[:, column], one.losses_NM[:, column]
        rank = None if ranks_NM is None else spearman_within(ranks_NM[:, column], seen_N, size_N)
        rows.append((one.name, one.kind, target, rank, rmse(predicted_N, seen_N)))
    return rows


def _ceiling(data: FitData) -> list[Row]:
    """Return the rows of the noise ceiling, where mixtures were trained more than once."""
    targets = zip(data.objective.evaluation, data.losses_NM.T, strict=True)
    rows: list[Row] = []
    for target, values_N in ((OBJECTIVE, data.observed_N), *targets):
        spread = replicate_spread(values_N, data.mixtures)
        if spread is not None:
            best = best_spearman(values_N, spread[0], data.seed)
            rows.append((CEILING, "ceiling", target, best, spread[0]))
    return rows
