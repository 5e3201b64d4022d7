"""The figures of a fit and of a table of trials: `fit.plot.responses()`, `trials.plot.design()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixopt.mixture import Mixture
from mixopt.plots.design_plot import plot_design
from mixopt.plots.drawing import Figure
from mixopt.plots.held_out_plots import plot_held_out, plot_regret
from mixopt.plots.response_plots import plot_interactions, plot_responses
from mixopt.plots.ternary_plot import plot_ternary

if TYPE_CHECKING:
    from typing import TypeAlias

    from mixopt.fitting import Fit
    from mixopt.proposals import Proposal, Recommendation
    from mixopt.trials import Trials

    At: TypeAlias = Proposal | Recommendation | Mapping[str, float]


def figures_of(kind: type) -> str:
    """Return the figures that an object of figures has, for its `__repr__`."""
    return ", ".join(f"{name}()" for name in vars(kind) if not name.startswith("_"))


@dataclass(frozen=True, repr=False)
class FitPlots:
    """The figures of a fit.

    Where a figure is drawn around a mixture and none is given, it is the one with the lowest
    predicted objective among those that were tried.
    """

    _fit: Fit

    def held_out(self, *, target: str | None = None) -> Figure:
        """Show predictions for unseen trials against what was observed (`plot_held_out`)."""
        return plot_held_out(self._fit, target=target)

    def regret(self, *, counts: Sequence[int] | None = None) -> Figure:
        """Show how far the pick of the first n trials is from that of all (`plot_regret`)."""
        return plot_regret(self._fit, counts=counts)

    def responses(
        self,
        at: At | None = None,
        *,
        target: str | None = None,
        domains: Sequence[str] | None = None,
    ) -> Figure:
        """Show what is predicted along each domain's share (`plot_responses`)."""
        return plot_responses(self._fit, at or self._best(), target=target, domains=domains)

    def interactions(
        self,
        at: At | None = None,
        *,
        targets: Sequence[str] | None = None,
        domains: Sequence[str] | None = None,
    ) -> Figure:
        """Show how each loss changes with each domain's share (`plot_interactions`)."""
        return plot_interactions(self._fit, at or self._best(), targets=targets, domains=domains)

    def ternary(
        self,
        first: str,
        second: str,
        third: str,
        *,
        at: At | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        target: str | None = None,
        total: float | None = None,
    ) -> Figure:
        """Show what is predicted as three domains or groups share their tokens (`plot_ternary`)."""
        parts = (first, second, third)
        centre = at or self._best()
        return plot_ternary(self._fit, centre, parts, groups=groups, target=target, total=total)

    def _best(self) -> Mixture:
        weights_ND = self._fit.trials.weights()
        best = int(np.argmin(self._fit.predict(weights_ND).objective_N))
        return Mixture.from_array(self._fit.domains, weights_ND[best])

    def __repr__(self) -> str:
        """Say which figures there are."""
        return f"figures of a fit: {figures_of(FitPlots)}"


@dataclass(frozen=True, repr=False)
class TrialPlots:
    """The figures of a table of trials."""

    _trials: Trials

    def design(
        self,
        natural: Mapping[str, float] | None = None,
        *,
        domains: Sequence[str] | None = None,
    ) -> Figure:
        """Show which shares of each domain the trials have tried (`plot_design`)."""
        return plot_design(self._trials, natural, domains=domains)

    def __repr__(self) -> str:
        """Say which figures there are."""
        return f"figures of trials: {figures_of(TrialPlots)}"
