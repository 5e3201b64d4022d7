"""A fitted regressor, fitted again on resampled trials.

Mixtures are drawn with replacement, each with all its replicates. A refit keeps what the fit chose
on held-out folds where the regressor can (`tuned`), so that it is cheap; any other is built as it
was for the fit, with its seed, size and repetition.

Shapes: N trials, D domains, M losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.fitting.capabilities import Learner, Predictor, supports
from mixopt.fitting.fitted import Fit
from mixopt.fitting.regressor import fit_regressor, select_targets
from mixopt.system import Array, Update, no_progress, one_blas_thread


@dataclass(frozen=True, eq=False)
class ResampledFits:
    """Regressors fitted on resampled trials.

    Attributes:
        columns: Positions of the losses that they predict, among the fit's.
        regressors: The regressors.
    """

    columns: tuple[int, ...]
    regressors: tuple[Predictor, ...]

    def of(self, columns: Sequence[int]) -> tuple[Predictor, ...]:
        """Return the regressors of some of the losses, by position among the fit's."""
        places = [self.columns.index(column) for column in columns]
        if places == list(range(len(self.columns))):
            return self.regressors
        return tuple(select_targets(one, places) for one in self.regressors)


@dataclass(frozen=True, eq=False)
class Refitter:
    """What is fitted again, and on which trials.

    Attributes:
        name: The regressor's.
        regressor: Fitted; predicts the losses of `losses_NM`.
        make: Builds it again, unfitted, where it has no `tuned`.
        rows: What it was fitted on: weights, and sizes where it knows of them.
        losses_NM: Losses of the trials.
        mixtures: Fingerprint of each trial's mixture.
    """

    name: str
    regressor: Predictor
    make: Callable[[], Learner]
    rows: Array
    losses_NM: Array
    mixtures: Sequence[str]

    def resampled(
        self, count: int, rng: np.random.Generator, update: Update = no_progress
    ) -> tuple[Predictor, ...]:
        """Fit again on resampled mixtures, so many times."""
        fits: list[Predictor] = []
        with one_blas_thread(len(self.rows)):
            for _ in range(count):
                rows = resampled_rows(self.mixtures, rng)
                again = self.regressor.tuned() if supports(self.regressor, "tuned") else self.make()
                fits.append(fit_regressor(self.name, again, self.rows[rows], self.losses_NM[rows]))
                update(len(fits), "refits")
        return tuple(fits)


def resampled_fits(
    fit: Fit,
    columns: Sequence[int],
    *,
    count: int,
    seed: int,
    update: Update = no_progress,
) -> ResampledFits:
    """Fit the chosen regressor of a fit again on resampled mixtures."""
    refitter = Refitter(
        fit.name,
        select_targets(fit.regressor, columns),
        fit.unfitted,
        fit.rows(),
        fit.data.losses_NM[:, list(columns)],
        fit.data.mixtures,
    )
    rng = np.random.default_rng([seed, 1])
    return ResampledFits(tuple(columns), refitter.resampled(count, rng, update))


def resampled_rows(mixtures: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Draw as many mixtures as there are, with replacement; return the rows of all of them."""
    rows: dict[str, list[int]] = {}
    for row, mixture in enumerate(mixtures):
        rows.setdefault(mixture, []).append(row)
    names = list(rows)
    drawn = rng.integers(len(names), size=len(names))
    return [row for place in drawn for row in rows[names[place]]]
