"""Held-out trials: rank correlations, trivial controls, and the noise ceiling.

Controls that a regressor must beat, each predicted from the other folds:

- own_share: the domain's own share. The loss of a training domain is ranked by minus its share;
  another target by the single domain whose share ranks it best. The prediction is a line in the
  square root of the share, because losses are steep near a share of 0.
- from_uniform: total variation from the uniform mixture; farther is worse.
- nearest_trial: the losses of the nearest mixture in total variation.
- mean: the mean of the other folds; ranks nothing.

The ceiling (`replicates`) is the spread of trials of one mixture under several seeds, and the
simulated rank correlation of a predictor of the true losses under that noise. Trials of several
sizes are ranked within a size, and have no ceiling.

Shapes: N trials, D domains, M evaluation domains, Q columns: the objective and these, R simulated
repeats.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from mixopt.fitting.fit_data import FitData
from mixopt.fitting.regressor import splits
from mixopt.mixture import pairwise_total_variation
from mixopt.objective import Objective
from mixopt.system import Array, BoolArray, IntArray, first_few
from mixopt.trials import Noise


def spearman(predicted_N: ArrayLike, observed_N: ArrayLike) -> float | None:
    """Return the correlation of ranks, ties averaged; None where one side is constant."""
    sides = [np.asarray(side, float)[:, None] for side in (predicted_N, observed_N)]
    if any(np.ptp(np.round(side, 12)) == 0 for side in sides):
        return None
    return float(rank_correlations(*sides)[0, 0])


LEVEL = 1.6449  # 95% quantile of the standard normal distribution


def fisher(rank: float) -> float:
    """Return Fisher's z of a correlation, whose error is nearly normal."""
    return math.atanh(min(max(rank, -1 + 1e-12), 1 - 1e-12))


def rank_error(rank: float, mixtures: int) -> float:
    """Return a rank correlation's standard error on Fisher's scale (Bonett and Wright 2000)."""
    return math.sqrt((1 + rank**2 / 2) / (mixtures - 3))


def lower_bound(rank: float, mixtures: int) -> float:
    """Return the 95% lower bound of a rank correlation over at least 4 mixtures."""
    return math.tanh(fisher(rank) - LEVEL * rank_error(rank, mixtures))


def rank_correlations(left_ND: Array, right_NM: Array) -> Array:
    """Return `spearman` of each column with each column, shape (D, M); 0 where one is constant."""
    from scipy.stats import rankdata

    sides = []
    for values in (left_ND, right_NM):
        ranks = rankdata(np.round(values, 12), axis=0)
        ranks = ranks - ranks.mean(axis=0)
        length = np.sqrt((ranks**2).sum(axis=0))
        sides.append(ranks / np.where(length > 0, length, 1.0))
    return np.asarray(sides[0].T @ sides[1])


RESAMPLES = 200
BETTER = 0.5  # share of resamples above which a regressor adds something


def share_better(ours_NQ: Array, theirs_NQ: Array, observed_NQ: Array, seed: int) -> Array:
    """Return the share of resamples in which our scores rank better, for each column."""
    rng, wins_Q = np.random.default_rng(seed), np.zeros(observed_NQ.shape[1])
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(observed_NQ), len(observed_NQ))
        ours_Q, theirs_Q = (
            np.diag(rank_correlations(scores_NQ[rows], observed_NQ[rows]))
            for scores_NQ in (ours_NQ, theirs_NQ)
        )
        wins_Q += ours_Q > theirs_Q
    return wins_Q / RESAMPLES


def spearman_within(
    predicted_N: ArrayLike, observed_N: ArrayLike, group_N: IntArray
) -> float | None:
    """Return the mean of `spearman` over groups, weighted by rows; None if no group has one."""
    predicted, observed = np.asarray(predicted_N), np.asarray(observed_N)
    masks = [group_N == group for group in np.unique(group_N)]
    pairs = [(spearman(predicted[rows], observed[rows]), int(rows.sum())) for rows in masks]
    ranked = [(rank, count) for rank, count in pairs if rank is not None]
    ranks, counts = [rank for rank, _ in ranked], [count for _, count in ranked]
    return float(np.average(ranks, weights=counts)) if ranked else None


def rmse(predicted_N: ArrayLike, observed_N: ArrayLike) -> float:
    """Return the root mean squared error."""
    return float(np.sqrt((np.subtract(predicted_N, observed_N) ** 2).mean()))


OBJECTIVE = "(objective)"


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


def held_out_table(predictors: Sequence[HeldOutPredictions], data: FitData) -> pl.DataFrame:
    """Return a table with a row for each predictor, target and trial; metrics as in the trials."""
    names, trials = (OBJECTIVE, *data.trials.targets), data.trials.table["trial"].to_list()
    observed_NQ = _as_shown(data.objective, data.observed_NQ)
    frames = []
    for predictor in predictors:
        stds_NM = np.zeros_like(data.losses_NM) if predictor.stds_NM is None else predictor.stds_NM
        stds_NQ = np.column_stack([data.objective.spread(stds_NM), stds_NM])
        columns = {
            "predictor": [predictor.name] * stds_NQ.size,
            "target": [name for name in names for _ in trials],
            "trial": trials * len(names),
            "fold": np.tile(data.fold_N, len(names)),
            "observed": observed_NQ.T.ravel(),
            "predicted": _as_shown(data.objective, predictor.predicted_NQ).T.ravel(),
            "std": stds_NQ.T.ravel(),
        }
        frames.append(pl.DataFrame(columns))
    return pl.concat(frames)


def _as_shown(objective: Objective, values_NQ: Array) -> Array:
    """Return the objective and the losses with metrics turned back."""
    values_N = objective.turned_value(values_NQ[:, 0])
    return np.column_stack([values_N, objective.turned(values_NQ[:, 1:])])


def controls(
    weights_ND: Array,
    losses_NM: Array,
    fold_N: IntArray,
    domains: tuple[str, ...],
    objective: Objective,
) -> list[HeldOutPredictions]:
    """Return all controls, predicted for held-out folds."""
    roots_ND, targets = np.sqrt(weights_ND), objective.evaluation
    uniform_1D = np.full((1, weights_ND.shape[1]), 1.0 / weights_ND.shape[1])
    far_N1 = pairwise_total_variation(weights_ND, uniform_1D)
    share_NM, far_NM, near_NM, mean_NM = losses_4NM = np.empty((4, *losses_NM.shape))
    for train_N, out_N in splits(fold_N):
        best_M = np.abs(rank_correlations(weights_ND[train_N], losses_NM[train_N])).argmax(axis=0)
        columns = [
            domains.index(n) if n in domains else b for n, b in zip(targets, best_M, strict=True)
        ]
        share_NM[out_N] = _lines(roots_ND[:, columns], losses_NM, train_N, out_N)
        far_NM[out_N] = _lines(far_N1, losses_NM, train_N, out_N)
        distance_NK = pairwise_total_variation(weights_ND[out_N], weights_ND[train_N])
        near_NM[out_N] = losses_NM[train_N][np.argmin(distance_NK, axis=1)]
        mean_NM[out_N] = losses_NM[train_N].mean(axis=0)
    share_NQ, far_NQ, near_NQ, mean_NQ = (with_objective(objective, x_NM) for x_NM in losses_4NM)
    ranks_NQ = share_NQ.copy()
    for column, target in enumerate(targets):
        if target in domains:
            shares_N = weights_ND[:, domains.index(target)]
            ranks_NQ[:, 1 + column] = -shares_N
    if objective.kind == "target":
        ranks_NQ[:, 0] = ranks_NQ[:, 1 + objective.columns[0]]
    by_name = {
        "own_share": (share_NQ, ranks_NQ),
        "from_uniform": (far_NQ, np.tile(far_N1, (1, far_NQ.shape[1]))),
        "nearest_trial": (near_NQ, near_NQ),
        "mean": (mean_NQ, None),
    }
    return [HeldOutPredictions(name, "control", *scores) for name, scores in by_name.items()]


def _lines(columns_NM: Array, losses_NM: Array, train_N: BoolArray, out_N: BoolArray) -> Array:
    """Fit a straight line for each loss to the training rows; return it at the others."""
    mean_M, level_M = columns_NM[train_N].mean(axis=0), losses_NM[train_N].mean(axis=0)
    deviations_NM = columns_NM - mean_M
    squares_M = (deviations_NM[train_N] ** 2).sum(axis=0)
    products_M = (deviations_NM[train_N] * (losses_NM[train_N] - level_M)).sum(axis=0)
    slopes_M = products_M / np.where(squares_M > 0, squares_M, np.inf)
    line: Array = level_M + slopes_M * deviations_NM[out_N]
    return line


REPEATS = 200


def best_spearman(values_N: Array, spread: float, seed: int) -> float | None:
    """Return the mean rank correlation of a perfect predictor under noise."""
    signal = 1.0 - spread**2 / max(float(values_N.var()), 1e-300)
    if signal <= 0:
        return None
    truth_N = values_N.mean() + np.sqrt(signal) * (values_N - values_N.mean())
    noise_RN = np.random.default_rng(seed).normal(0.0, spread, (REPEATS, len(values_N)))
    ranks = [spearman(truth_N, truth_N + noise_N) for noise_N in noise_RN]
    return float(np.mean([value for value in ranks if value is not None]))


CEILING = "replicates"
SCHEMA: dict[str, Any] = {
    "predictor": pl.String,
    "kind": pl.String,
    "target": pl.String,
    "spearman": pl.Float64,
    "rmse": pl.Float64,
}


def report_table(predictors: Sequence[HeldOutPredictions], data: FitData) -> pl.DataFrame:
    """Return the table of regressors, controls and ceiling; trials are ranked within their size."""
    names = (OBJECTIVE, *data.objective.evaluation)
    rows: list[tuple[str, str, str, float | None, float]] = []
    for predictor in predictors:
        for q, name in enumerate(names):
            observed_N, rank = data.observed_NQ[:, q], None
            if predictor.ranks_NQ is not None:
                rank = spearman_within(predictor.ranks_NQ[:, q], observed_N, data.sizes.group_N)
            error = rmse(predictor.predicted_NQ[:, q], observed_N)
            rows.append((predictor.name, predictor.kind, name, rank, error))
    noise = Noise.within(data.mixtures, data.observed_NQ, names)
    if noise.freedom and data.sizes.count == 1:
        for observed_N, (name, std) in zip(data.observed_NQ.T, noise.by_name.items(), strict=True):
            best = best_spearman(observed_N, std, data.seed)
            rows.append((CEILING, "ceiling", name, best, std))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


MIN_IDENTIFIED = 0.9  # part of a share's variation above which a domain counts as measured
MAX_NAMED = 6  # domains named in a line


def thin_evidence(weights_ND: Array, domains: Sequence[str]) -> str | None:
    """Return a line on what trials of fewer mixtures than domains can tell; None for enough.

    A domain is measured if the trials identify the effect of its share apart from all others.
    """
    different_KD = np.unique(weights_ND.round(4), axis=0)
    count = len(domains)
    if len(different_KD) >= count:
        return None
    centred_KD = different_KD - different_KD.mean(axis=0)
    contrasts_DD = (count * np.eye(count) - 1.0) / np.sqrt(count * (count - 1.0))
    identified_D = ((contrasts_DD @ np.linalg.pinv(centred_KD) @ centred_KD) ** 2).sum(axis=1)
    separable = [
        name for name, part in zip(domains, identified_D, strict=True) if part >= MIN_IDENTIFIED
    ]
    measured = f"{first_few(separable, MAX_NAMED)} alone" if separable else "no domain alone"
    return (
        f"{len(different_KD)} mixtures cannot tell {count} domains apart: they measure"
        f" {measured}, and the rest is what domains usually do for their own losses"
    )
