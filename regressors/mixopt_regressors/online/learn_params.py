"""The parameters of Aioli's mixing law, from sweeps over smoothed one-hot mixtures.

The law says that under a mixture p the loss of evaluation domain m falls by sum_d A_md p_d. A sweep
trains some steps on a mixture that is mostly one domain and measures how far every loss fell; with
one sweep or more for each domain, A is what solves P A' = drops (github.com/HazyResearch/aioli).

Repeated sweeps are solved together, in the least-squares sense. Where a domain's rows are equal, as
from nominal mixtures, that is the published k x k solve of their mean.

Shapes: K sweeps, D domains, M evaluation domains.
"""

from __future__ import annotations

import numpy as np

from mixopt.system import Array


def smoothed_one_hot(domain: int, domains: int, share: float) -> Array:
    """Return the mixture of a sweep, shape (D,): `share` of one domain, the rest evenly split."""
    weights_D = np.full(domains, (1.0 - share) / (domains - 1))
    weights_D[domain] = share
    return weights_D


def solve_law(mixtures_KD: Array, drops_KM: Array) -> Array:
    """Return A, shape (M, D), of the law that the sweeps follow.

    Args:
        mixtures_KD: What each sweep trained on.
        drops_KM: How far each loss fell during it, nats.
    """
    matrix_DM = np.linalg.lstsq(mixtures_KD, drops_KM, rcond=None)[0]
    return np.asarray(matrix_DM.T, np.float64)


def solve_diagonal(mixtures_KD: Array, drops_KM: Array, swept_K: list[int]) -> Array:
    """Return A, shape (D, D), when no domain is taken to help another.

    Args:
        mixtures_KD: What each sweep trained on.
        drops_KM: How far each loss fell during it; M = D, of the domains in order.
        swept_K: The domain of each sweep.
    """
    domains = mixtures_KD.shape[1]
    own_K = drops_KM[range(len(swept_K)), swept_K] / mixtures_KD[range(len(swept_K)), swept_K]
    sums_D = np.bincount(swept_K, own_K, minlength=domains)
    return np.diag(sums_D / np.bincount(swept_K, minlength=domains))


def column_sums(matrix_MD: Array, objective_M: Array) -> Array:
    """Return how much each domain is worth for the objective, shape (D,), adding up to 1.

    Each row is weighted with its share of the objective; rows that do not count are left out. With
    equal shares these are the column sums of the published normalised A, for a single target
    the row that the paper has for it.
    """
    counts_M = objective_M > 0
    worth_MD = objective_M[counts_M, None] * matrix_MD[counts_M]
    worth_MD = worth_MD - min(worth_MD.min(), 0.0)
    total = worth_MD.sum()
    domains = matrix_MD.shape[1]
    if total <= 0.0:  # no loss moved
        return np.full(domains, 1.0 / domains)
    sums_D: Array = worth_MD.sum(axis=0) / total
    return sums_D
