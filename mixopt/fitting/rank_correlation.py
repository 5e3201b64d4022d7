"""Rank correlations of predicted and observed values, and their errors.

Spearman's correlation is the measure throughout, because a search needs the order of mixtures and
not their losses. Its lower bound uses Fisher's z with the variance of Bonett and Wright (2000),
(1 + r^2 / 2) / (N - 3) for N mixtures.

Shapes: N trials, D and M columns, Q columns: the objective and the losses.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from mixopt.system import Array, IntArray

NORMAL_QUANTILE = 1.6449  # 95% quantile of the standard normal distribution
RESAMPLES = 200  # of the trials, to compare two predictors
MIN_SHARE_BETTER = 0.5  # share of resamples above which a regressor adds something
DECIMALS = 12  # to which values are compared


def spearman(predicted_N: ArrayLike, observed_N: ArrayLike) -> float | None:
    """Return the correlation of ranks, ties averaged; None where one side is constant."""
    predicted_N1 = np.asarray(predicted_N, float)[:, None]
    observed_N1 = np.asarray(observed_N, float)[:, None]
    if _is_constant(predicted_N1) or _is_constant(observed_N1):
        return None
    return float(rank_correlations(predicted_N1, observed_N1)[0, 0])


def _is_constant(values_N1: Array) -> bool:
    return bool(np.ptp(np.round(values_N1, DECIMALS)) == 0)


def rank_correlations(left_ND: Array, right_NM: Array) -> Array:
    """Return `spearman` of each column with each column, shape (D, M); 0 where one is constant."""
    return np.asarray(_unit_ranks(left_ND).T @ _unit_ranks(right_NM))


def _unit_ranks(values_NM: Array) -> Array:
    """Return the centred ranks of each column, scaled to length 1; 0 where it is constant."""
    from scipy.stats import rankdata

    ranks_NM = rankdata(np.round(values_NM, DECIMALS), axis=0)
    ranks_NM = ranks_NM - ranks_NM.mean(axis=0)
    length_M = np.sqrt((ranks_NM**2).sum(axis=0))
    return np.asarray(ranks_NM / np.where(length_M > 0, length_M, 1.0))


def spearman_within(
    predicted_N: ArrayLike, observed_N: ArrayLike, group_N: IntArray
) -> float | None:
    """Return the mean of `spearman` over groups, weighted by rows; None if no group has one."""
    predicted_N = np.asarray(predicted_N)
    observed_N = np.asarray(observed_N)
    correlations: list[float] = []
    sizes: list[int] = []
    for group in np.unique(group_N):
        is_member_N = group_N == group
        correlation = spearman(predicted_N[is_member_N], observed_N[is_member_N])
        if correlation is not None:
            correlations.append(correlation)
            sizes.append(int(is_member_N.sum()))
    return float(np.average(correlations, weights=sizes)) if correlations else None


def fisher(correlation: float) -> float:
    """Return Fisher's z of a correlation, whose error is nearly normal."""
    return math.atanh(min(max(correlation, -1 + 1e-12), 1 - 1e-12))


def fisher_error(correlation: float, mixtures: int) -> float:
    """Return a rank correlation's standard error on Fisher's scale (Bonett and Wright 2000)."""
    return math.sqrt((1 + correlation**2 / 2) / (mixtures - 3))


def lower_bound(correlation: float, mixtures: int) -> float:
    """Return the 95% lower bound of a rank correlation over at least 4 mixtures."""
    error = fisher_error(correlation, mixtures)
    return math.tanh(fisher(correlation) - NORMAL_QUANTILE * error)


def share_better(ours_NQ: Array, theirs_NQ: Array, observed_NQ: Array, seed: int) -> Array:
    """Return the share of resamples in which our scores rank better, for each column."""
    rng = np.random.default_rng(seed)
    trials, columns = observed_NQ.shape
    wins_Q = np.zeros(columns)
    for _ in range(RESAMPLES):
        rows = rng.integers(0, trials, trials)
        ours_Q = _columnwise(ours_NQ[rows], observed_NQ[rows])
        theirs_Q = _columnwise(theirs_NQ[rows], observed_NQ[rows])
        wins_Q += ours_Q > theirs_Q
    return wins_Q / RESAMPLES


def _columnwise(scores_NQ: Array, observed_NQ: Array) -> Array:
    """Return the rank correlation of each column with the same column, shape (Q,)."""
    return np.diag(rank_correlations(scores_NQ, observed_NQ))
