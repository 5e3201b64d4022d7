"""Held-out trials: predictions of regressors and trivial controls, and the report on them.

Controls that a regressor must beat, each predicted from the other folds:

- own_share: the domain's own share. The loss of a training domain is ranked by minus its share;
  another target by the single domain whose share ranks it best. The prediction is a line in the
  square root of the share, because losses are steep near a share of 0.
- from_uniform: total variation from the uniform mixture; farther is worse.
- nearest_trial: the losses of the nearest mixture in total variation.
- mean: the mean of the other folds; ranks nothing.

The noise ceiling (`replicates` in the report) is the spread of trials of one mixture under several
seeds, and the simulated rank correlation of a predictor of the true losses under that noise
(mixopt.fitting.rank_correlation). Trials of several sizes are ranked within a size, and have no
ceiling.

Shapes: N trials, K held-out trials, D domains, M evaluation domains, Q columns: the objective and
these.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mixopt.difference import size_text
from mixopt.fitting.fit_data import FitData
from mixopt.fitting.noise_ceiling import noise_ceiling
from mixopt.fitting.rank_correlation import rank_correlations, spearman_within
from mixopt.fitting.regressor import splits
from mixopt.mixture import pairwise_total_variation
from mixopt.objective import Objective
from mixopt.system import Array, BoolArray, IntArray
from mixopt.trials import Noise

OBJECTIVE = "(objective)"
CEILING = "replicates"
REPORT_SCHEMA: dict[str, Any] = {
    "predictor": pl.String,
    "kind": pl.String,
    "target": pl.String,
    "spearman": pl.Float64,
    "rmse": pl.Float64,
}
ReportRow = tuple[str, str, str, float | None, float]


@dataclass(frozen=True, eq=False)
class HeldOutPredictions:
    """Predictions for held-out folds, the objective first, and the scores to rank by."""

    name: str
    kind: str
    predicted_NQ: Array
    ranks_NQ: Array | None
    stds_NM: Array | None = None


def with_objective(objective: Objective, losses_NM: Array) -> Array:
    """Return the objective, then the losses, shape (N, Q)."""
    return np.column_stack([objective.value(losses_NM), losses_NM])


def rmse(predicted_N: Array, observed_N: Array) -> float:
    """Return the root mean squared error."""
    return float(np.sqrt((np.subtract(predicted_N, observed_N) ** 2).mean()))


def held_out_table(predictors: Sequence[HeldOutPredictions], data: FitData) -> pl.DataFrame:
    """Return a table with a row for each predictor, target and trial; metrics as in the trials."""
    return pl.concat([_held_out_rows(predictor, data) for predictor in predictors])


def _held_out_rows(predictor: HeldOutPredictions, data: FitData) -> pl.DataFrame:
    names = (OBJECTIVE, *data.trials.targets)
    trials = data.trials.table["trial"].to_list()
    stds_NM = predictor.stds_NM
    if stds_NM is None:
        stds_NM = np.zeros_like(data.losses_NM)
    stds_NQ = np.column_stack([data.objective.spread(stds_NM), stds_NM])
    columns = {
        "predictor": [predictor.name] * stds_NQ.size,
        "target": np.repeat(names, len(trials)).tolist(),
        "trial": trials * len(names),
        "fold": np.tile(data.fold_N, len(names)),
        "observed": _as_shown(data.objective, data.observed_NQ).T.ravel(),
        "predicted": _as_shown(data.objective, predictor.predicted_NQ).T.ravel(),
        "std": stds_NQ.T.ravel(),
    }
    return pl.DataFrame(columns)


def _as_shown(objective: Objective, values_NQ: Array) -> Array:
    """Return the objective and the losses with metrics turned back."""
    values_N = objective.turned_value(values_NQ[:, 0])
    return np.column_stack([values_N, objective.turned(values_NQ[:, 1:])])


def report_table(predictors: Sequence[HeldOutPredictions], data: FitData) -> pl.DataFrame:
    """Return the table of regressors, controls and ceiling; trials are ranked within their size."""
    rows: list[ReportRow] = []
    for predictor in predictors:
        rows.extend(_report_rows(predictor, data))
    rows.extend(_ceiling_rows(data))
    return pl.DataFrame(rows, schema=REPORT_SCHEMA, orient="row")


def _report_rows(predictor: HeldOutPredictions, data: FitData) -> list[ReportRow]:
    rows: list[ReportRow] = []
    for q, name in enumerate((OBJECTIVE, *data.objective.evaluation)):
        observed_N = data.observed_NQ[:, q]
        rank = None
        if predictor.ranks_NQ is not None:
            rank = spearman_within(predictor.ranks_NQ[:, q], observed_N, data.sizes.group_N)
        error = rmse(predictor.predicted_NQ[:, q], observed_N)
        rows.append((predictor.name, predictor.kind, name, rank, error))
    return rows


def _ceiling_rows(data: FitData) -> list[ReportRow]:
    """Return the noise ceiling of each target; nothing without replicates or with several sizes."""
    names = (OBJECTIVE, *data.objective.evaluation)
    noise = Noise.within(data.mixtures, data.observed_NQ, names)
    if not noise.freedom or data.sizes.count != 1:
        return []
    rows: list[ReportRow] = []
    for observed_N, (name, std) in zip(data.observed_NQ.T, noise.by_name.items(), strict=True):
        rows.append((CEILING, "ceiling", name, noise_ceiling(observed_N, std, data.seed), std))
    return rows


def objective_scores(report: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the rows of a report on the objective, by predictor; regressors hide controls."""
    rows = report.filter(target=OBJECTIVE)
    first_rows = rows.unique("predictor", keep="first", maintain_order=True)
    return {row["predictor"]: row for row in first_rows.iter_rows(named=True)}


def accuracy_text(scores: Mapping[str, Mapping[str, Any]], name: str, unit: str) -> str:
    """Return the held-out accuracy of a regressor beside that of the others and of the mean."""
    errors = {predictor: size_text(row["rmse"], unit) for predictor, row in scores.items()}
    others = []
    for predictor, row in scores.items():
        if row["kind"] in ("regressor", "member") and predictor != name:
            others.append(f"{predictor} {errors[predictor]}")
    others.append(f"the mean {errors['mean']}")
    rank = scores[name]["spearman"]
    rank_shown = "none" if rank is None else f"{rank:.3f}"
    return (
        f"{name}: error of the objective on held-out folds {errors[name]} ({', '.join(others)}),"
        f" Spearman {rank_shown}"
    )


def controls(
    weights_ND: Array,
    losses_NM: Array,
    fold_N: IntArray,
    domains: tuple[str, ...],
    objective: Objective,
) -> list[HeldOutPredictions]:
    """Return all controls, predicted for held-out folds."""
    uniform_1D = np.full((1, len(domains)), 1.0 / len(domains))
    from_uniform_N1 = pairwise_total_variation(weights_ND, uniform_1D)
    roots_ND = np.sqrt(weights_ND)

    def own_share(train_N: BoolArray, out_N: BoolArray) -> Array:
        columns = _share_columns(weights_ND[train_N], losses_NM[train_N], domains, objective)
        return _lines(roots_ND[:, columns], losses_NM, train_N, out_N)

    def from_uniform(train_N: BoolArray, out_N: BoolArray) -> Array:
        return _lines(from_uniform_N1, losses_NM, train_N, out_N)

    def nearest_trial(train_N: BoolArray, out_N: BoolArray) -> Array:
        distance_KN = pairwise_total_variation(weights_ND[out_N], weights_ND[train_N])
        return np.asarray(losses_NM[train_N][np.argmin(distance_KN, axis=1)])

    def mean(train_N: BoolArray, _out_N: BoolArray) -> Array:
        return np.asarray(losses_NM[train_N].mean(axis=0))

    def predicted(predict: Callable[[BoolArray, BoolArray], Array]) -> Array:
        predicted_NM = np.empty(losses_NM.shape)
        for train_N, out_N in splits(fold_N):
            predicted_NM[out_N] = predict(train_N, out_N)
        return with_objective(objective, predicted_NM)

    share_NQ = predicted(own_share)
    share_ranks_NQ = _share_ranks(share_NQ, weights_ND, domains, objective)
    nearest_NQ = predicted(nearest_trial)
    far_ranks_NQ = np.tile(from_uniform_N1, (1, nearest_NQ.shape[1]))
    return [
        HeldOutPredictions("own_share", "control", share_NQ, share_ranks_NQ),
        HeldOutPredictions("from_uniform", "control", predicted(from_uniform), far_ranks_NQ),
        HeldOutPredictions("nearest_trial", "control", nearest_NQ, nearest_NQ),
        HeldOutPredictions("mean", "control", predicted(mean), None),
    ]


def _share_columns(
    weights_ND: Array, losses_NM: Array, domains: tuple[str, ...], objective: Objective
) -> list[int]:
    """Return the domain whose share predicts each loss: its own, or the one that ranks it best."""
    best_M = np.abs(rank_correlations(weights_ND, losses_NM)).argmax(axis=0)
    columns = []
    for target, best in zip(objective.evaluation, best_M.tolist(), strict=True):
        columns.append(domains.index(target) if target in domains else best)
    return columns


def _share_ranks(
    predicted_NQ: Array, weights_ND: Array, domains: tuple[str, ...], objective: Objective
) -> Array:
    """Return the scores that rank by own share: minus the share for losses of training domains."""
    ranks_NQ = predicted_NQ.copy()
    for column, target in enumerate(objective.evaluation):
        if target in domains:
            ranks_NQ[:, 1 + column] = -weights_ND[:, domains.index(target)]
    if objective.kind == "target":
        ranks_NQ[:, 0] = ranks_NQ[:, 1 + objective.columns[0]]
    return ranks_NQ


def _lines(columns_NM: Array, losses_NM: Array, train_N: BoolArray, out_N: BoolArray) -> Array:
    """Fit a straight line for each loss to the training rows; return it at the others."""
    level_M = losses_NM[train_N].mean(axis=0)
    deviations_NM = columns_NM - columns_NM[train_N].mean(axis=0)
    squares_M = (deviations_NM[train_N] ** 2).sum(axis=0)
    products_M = (deviations_NM[train_N] * (losses_NM[train_N] - level_M)).sum(axis=0)
    slopes_M = products_M / np.where(squares_M > 0, squares_M, np.inf)
    line_KM: Array = level_M + slopes_M * deviations_NM[out_N]
    return line_KM
