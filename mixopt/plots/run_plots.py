"""The figures of a run, each with the run's own objects: `run.plot.mixtures()`.

A figure of a step that is not done yet is an error that names the command which does it. Where a
figure is drawn around a mixture and none is given, it is the recommended one, and before validation
the proposed one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.errors import ConfigError
from mixopt.plots.anneals_plot import plot_anneals
from mixopt.plots.design_plot import plot_design
from mixopt.plots.drawing import Figure
from mixopt.plots.fit_plots import figures_of
from mixopt.plots.front_plot import plot_front
from mixopt.plots.held_out_plots import plot_held_out, plot_regret
from mixopt.plots.mixture_bars import plot_epochs, plot_mixtures
from mixopt.plots.response_plots import plot_interactions, plot_responses
from mixopt.plots.run_experts import plot_run_experts
from mixopt.plots.ternary_plot import plot_ternary
from mixopt.plots.training_plot import plot_training
from mixopt.plots.validation_plots import plot_gains, plot_validation

if TYPE_CHECKING:
    from mixopt.proposals import Proposal, Recommendation
    from mixopt.run_directory import Run

    At = Proposal | Recommendation | Mapping[str, float]


@dataclass(frozen=True, repr=False)
class RunPlots:
    """The figures of a run."""

    _run: Run

    def mixtures(self, *, domains: Sequence[str] | None = None) -> Figure:
        """Show the recommended or proposed mixture beside the natural one (`plot_mixtures`)."""
        return plot_mixtures(self._answer(), domains=domains)

    def epochs(self, *, domains: Sequence[str] | None = None) -> Figure:
        """Show passes over each domain's text, and the maximum allowed (`plot_epochs`)."""
        answer, limits = self._answer(), self._run.config.constraints
        caps = dict(limits.max_epochs_of or {})
        if limits.max_epochs is not None:
            caps = {**dict.fromkeys(answer.mixture, limits.max_epochs), **caps}
        return plot_epochs(answer, caps, domains=domains)

    def anneals(self, *, targets: Sequence[str] | None = None) -> Figure:
        """Show each source of microanneals against the control (`plot_anneals`)."""
        return plot_anneals(self._run.anneals, targets=targets)

    def design(self, *, domains: Sequence[str] | None = None) -> Figure:
        """Show which shares of each domain the trials have tried (`plot_design`)."""
        return plot_design(self._run.trials, self._run.natural, domains=domains)

    def held_out(self, *, target: str | None = None) -> Figure:
        """Show predictions for unseen trials against what was observed (`plot_held_out`)."""
        return plot_held_out(self._run.fit, target=target)

    def regret(self, *, counts: Sequence[int] | None = None) -> Figure:
        """Show how far the pick of the first n trials is from that of all (`plot_regret`)."""
        return plot_regret(self._run.fit, counts=counts)

    def responses(
        self,
        at: At | None = None,
        *,
        target: str | None = None,
        domains: Sequence[str] | None = None,
    ) -> Figure:
        """Show what is predicted along each domain's share (`plot_responses`)."""
        return plot_responses(self._run.fit, at or self._answer(), target=target, domains=domains)

    def interactions(
        self,
        at: At | None = None,
        *,
        targets: Sequence[str] | None = None,
        domains: Sequence[str] | None = None,
    ) -> Figure:
        """Show how each loss changes with each domain's share (`plot_interactions`)."""
        centre = at or self._answer()
        return plot_interactions(self._run.fit, centre, targets=targets, domains=domains)

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
        """Show what is predicted as three domains or groups share their tokens (`plot_ternary`).

        The groups of the run's `constraints.groups` are known by their names.
        """
        own = {
            name: one.domains for name, one in (self._run.config.constraints.groups or {}).items()
        }
        return plot_ternary(
            self._run.fit,
            at or self._answer(),
            (first, second, third),
            groups={**own, **(groups or {})},
            target=target,
            total=total,
            constraints=self._run.constraints,
        )

    def front(self, first: str, second: str, *others: str, points: int = 9) -> Figure:
        """Search mixtures that trade targets against each other, and show them (`plot_front`)."""
        from mixopt.proposals import propose_front

        run = self._run
        front = propose_front(
            run.fit,
            (first, second, *others),
            run.constraints,
            run.natural,
            run.config.propose,
            points=points,
            inventory=run.inventory,
            seed=run.config.seed,
            collapsed=run.collapsed,
        )
        return plot_front(front, run.fit.trials)

    def validation(self) -> Figure:
        """Show the validation's runs and differences from the baselines (`plot_validation`)."""
        return plot_validation(self._run.validation)

    def gains(self) -> Figure:
        """Show the recommended mixture's gains over others (`plot_gains`)."""
        return plot_gains(self._run.recommendation)

    def experts(self, *, trial: str | None = None) -> Figure:
        """Show how each domain's tokens fall on the experts of one trial (`plot_run_experts`).

        What a change of weights did to the experts of a pretraining is drawn by
        `mixopt.experts(directory).figures()`.
        """
        return plot_run_experts(self._run, trial)

    def training(self, pretraining: str | Path) -> Figure:
        """Show weights and losses of a pretraining on the run's mixture (`plot_training`).

        Args:
            pretraining: Its directory, or the log of an online driver. A run does not know which
                pretrainings use its mixture.

        Raises:
            ConfigError: There is none.
        """
        path = Path(pretraining)
        if not path.exists():
            raise ConfigError(
                f"{path}: no pretraining there; give the directory of one:"
                " run.plot.training(directory), or start one: mixopt pretrain CONFIG --out"
                " directory"
            )
        return plot_training(path)

    def _answer(self) -> Proposal | Recommendation:
        run = self._run
        return run.recommendation if run.is_done("validate") else run.proposal

    def __repr__(self) -> str:
        """Say which figures there are."""
        return f"figures of a run: {figures_of(RunPlots)}"
