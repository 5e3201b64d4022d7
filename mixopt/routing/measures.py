"""Measures of assignment counts, as formulas.

The maximum violation is that of Wang et al. 2024, "Auxiliary-loss-free load balancing".
Specialisation is the mutual information of expert and domain, which is also the Jensen-Shannon
divergence of the domains' profiles. From few sequences it is overestimated, by far more than a
correction by tokens suggests, because the tokens of a sequence are correlated. So it is measured on
all sequences and on two halves, and the increase by halving is subtracted.

Shapes: D domains, E experts, H = 2 halves.
"""

import numpy as np
from numpy.typing import NDArray

from mixopt.system import Array, BoolArray, IntArray

DEAD = 0.01  # relative to the even load
CAPACITY = 1.25  # of an expert, relative to the even load
STARVED = 0.1  # relative to the even load of a domain's tokens


def load_shares(counts_E: IntArray) -> Array:
    """Return each expert's share of assignments; NaN without any."""
    return _divided(counts_E, counts_E.sum())


def entropy(shares_E: Array) -> float:
    """Return the normalised entropy of shares: 1 is even, 0 is a single expert."""
    if len(shares_E) == 1:
        return 1.0
    positive = shares_E[shares_E > 0]
    return float(-(positive * np.log(positive)).sum() / np.log(len(shares_E)))


def effective(shares_E: Array) -> float:
    """Return the effective number of experts, exp(entropy), relative to their number."""
    return float(len(shares_E) ** (entropy(shares_E) - 1))


def max_load(shares_E: Array) -> float:
    """Return the busiest expert's load relative to even: 1 is even."""
    return float(shares_E.max() * len(shares_E))


def overflow(shares_E: Array) -> float:
    """Return the share of assignments beyond the capacity."""
    return float(np.maximum(shares_E - CAPACITY / len(shares_E), 0).sum())


def dead(shares_E: Array, below: float = DEAD) -> BoolArray:
    """Return which experts have less than a part `below` of the even load."""
    return np.asarray(shares_E * shares_E.shape[-1] < below)


def collapsed(chosen_E: Array, top_k: float) -> BoolArray:
    """Return which experts the router has collapsed onto."""
    return np.asarray(chosen_E > (top_k / len(chosen_E) + 1) / 2)


def hot(shares_E: Array, min_load: float, chance: float) -> BoolArray:
    """Return the experts that are busier than the spread of the others explains."""
    from scipy.special import bdtrc, ndtri, stdtr  # imports faster than scipy.stats

    count = len(shares_E)
    load_E = shares_E * count
    top = -(-count // 8)
    if count - top < 3:
        return np.zeros(count, bool)
    falling_E = np.sort(load_E)[::-1]
    root_E = falling_E ** (1 / 6)
    z = ndtri(1 - top / count)
    cut = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) / (1 - top / count)
    low = root_E[top:]
    spread = max(np.sqrt(low.var(ddof=1) / (1 - z * cut - cut * cut)), 1e-9)
    beyond = (root_E[:top] - low.mean() - cut * spread) / spread
    as_many = bdtrc(np.arange(top), count, stdtr(count - top - 1, -beyond))
    hot_places = np.flatnonzero((as_many < chance) & (falling_E[:top] >= min_load))
    if not len(hot_places):
        return np.zeros(count, bool)
    return np.asarray(load_E >= falling_E[hot_places[-1]])


def separation(counts_HDE: IntArray) -> Array:
    """Return the distance of each domain's profile from that of the other domains together."""
    profile_HDE = np.stack([expert_profiles(counts_DE) for counts_DE in counts_HDE])
    rest_counts_HDE = counts_HDE.sum(1, keepdims=True) - counts_HDE
    rest_HDE = np.stack([expert_profiles(counts_DE) for counts_DE in rest_counts_HDE])
    difference_HDE = profile_HDE - rest_HDE
    mean_DE = (profile_HDE + rest_HDE).mean(0)
    part_DE = _divided(difference_HDE.prod(0), np.where(mean_DE == 0, 1, mean_DE))
    return np.asarray(np.sqrt(np.maximum(part_DE.sum(1) / 2, 0)))


def expert_profiles(counts_DE: IntArray | Array) -> Array:
    """Return each domain's distribution over experts; NaN for a domain without assignments."""
    return _divided(counts_DE, counts_DE.sum(1, keepdims=True))


def lift(counts_DE: IntArray) -> Array:
    """Return each expert's share of a domain relative to its share of all domains."""
    return _divided(expert_profiles(counts_DE), load_shares(counts_DE.sum(0)))


def mutual_information(profile_DE: Array, shares_D: Array) -> Array:
    """Return the mutual information of expert and domain in nats; 0 without specialisation."""
    is_present_D = shares_D > 0
    profile_DE = profile_DE[..., is_present_D, :]
    shares_D1 = shares_D[is_present_D, None]
    mean_E = (shares_D1 * profile_DE).sum(-2)
    within = (shares_D1 * _plogp(profile_DE)).sum((-1, -2))
    return np.asarray(within - _plogp(mean_E).sum(-1))


def corrected_information(counts_HDE: IntArray, shares_D: Array) -> tuple[float, float]:
    """Return the bias-corrected mutual information of expert and domain, and its maximum."""
    is_counted_D = (counts_HDE.sum(-1) > 0).all(0)
    if is_counted_D.sum() < 2:
        return float("nan"), float("nan")
    shares_D = np.where(is_counted_D, shares_D, 0) / shares_D[is_counted_D].sum()
    halves = [mutual_information(expert_profiles(half_DE), shares_D) for half_DE in counts_HDE]
    full = mutual_information(expert_profiles(counts_HDE.sum(0)), shares_D)
    return float(2 * full - np.mean(halves)), float(-_plogp(shares_D).sum())


def profile_distances(profile_DE: Array) -> Array:
    """Return the Jensen-Shannon distance between domains, 0 to 1, shape (D, D)."""
    first_P, second_P = np.triu_indices(len(profile_DE), 1)
    plogp_D = _plogp(profile_DE).sum(-1)
    middle_P = _plogp((profile_DE[first_P] + profile_DE[second_P]) / 2).sum(-1)
    divergence_DD = np.diag(plogp_D * 0)
    divergence_P = (plogp_D[first_P] + plogp_D[second_P]) / 2 - middle_P
    divergence_DD[first_P, second_P] = divergence_P
    divergence_DD[second_P, first_P] = divergence_P
    return np.asarray(np.sqrt(np.maximum(divergence_DD, 0) / np.log(2)))


def _plogp(shares: Array) -> Array:
    return np.asarray(shares * np.log(np.where(shares > 0, shares, 1)))


def _divided(dividend: NDArray[np.number], divisor: NDArray[np.number] | np.number) -> Array:
    divisor = np.asarray(divisor, float)
    empty = np.full(np.broadcast(dividend, divisor).shape, np.nan)
    return np.asarray(np.divide(dividend, divisor, out=empty, where=divisor != 0), float)
