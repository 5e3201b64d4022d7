"""The figures of a run, a fit or trials: `run.plot.mixtures()`, `fit.plot.held_out()`.

A figure of an unfinished step raises an error that names the command to run. Figures about a
mixture use by default the recommended one, before validation the proposed one, and for a fit the
trial with the lowest predicted objective.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mixopt.fitting import Fit
from mixopt.mixture import Mixture
from mixopt.proposals import Proposal, Recommendation
from mixopt.reporting.figure_style import Figure
from mixopt.reporting.figures import (
    At,
    plot_cells,
    plot_design,
    plot_held_out,
    plot_mixtures,
    plot_responses,
    plot_validation,
)
from mixopt.run_directory import Run
from mixopt.trials import Trials


class _Figures:
    def __repr__(self) -> str:
        """List the figures."""
        return f"figures: {', '.join(f'{name}()' for name in dir(self) if name[0] != '_')}"


class FitPlots(_Figures):
    """The figures of a fit."""

    def __init__(self, fit: Fit) -> None:
        self._fit = fit

    def held_out(self, *, target: str | None = None) -> Figure:
        """Plot held-out predictions against observed values (`plot_held_out`)."""
        return plot_held_out(self._fit, target=target)

    def responses(
        self,
        at: At | None = None,
        *,
        target: str | None = None,
        domains: Sequence[str] | None = None,
    ) -> Figure:
        """Plot the prediction along each domain's share (`plot_responses`)."""
        return plot_responses(self._fit, at or self._answer, target=target, domains=domains)

    @property
    def _answer(self) -> At:
        weights_ND = self._fit.trials.weights()
        best = int(np.argmin(self._fit.predict_turned(weights_ND).objective_N))
        return Mixture.from_array(self._fit.domains, weights_ND[best])


class RunPlots(FitPlots):
    """The figures of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def _fit(self) -> Fit:  # type: ignore[override]
        return self._run.fit

    @property
    def _answer(self) -> Proposal | Recommendation:
        return self._run.outcome.result

    def mixtures(self) -> Figure:
        """Plot the recommended or proposed mixture beside natural (`plot_mixtures`)."""
        return plot_mixtures(self._answer)

    def cells(self) -> Figure:
        """Plot the mixture of a tree of domains as a map, topic by quality (`plot_cells`)."""
        return plot_cells(self._answer)

    def design(self) -> Figure:
        """Plot the shares of each domain that the trials have tried (`plot_design`)."""
        return plot_design(self._run.trials, self._run.natural)

    def validation(self) -> Figure:
        """Plot the validation's runs, and the gains of the recommendation (`plot_validation`)."""
        return plot_validation(self._run.validation, self._run.recommendation.chosen)


class TrialPlots(_Figures):
    """The figures of a table of trials."""

    def __init__(self, trials: Trials) -> None:
        self._trials = trials

    def design(self, natural: Mapping[str, float] | None = None) -> Figure:
        """Plot the shares of each domain that the trials have tried (`plot_design`)."""
        return plot_design(self._trials, natural)
