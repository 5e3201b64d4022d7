"""What figures of a fit are of: its objective, or one loss, as predicted and as observed.

Shapes: N trials or mixtures, D domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixopt.config import TASK
from mixopt.objective import UNITS
from mixopt.plots.figure_style import written
from mixopt.plots.shown_domains import check_known
from mixopt.system import Array

if TYPE_CHECKING:
    from mixopt.fitting import Fit


@dataclass(frozen=True)
class FittedValue:
    """The objective of a fit, or one of its losses.

    Attributes:
        fit: The fit.
        target: The loss; the objective when None.

    Raises:
        ConfigError: A loss that the fit does not predict.
    """

    fit: Fit
    target: str | None = None

    def __post_init__(self) -> None:
        if self.target is not None:
            check_known([self.target], self.fit.targets, "evaluation domain")

    @property
    def name(self) -> str:
        """What it is called in a table of held-out predictions."""
        from mixopt.fitting import OBJECTIVE

        return self.target or OBJECTIVE

    @property
    def unit(self) -> str:
        """Its unit, in words."""
        objective = self.fit.objective
        if self.target is None:
            return UNITS[objective.value_unit]
        return UNITS["metric_units" if self.target.startswith(TASK) else objective.unit]

    @property
    def words(self) -> str:
        """What it is called in a figure."""
        return "objective" if self.target is None else f"loss on {written(self.target)}"

    @property
    def axis(self) -> str:
        """What an axis of it is called."""
        return f"{self.words}, {self.unit}"

    @property
    def is_better_high(self) -> bool:
        """Whether it is a metric of which higher is better; an objective never is."""
        return self.target in self.fit.objective.higher

    @property
    def best(self) -> str:
        """What its best value is called."""
        return "highest" if self.is_better_high else "lowest"

    def observed(self) -> Array:
        """Return what the trials gave, shape (N,); at another size, what is predicted of them."""
        return self.of_losses(self.fit.known_losses())

    def of_losses(self, losses_NM: Array) -> Array:
        """Return it of the losses of some mixtures, shape (N,)."""
        if self.target is None:
            return self.fit.objective.value(losses_NM)
        return losses_NM[:, self.fit.targets.index(self.target)]

    def predicted(self, weights_ND: Array) -> tuple[Array, Array, Array]:
        """Return what is predicted and the ends of the 90% interval, shape (N,) each."""
        found = self.fit.predict(weights_ND)
        if self.target is None:
            return found.objective_N, found.objective_low_N, found.objective_high_N
        at = self.fit.targets.index(self.target)
        return found.losses_NM[:, at], found.low_NM[:, at], found.high_NM[:, at]


def along_domain(at_D: Array, place: int, shares_K: Array) -> Array:
    """Return a mixture with other shares of one domain, shape (K, D).

    The other domains keep their proportions; where they have nothing, they get equal shares.

    Args:
        at_D: The mixture.
        place: Position of the domain.
        shares_K: Its shares, from 0 to 1.
    """
    others_D = np.array(at_D, dtype=float)
    others_D[place] = 0.0
    if others_D.sum() <= 0:
        others_D = np.ones(len(at_D))
        others_D[place] = 0.0
    others_D /= max(others_D.sum(), 1e-300)
    weights_KD: Array = (1.0 - shares_K)[:, None] * others_D
    weights_KD[:, place] = shares_K
    return weights_KD
