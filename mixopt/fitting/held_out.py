"""Predictions for held-out trials: of regressors, of controls without a law, and the noise ceiling.

Controls that a regressor must beat, each predicted from the other folds alone:

- own_share: the domain's own share. For a training domain's loss the ranking is by minus that
  share; for a target that is not trained on, it is the single domain whose share ranks the losses
  best. The prediction is a line in the square root of the share, because losses fall steeply where
  a share is near 0.
- from_uniform: total variation from the uniform mixture, farther being worse.
- nearest_trial: the losses of the nearest mixture, in total variation.
- mean: the mean of the other folds; it ranks nothing.

The ceiling (`replicates`) is the spread of trials of one mixture under several seeds, and the rank
correlation that a predictor of the true losses would reach under that noise, which is simulated.
Trials of several sizes are ranked within each, and have no ceiling.

Shapes: N trials, D domains, M evaluation domains, R simulated repeats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mixopt.fitting.cross_validation import (
    rank_correlations,
    rmse,
    spearman,
    spearman_within,
    splits,
)
from mixopt.fitting.fit_data import FitData
from mixopt.mixture import pairwise_total_variation
from mixopt.objective import Objective
from mixopt.system import Array, IntArray

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
    """Predictions for held-out folds, and the scores to rank by where those are others."""

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
    """Return a row for each predictor, target and trial."""
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


def controls(
    weights_ND: Array,
    losses_NM: Array,
    fold_N: IntArray,
    domains: tuple[str, ...],
    objective: Objective,
) -> list[HeldOutPredictions]:
    """Return all controls, predicted for held-out folds."""
    nearest_NM, mean_NM = np.empty_like(losses_NM), np.empty_like(losses_NM)
    for train_N, out_N in splits(fold_N):
        apart_NK = pairwise_total_variation(weights_ND[out_N], weights_ND[train_N])
        near = np.argmin(apart_NK, axis=1)
        nearest_NM[out_N] = losses_NM[train_N][near]
        mean_NM[out_N] = losses_NM[train_N].mean(axis=0)
    return [
        _own_share(weights_ND, losses_NM, fold_N, domains, objective),
        _from_uniform(weights_ND, losses_NM, fold_N, objective),
        held_out("nearest_trial", nearest_NM, objective, "control"),
        HeldOutPredictions("mean", "control", mean_NM, objective.value(mean_NM), None, None),
    ]


def _own_share(
    weights_ND: Array,
    losses_NM: Array,
    fold_N: IntArray,
    domains: tuple[str, ...],
    objective: Objective,
) -> HeldOutPredictions:
    predicted_NM = np.empty_like(losses_NM)
    roots_ND = np.sqrt(weights_ND)
    for train_N, out_N in splits(fold_N):
        strength_DM = np.abs(rank_correlations(weights_ND[train_N], losses_NM[train_N]))
        for column, target in enumerate(objective.evaluation):
            best = int(np.argmax(strength_DM[:, column]))
            root_N = roots_ND[:, domains.index(target) if target in domains else best]
            losses_N = losses_NM[train_N, column]
            predicted_NM[out_N, column] = _line(root_N[train_N], losses_N, root_N[out_N])
    ranks_NM = predicted_NM.copy()
    for column, target in enumerate(objective.evaluation):
        if target in domains:
            own_N = weights_ND[:, domains.index(target)]
            ranks_NM[:, column] = -objective.signs[column] * own_N
    objective_N = objective.value(predicted_NM)
    only = objective.columns[0] if objective.kind == "target" else None
    ranks_N = objective_N if only is None else objective.signs[only] * ranks_NM[:, only]
    return HeldOutPredictions("own_share", "control", predicted_NM, objective_N, ranks_NM, ranks_N)


def _from_uniform(
    weights_ND: Array, losses_NM: Array, fold_N: IntArray, objective: Objective
) -> HeldOutPredictions:
    domains = weights_ND.shape[1]
    uniform_1D = np.full((1, domains), 1.0 / domains)
    distance_N = pairwise_total_variation(weights_ND, uniform_1D)[:, 0]
    predicted_NM = np.empty_like(losses_NM)
    for train_N, out_N in splits(fold_N):
        for column, losses_N in enumerate(losses_NM[train_N].T):
            predicted_NM[out_N, column] = _line(distance_N[train_N], losses_N, distance_N[out_N])
    ranks_NM = distance_N[:, None] * objective.signs
    objective_N = objective.value(predicted_NM)
    return HeldOutPredictions(
        "from_uniform", "control", predicted_NM, objective_N, ranks_NM, distance_N
    )


def _line(x_N: Array, y_N: Array, at_N: Array) -> Array:
    """Fit a straight line to the training rows and return it at others."""
    variance = float(x_N.var())
    slope = float(((x_N - x_N.mean()) * (y_N - y_N.mean())).mean()) / variance if variance else 0.0
    line: Array = y_N.mean() + slope * (at_N - x_N.mean())
    return line


REPEATS = 200


def replicate_spread(values_N: Array, mixtures: Sequence[str]) -> tuple[float, int] | None:
    """Return the pooled standard deviation within mixtures, and its degrees of freedom."""
    squares, freedom = 0.0, 0
    for mixture in dict.fromkeys(mixtures):
        own_N = values_N[[name == mixture for name in mixtures]]
        squares += float(((own_N - own_N.mean()) ** 2).sum())
        freedom += len(own_N) - 1
    return (float(np.sqrt(squares / freedom)), freedom) if freedom else None


def best_spearman(values_N: Array, spread: float, seed: int) -> float | None:
    """Return the rank correlation that a perfect predictor reaches, on average."""
    signal = 1.0 - spread**2 / max(float(values_N.var()), 1e-300)
    if signal <= 0:
        return None
    truth_N = values_N.mean() + np.sqrt(signal) * (values_N - values_N.mean())
    noise_RN = np.random.default_rng(seed).normal(0.0, spread, (REPEATS, len(values_N)))
    found = [spearman(truth_N, truth_N + noise_N) for noise_N in noise_RN]
    return float(np.mean([value for value in found if value is not None]))


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
    """Return the table of regressors, controls and ceiling."""
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


APART = 0.9  # of a share's differences, from which on trials hold it apart from others
NAMED = 6  # domains that a line names one by one


def thin_evidence(weights_ND: Array, domains: Sequence[str]) -> str | None:
    """Say what fewer mixtures than domains can tell; None where there are as many.

    A domain is measured where the trials' differences hold its share apart from all others.
    """
    different_KD = np.unique(weights_ND.round(4), axis=0)
    count = len(domains)
    if len(different_KD) >= count:
        return None
    centred_KD = different_KD - different_KD.mean(axis=0)
    contrasts_DD = (count * np.eye(count) - 1.0) / np.sqrt(count * (count - 1.0))
    seen_D = ((contrasts_DD @ np.linalg.pinv(centred_KD) @ centred_KD) ** 2).sum(axis=1)
    apart = [name for name, seen in zip(domains, seen_D, strict=True) if seen >= APART]
    more = f" and {len(apart) - NAMED} more" if len(apart) > NAMED else ""
    measured = f"{', '.join(apart[:NAMED])}{more} alone" if apart else "no domain alone"
    return (
        f"{len(different_KD)} mixtures cannot tell {count} domains apart: they measure"
        f" {measured}, and the rest is what domains usually do for their own losses"
    )
