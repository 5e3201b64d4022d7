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

import numpy as np
import polars as pl

from mixopt.fitting.cross_validation import rmse, spearman_within
from mixopt.fitting.noise_ceiling import best_spearman, replicate_spread
from mixopt.fitting.trivial_controls import HeldOut
from mixopt.objective import Objective
from mixopt.system import Array, IntArray

OBJECTIVE = "(objective)"
CEILING = "replicates"
SCHEMA: dict[str, Any] = {
    "predictor": pl.String,
    "kind": pl.String,
    "target": pl.String,
    "spearman": pl.Float64,
    "rmse": pl.Float64,
}


def report_table(
    predictors: Sequence[HeldOut],
    losses_NM: Array,
    mixtures: Sequence[str],
    objective: Objective,
    seed: int,
    *,
    sizes: IntArray | None = None,
) -> pl.DataFrame:
    """Return the table of regressors, controls and ceiling.

    Args:
        predictors: What each predicts for held-out folds.
        losses_NM: Observed losses.
        mixtures: Fingerprint of each trial's mixture.
        objective: What is minimised.
        seed: Of the simulated noise of the ceiling.
        sizes: Number of each trial's size; one size when None.
    """
    size_N = np.zeros(len(losses_NM), dtype=np.int64) if sizes is None else sizes
    observed_N = objective.value(losses_NM)
    rows = [
        row for one in predictors for row in _rows(one, losses_NM, observed_N, objective, size_N)
    ]
    if np.ptp(size_N):
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")
    columns = {OBJECTIVE: observed_N, **dict(zip(objective.evaluation, losses_NM.T, strict=True))}
    for target, values_N in columns.items():
        spread = replicate_spread(values_N, mixtures)
        if spread is not None:
            best = best_spearman(values_N, spread[0], seed)
            rows.append((CEILING, "ceiling", target, best, spread[0]))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _rows(
    one: HeldOut, losses_NM: Array, observed_N: Array, objective: Objective, size_N: IntArray
) -> list[tuple[Any, ...]]:
    rank = None if one.ranks_N is None else spearman_within(one.ranks_N, observed_N, size_N)
    rows = [(one.name, one.kind, OBJECTIVE, rank, rmse(one.objective_N, observed_N))]
    for column, target in enumerate(objective.evaluation):
        seen_N, predicted_N = losses_NM[:, column], one.losses_NM[:, column]
        ranks_NM = one.ranks_NM
        rank = None if ranks_NM is None else spearman_within(ranks_NM[:, column], seen_N, size_N)
        rows.append((one.name, one.kind, target, rank, rmse(predicted_N, seen_N)))
    return rows
