"""What a fit predicts for some mixtures: losses and objective with their 90% intervals.

Shapes: N mixtures, D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from mixopt.fitting.held_out import OBJECTIVE
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.system import Array, html_table, loss_text


@dataclass(frozen=True, eq=False)
class Prediction:
    """What is predicted for some mixtures.

    Attributes:
        losses_NM: Losses by evaluation domain.
        low_NM: Lower ends of their 90% intervals.
        high_NM: Upper ends.
        objective_N: The objective.
        objective_low_N: Lower ends of its 90% intervals.
        objective_high_N: Upper ends.
        targets: Names of the evaluation domains.

    Example:
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

    @classmethod
    def of(cls, losses_NM: Array, halves_NM: Array, value_N: Array, half_N: Array) -> Prediction:
        """Return a prediction from its middles and half of the widths of its intervals."""
        return cls(
            losses_NM=losses_NM,
            low_NM=losses_NM - halves_NM,
            high_NM=losses_NM + halves_NM,
            objective_N=value_N,
            objective_low_N=value_N - half_N,
            objective_high_N=value_N + half_N,
        )

    def agreeing(self, objective: Objective) -> Prediction:
        """Return the same, where a loss that is the objective is predicted as the objective is."""
        if objective.kind != "target":
            return self
        at, half_N = objective.columns[0], self.objective_high_N - self.objective_N
        losses_NM, halves_NM = self.losses_NM.copy(), self.high_NM - self.losses_NM
        losses_NM[:, at] = objective.signs[at] * self.objective_N
        halves_NM[:, at] = half_N
        return Prediction.of(losses_NM, halves_NM, self.objective_N, half_N)

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
        """Return a table of the numbers with their 90% intervals, for notebooks."""
        columns = ("mixture", "target", "predicted", "low", "high")
        rows = [
            (str(place), name, *(loss_text(one) for one in numbers))
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
        mixtures = [Mixture(one).over(domains) for one in several if isinstance(one, Mapping)]
        return np.stack([mixture.array for mixture in mixtures])
    return np.atleast_2d(np.asarray(weights, dtype=np.float64))
