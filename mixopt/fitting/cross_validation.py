"""Cross-validation that never has one mixture on both sides of a split, and its two figures.

Replicates (one mixture, several seeds) in training and held-out rows would make a regressor look
as good as the noise allows, so whole mixtures are held out.

Shapes: N trials, D domains, M targets.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from mixopt.fitting.regressor import Predictor, predict_with_std
from mixopt.system import Array, BoolArray, IntArray


def grouped_folds(groups: Sequence[str], folds: int, seed: int) -> IntArray:
    """Deal groups of rows to folds of about equal size."""
    sizes = Counter(groups)
    names = sorted(sizes)
    shuffled = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    rows_of_fold = [0] * folds
    fold_of: dict[str, int] = {}
    for name in sorted(shuffled, key=lambda name: -sizes[name]):
        fold_of[name] = int(np.argmin(rows_of_fold))
        rows_of_fold[fold_of[name]] += sizes[name]
    return np.array([fold_of[name] for name in groups], dtype=np.int64)


def row_groups(weights_ND: Array) -> list[str]:
    """Return a name for each mixture, the same for equal rows (to nine decimals)."""
    return [row.tobytes().hex() for row in np.round(weights_ND, 9) + 0.0]


def splits(fold_N: IntArray) -> Iterator[tuple[BoolArray, BoolArray]]:
    """Yield masks of the training and the held-out rows, shape (N,), for each fold."""
    for fold in np.unique(fold_N):
        yield fold_N != fold, fold_N == fold


def out_of_fold(
    fit: Callable[[Array, Array], Predictor], rows: Array, losses_NM: Array, fold_N: IntArray
) -> tuple[Array, Array]:
    """Predict every row by a regressor that was fitted without its fold."""
    means_NM, stds_NM = np.full(losses_NM.shape, np.nan), np.zeros(losses_NM.shape)
    for train_N, out_N in splits(fold_N):
        fitted = fit(rows[train_N], losses_NM[train_N])
        means_NM[out_N], stds_NM[out_N] = predict_with_std(fitted, rows[out_N])
    return means_NM, stds_NM


def spearman(predicted_N: ArrayLike, observed_N: ArrayLike) -> float | None:
    """Return the correlation of ranks, ties averaged; None where one side is constant."""
    from scipy.stats import rankdata

    ranks = [
        rankdata(np.round(np.asarray(v, dtype=np.float64), 12)) for v in (predicted_N, observed_N)
    ]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


LEVEL = 1.6449  # standard deviations below which 5% of a normal distribution lies


def fisher(rank: float) -> float:
    """Return the correlation on Fisher's scale, where its error is nearly normal."""
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
    return np.asarray(sides[0].T @ sides[1], dtype=np.float64)


RESAMPLES = 200
BETTER = 0.5  # of resamples; what adds something ranks better in more


def share_better(ours_NQ: Array, theirs_NQ: Array, seen_NQ: Array, seed: int) -> Array:
    """Return in which share of resampled rows our scores rank better, column by column."""
    rng, wins_Q = np.random.default_rng(seed), np.zeros(seen_NQ.shape[1])
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(seen_NQ), len(seen_NQ))
        ours_Q, theirs_Q = (
            np.diag(rank_correlations(one[rows], seen_NQ[rows])) for one in (ours_NQ, theirs_NQ)
        )
        wins_Q += ours_Q > theirs_Q
    better_Q: Array = wins_Q / RESAMPLES
    return better_Q


def spearman_within(
    predicted_N: ArrayLike, observed_N: ArrayLike, group_N: IntArray
) -> float | None:
    """Return the mean over groups of `spearman`, by their rows; None where no group has one."""
    predicted, observed = np.asarray(predicted_N), np.asarray(observed_N)
    own = [group_N == group for group in np.unique(group_N)]
    found = [(spearman(predicted[rows], observed[rows]), int(rows.sum())) for rows in own]
    known = [(rank, count) for rank, count in found if rank is not None]
    total = sum(count for _, count in known)
    return sum(rank * count for rank, count in known) / total if known else None


def rmse(predicted_N: ArrayLike, observed_N: ArrayLike) -> float:
    """Return the root of the mean squared error."""
    return float(np.sqrt((np.subtract(predicted_N, observed_N) ** 2).mean()))
