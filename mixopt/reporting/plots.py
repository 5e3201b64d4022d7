"""The figures of a run, a fit or trials: `run.plot.mixtures()`, `fit.plot.held_out()`.

A figure of an unfinished step raises an error that names the command to run. Figures about a
mixture use by default the recommended one, before validation the proposed one, and for a fit the
trial with the lowest predicted objective.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mixopt.mixture import Mixture
from mixopt.reporting.evidence_figures import plot_held_out, plot_responses, plot_validation
from mixopt.reporting.figure_style import Figure
from mixopt.reporting.mixture_figures import plot_cells, plot_design, plot_epochs, plot_mixtures
from mixopt.reporting.run_experts import plot_run_experts

if TYPE_CHECKING:
    from mixopt.fitting import Fit
    from mixopt.proposals import Proposal, Recommendation
    from mixopt.run_directory import Run
    from mixopt.trials import Trials

    At: TypeAlias = Proposal | Recommendation | Mapping[str, float]


class _Figures:
    def __repr__(self) -> str:
        """List the figures."""
        names = (name for name in vars(type(self)) if not name.startswith("_"))
        return f"figures: {', '.join(f'{name}()' for name in names)}"


@dataclass(frozen=True, repr=False)
class RunPlots(_Figures):
    """The figures of a run."""

    _run: Run

    def mixtures(self, *, domains: Sequence[str] | None = None) -> Figure:
        """Plot the recommended or proposed mixture beside natural (`plot_mixtures`)."""
        return plot_mixtures(self._answer(), domains=domains)

    def cells(self) -> Figure:
        """Plot the mixture of a tree of domains as a map, topic by quality (`plot_cells`)."""
        return plot_cells(self._answer())

    def epochs(self, *, domains: Sequence[str] | None = None) -> Figure:
        """Plot the epochs of each domain, and their maximum (`plot_epochs`)."""
        answer, limits = self._answer(), self._run.config.constraints
        return plot_epochs(answer, limits.epochs_of(tuple(answer.mixture)), domains=domains)

    def design(self, *, domains: Sequence[str] | None = None) -> Figure:
        """Plot the shares of each domain that the trials have tried (`plot_design`)."""
        return plot_design(self._run.trials, self._run.natural, domains=domains)

    def held_out(self, *, target: str | None = None) -> Figure:
        """Plot held-out predictions against observed values (`plot_held_out`)."""
        return plot_held_out(self._run.fit, target=target)

    def responses(
        self,
        at: At | None = None,
        *,
        target: str | None = None,
        domains: Sequence[str] | None = None,
    ) -> Figure:
        """Plot the prediction along each domain's share (`plot_responses`)."""
        return plot_responses(self._run.fit, at or self._answer(), target=target, domains=domains)

    def validation(self) -> Figure:
        """Plot the validation's runs, and the gains of the recommendation (`plot_validation`)."""
        return plot_validation(self._run.validation, self._run.recommendation.chosen)

    def experts(self, *, trial: str | None = None) -> Figure:
        """Plot how experts of one trial serve each domain's tokens (`plot_run_experts`)."""
        return plot_run_experts(self._run, trial)

    def _answer(self) -> Proposal | Recommendation:
        return self._run.outcome.result


@dataclass(frozen=True, repr=False)
class FitPlots(_Figures):
    """The figures of a fit."""

    _fit: Fit

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
        if at is None:
            weights_ND = self._fit.trials.weights()
            best = int(np.argmin(self._fit.predict(weights_ND).objective_N))
            at = Mixture.from_array(self._fit.domains, weights_ND[best])
        return plot_responses(self._fit, at, target=target, domains=domains)


@dataclass(frozen=True, repr=False)
class TrialPlots(_Figures):
    """The figures of a table of trials."""

    _trials: Trials

    def design(
        self, natural: Mapping[str, float] | None = None, *, domains: Sequence[str] | None = None
    ) -> Figure:
        """Plot the shares of each domain that the trials have tried (`plot_design`)."""
        return plot_design(self._trials, natural, domains=domains)
