"""The noise of a trial: its standard deviation about the expected loss of its mixture.

Trials of one mixture and size with several seeds are replicates: they differ by initial weights and
order of data only, so that their pooled variance within mixtures is the noise. Without replicates
there may be an upper bound: the binomial error of a share of right answers, from its number of
questions, or the error on held-out trials.

Shapes: N trials, M losses, K different mixtures (of each size).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from mixopt.system import Array, IntArray

if TYPE_CHECKING:
    from mixopt.trials.table import Trials

NoiseSource = Literal["replicates", "questions", "held-out error", "unknown"]


@dataclass(frozen=True, eq=False)
class Noise:
    """The noise of a trial on each loss.

    Attributes:
        names: The losses.
        variances_M: Variance of each about its mixture's expected value, shape (M,); nan where it
            is unknown. It is an upper bound unless it comes from replicates.
        sources: Where each variance comes from.
        trials: Number of replicates: trials of mixtures that were trained several times.
        mixtures: Number of such mixtures.
    """

    names: tuple[str, ...]
    variances_M: Array
    sources: tuple[NoiseSource, ...]
    trials: int
    mixtures: int

    @classmethod
    def within(cls, groups: Sequence[Hashable], values_NM: Array, names: Sequence[str]) -> Noise:
        """Return the noise of replicates: the pooled variance within groups of trials.

        Args:
            groups: The mixture (and size) of each trial.
            values_NM: Losses, shape (N, M).
            names: Names of the losses.
        """
        group_N = numbered(groups)
        counts_K = np.bincount(group_N)
        repeated_K = counts_K[counts_K > 1]
        trials = int(repeated_K.sum())
        mixtures = len(repeated_K)
        freedom = trials - mixtures
        if freedom:
            deviations_NM = values_NM - group_means(values_NM, group_N)
            variances_M = (deviations_NM**2).sum(axis=0) / freedom
            source: NoiseSource = "replicates"
        else:
            variances_M = np.full(values_NM.shape[1], np.nan)
            source = "unknown"
        return cls(tuple(names), variances_M, (source,) * len(names), trials, mixtures)

    @classmethod
    def of_trials(cls, trials: Trials, values_NM: Array, names: Sequence[str]) -> Noise:
        """Return the noise of replicates among trials, separately for each model size."""
        return cls.within(mixtures_and_sizes(trials), values_NM, names)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the variances; 0 without replicates."""
        return self.trials - self.mixtures

    @property
    def stds_M(self) -> Array:
        """Standard deviations, shape (M,); nan where unknown."""
        return np.sqrt(self.variances_M)

    @property
    def by_name(self) -> dict[str, float]:
        """Standard deviation of each loss whose noise is known."""
        stds = zip(self.names, self.stds_M.tolist(), strict=True)
        return {name: std for name, std in stds if np.isfinite(std)}

    def bounded(self, stds_M: Array, source: NoiseSource) -> Noise:
        """Return the noise with an upper bound where there are no replicates.

        Args:
            stds_M: The bound of each loss; nan for none. It replaces a larger bound.
            source: Where it comes from.
        """
        if self.freedom:
            return self
        bounds_M = np.square(stds_M)
        is_lower_M = bounds_M < np.nan_to_num(self.variances_M, nan=np.inf)
        variances_M = np.where(is_lower_M, bounds_M, self.variances_M)
        sources = list(self.sources)
        for column in np.flatnonzero(is_lower_M).tolist():
            sources[column] = source
        return replace(self, variances_M=variances_M, sources=tuple(sources))

    def describe(self) -> str:
        """Return the number of replicates as text."""
        if not self.trials:
            return "no mixture was trained twice, so the noise of a trial is not known"
        mixtures = "one mixture" if self.mixtures == 1 else f"{self.mixtures} mixtures"
        return f"noise from {self.trials} trials of {mixtures}"


def pooled_std(groups: Sequence[Hashable], values_N: Array) -> float | None:
    """Return the standard deviation of one value within groups of trials; None without any."""
    noise = Noise.within(groups, values_N[:, None], ["value"])
    return noise.by_name.get("value")


def mixtures_and_sizes(trials: Trials) -> list[tuple[str, tuple[int, int]]]:
    """Return the mixture and the model size of each trial; replicates have the same ones."""
    return list(zip(trials.mixtures, model_sizes(trials), strict=True))


def model_sizes(trials: Trials) -> list[tuple[int, int]]:
    """Return parameters and tokens of each trial; the same for all if nearly all sizes differ."""
    sizes = trials.table.select("parameters", "tokens").rows()
    if len(set(sizes)) > max(len(sizes) // 2, 1):
        return [(0, 0)] * len(sizes)
    return sizes


def numbered(values: Sequence[Hashable]) -> IntArray:
    """Number different values in the order of their first appearance, shape (N,)."""
    number_of = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return np.array([number_of[value] for value in values])


def group_means(values_NM: Array, group_N: IntArray) -> Array:
    """Return the mean of each row's group, shape (N, M)."""
    counts_K = np.bincount(group_N)
    sums_KM = np.zeros((len(counts_K), values_NM.shape[1]))
    np.add.at(sums_KM, group_N, values_NM)
    means_KM = sums_KM / counts_K[:, None]
    return np.asarray(means_KM[group_N])
