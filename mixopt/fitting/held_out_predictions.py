"""Predictions for trials on held-out folds, in memory and as a table.

Shapes: N trials, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mixopt.fitting.fit_data import FitData
from mixopt.objective import Objective
from mixopt.system import Array

OBJECTIVE = "(objective)"
COLUMNS: dict[str, Any] = {
    "predictor": pl.String,
    "target": pl.String,
    "trial": pl.String,
    "observed": pl.Float64,
    "predicted": pl.Float64,
    "std": pl.Float64,
}


@dataclass(frozen=True, eq=False)
class HeldOutPredictions:
    """Predictions for held-out folds, and the scores to rank by where those are others.

    Attributes:
        name: The regressor or control.
        kind: `regressor`, `control`, or `member` of a combined regressor.
        losses_NM: Predicted losses.
        objective_N: Predicted objective.
        ranks_NM: What to rank losses by; None ranks nothing.
        ranks_N: What to rank the objective by; None ranks nothing.
        stds_NM: The regressor's own standard deviations; None where it has none.
    """

    name: str
    kind: str
    losses_NM: Array
    objective_N: Array
    ranks_NM: Array | None
    ranks_N: Array | None
    stds_NM: Array | None = None


def held_out(
    name: str,
    losses_NM: Array,
    objective: Objective,
    kind: str = "regressor",
    stds_NM: Array | None = None,
) -> HeldOutPredictions:
    """Wrap predictions that rank by themselves."""
    objective_N = objective.value(losses_NM)
    return HeldOutPredictions(name, kind, losses_NM, objective_N, losses_NM, objective_N, stds_NM)


def held_out_table(predictors: Sequence[HeldOutPredictions], data: FitData) -> pl.DataFrame:
    """Return a row for each predictor, target and trial.

    Returns:
        Columns `predictor`, `target`, `trial`, `fold`, `observed`, `predicted`, `std`; `OBJECTIVE`
        is the first target of each predictor.
    """
    observed = _columns(data, data.observed_N, data.losses_NM)
    frames = []
    for one in predictors:
        stds_NM = np.zeros_like(data.losses_NM) if one.stds_NM is None else one.stds_NM
        predicted = _columns(data, one.objective_N, one.losses_NM)
        deviations = _columns(data, data.objective.spread(stds_NM), stds_NM)
        frames += [
            pl.DataFrame(
                {
                    "trial": data.trials.table["trial"],
                    "fold": data.fold_N,
                    "observed": observed[target],
                    "predicted": predicted[target],
                    "std": deviations[target],
                }
            ).select(pl.lit(one.name).alias("predictor"), pl.lit(target).alias("target"), pl.all())
            for target in predicted
        ]
    return pl.concat(frames)


def held_out_columns(
    table: pl.DataFrame, predictor: str, targets: Sequence[str], column: str
) -> Array:
    """Return one column of `held_out_table` for one predictor, by target, shape (N, M)."""
    rows = table.filter(pl.col("predictor") == predictor)
    columns = [rows.filter(pl.col("target") == name)[column] for name in targets]
    return np.stack([one.to_numpy() for one in columns], axis=1)


def _columns(data: FitData, objective_N: Array, values_NM: Array) -> Mapping[str, Array]:
    return {OBJECTIVE: objective_N, **dict(zip(data.trials.targets, values_NM.T, strict=True))}
