"""Predictions and 90% intervals for new trials, calibrated on held-out folds.

Split conformal prediction on the held-out predictions of all folds: the half width is a multiple of
the regressor's standard deviation, and the multiple is the quantile of |error| / deviation on
held-out trials. If intervals of constant width would be narrower on average, the width is constant,
and larger only where the regressor is less certain than at any held-out trial.

Beyond the reach of the trials (the largest distance of a trial to its nearest neighbour) the fit
extrapolates, and intervals are (1 + beyond / radius)^2 times as wide, where the radius is the
largest distance of a trial from the mean of all. Distances are total variations; coverage was
measured (experiments/published/intervals_beyond.py).

A prediction better than every trial is shrunk, because a search also finds lucky errors. The order
of predictions is kept, and at most half of the held-out error is taken off. In known worlds, where
proposals lie far beyond the trials, this removes a bias; held-out runs of published swarms hardly
reach so far and do not need it (experiments/published/gains.py).

Source: Lei et al., Distribution-Free Predictive Inference for Regression (2018), section 5.2;
the choice between the two widths is ours.

Shapes: N trials or mixtures, K different trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from mixopt.fitting.held_out import OBJECTIVE
from mixopt.mixture import Mixture, pairwise_total_variation
from mixopt.objective import Objective
from mixopt.system import Array, html_table, loss_text

LEVEL = 0.9
# Minimum standard deviation, as a share of the median.
MIN_DEVIATION = 0.25


@dataclass(frozen=True)
class Calibration:
    """Maps standard deviations to half widths of intervals."""

    factor: float
    floor: float
    local: bool

    def halves(self, stds_N: Array) -> Array:
        """Return the half width of each interval, shape (N,)."""
        return self.factor * (
            np.maximum(stds_N, self.floor) if self.local else np.ones(len(stds_N))
        )


def calibrate(errors_N: Array, stds_N: Array, *, local: bool = False) -> Calibration:
    """Calibrate widths to hold a share `LEVEL` of held-out errors."""
    floor = MIN_DEVIATION * float(np.median(stds_N))
    if floor <= 0:
        return Calibration(conformal_quantile(np.abs(errors_N)), 0.0, False)
    varying = _above(floor, errors_N, stds_N)
    if local:
        return varying
    even = _above(float(stds_N.max()), errors_N, stds_N)
    return min(varying, even, key=lambda calibration: float(calibration.halves(stds_N).mean()))


def _above(floor: float, errors_N: Array, stds_N: Array) -> Calibration:
    """Calibrate with a lower bound on standard deviations."""
    believed_N = np.maximum(stds_N, floor)
    return Calibration(conformal_quantile(np.abs(errors_N) / believed_N), floor, True)


def conformal_quantile(sizes_N: Array) -> float:
    """Return the conformal quantile: a new value is below it with probability `LEVEL`."""
    count = len(sizes_N)
    rank = min(int(np.ceil((count + 1) * LEVEL)), count)
    return float(np.sort(sizes_N)[rank - 1])


MAX_SHRINKAGE = 0.5  # of the held-out error: maximum shrinkage of a prediction


def held_back(values_N: Array, best: float, error: float) -> Array:
    """Shrink predictions that are better than `best`, the more the better they are."""
    beyond_N = np.maximum(best - values_N, 0.0)
    shrinkage_N: Array = MAX_SHRINKAGE * error * beyond_N / np.maximum(beyond_N + error, 1e-300)
    return values_N + shrinkage_N


ALIKE = 3  # decimals of weights that decide whether mixtures are the same


@dataclass(frozen=True, eq=False)
class TrialReach:
    """The mixtures of the trials, and how far they reach."""

    weights_ND: Array

    @cached_property
    def reach(self) -> float:
        """Largest distance of a trial from its nearest neighbour; 0 if all are the same."""
        rows = self._different
        if len(rows) < 2:
            return 0.0
        distance_KK = pairwise_total_variation(rows, rows)
        np.fill_diagonal(distance_KK, np.inf)
        return float(distance_KK.min(axis=1).max())

    @cached_property
    def radius(self) -> float:
        """Largest distance of a trial from the mean of all."""
        rows = self._different
        return float(pairwise_total_variation(rows, rows.mean(axis=0)[None]).max())

    def nearest(self, points_ND: Array) -> Array:
        """Return the distance of each mixture from its nearest trial, shape (N,)."""
        near_N: Array = pairwise_total_variation(points_ND, self.weights_ND).min(axis=1)
        return near_N

    def stretch(self, points_ND: Array) -> Array:
        """Return the factor on intervals at each mixture, shape (N,); 1 within the reach."""
        if self.radius <= 0:
            return np.ones(len(points_ND))
        beyond_N = np.maximum(self.nearest(points_ND) - self.reach, 0.0)
        return (1.0 + beyond_N / self.radius) ** 2

    @cached_property
    def _different(self) -> Array:
        _, first = np.unique(self.weights_ND.round(ALIKE), axis=0, return_index=True)
        return self.weights_ND[first]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictions for some mixtures.

    Attributes:
        losses_NM: Losses by evaluation domain.
        low_NM: Lower ends of their 90% intervals.
        high_NM: Upper ends of their 90% intervals.
        objective_N: The objective.
        objective_low_N: Lower ends of its 90% intervals.
        objective_high_N: Upper ends of its 90% intervals.
        targets: Names of the evaluation domains.

    Examples:
        >>> found = run.fit.predict([run.natural, run.proposal.mixture])
        >>> found.objective_N.shape
        (2,)
        >>> bool((found.objective_low_N < found.objective_N).all())
        True
    """

    losses_NM: Array
    low_NM: Array
    high_NM: Array
    objective_N: Array
    objective_low_N: Array
    objective_high_N: Array
    targets: tuple[str, ...] = ()

    def turned(self, objective: Objective) -> Prediction:
        """Return the prediction with metrics of which higher is better negated."""
        low_NM = objective.turned(self.low_NM)
        high_NM = objective.turned(self.high_NM)
        low_N = objective.turned_value(self.objective_low_N)
        high_N = objective.turned_value(self.objective_high_N)
        return Prediction(
            losses_NM=objective.turned(self.losses_NM),
            low_NM=np.minimum(low_NM, high_NM),
            high_NM=np.maximum(low_NM, high_NM),
            objective_N=objective.turned_value(self.objective_N),
            objective_low_N=np.minimum(low_N, high_N),
            objective_high_N=np.maximum(low_N, high_N),
            targets=self.targets,
        )

    @property
    def frame(self) -> pl.DataFrame:
        """A row for each mixture and number: `mixture`, `target`, `predicted`, `low`, `high`."""
        rows, names = len(self.losses_NM), (OBJECTIVE, *self.targets)
        ends = [
            np.column_stack(pair).ravel()
            for pair in (
                (self.objective_N, self.losses_NM),
                (self.objective_low_N, self.low_NM),
                (self.objective_high_N, self.high_NM),
            )
        ]
        place = np.repeat(np.arange(rows), len(names))
        keys = {"mixture": place, "target": list(names) * rows}
        return pl.DataFrame({**keys, **dict(zip(("predicted", "low", "high"), ends, strict=True))})

    def _repr_html_(self) -> str:
        """Return a table of predictions with their 90% intervals, for notebooks."""
        columns = ("mixture", "target", "predicted", "low", "high")
        rows = [
            (str(place), name, *(loss_text(number) for number in numbers))
            for place, name, *numbers in self.frame.iter_rows()
        ]
        return html_table(columns, rows)


def as_weights(
    weights: ArrayLike | Mapping[str, float] | Sequence[Mapping[str, float]],
    domains: tuple[str, ...],
) -> Array:
    """Return mixtures as an array, shape (N, D), in the order of `domains`."""
    several = [weights] if isinstance(weights, Mapping) else weights
    if isinstance(several, Sequence) and several and isinstance(several[0], Mapping):
        mixtures = [
            Mixture(shares).over(domains) for shares in several if isinstance(shares, Mapping)
        ]
        return np.stack([mixture.array for mixture in mixtures])
    return np.atleast_2d(np.asarray(weights, float))
