"""Which experts `run.plot.experts()` shows: those of one trial of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.errors import ConfigError, did_you_mean
from mixopt.proposals import mixture_of
from mixopt.reporting.expert_plots import plot_domain_experts
from mixopt.reporting.figure_style import Figure
from mixopt.run_directory import SWEEP, VALIDATE
from mixopt.trials import best_trial, read_entry

if TYPE_CHECKING:
    from mixopt.routing import ExpertCounts
    from mixopt.run_directory import Run


def plot_run_experts(run: Run, trial: str | None = None) -> Figure:
    """Show how each domain's held-out tokens fall on the experts of one trial.

    Args:
        run: Whose proxies are mixtures of experts.
        trial: Of the sweep or the validation; when None a validation run of the recommended
            mixture, and before validation the trial with the lowest objective.

    Raises:
        ConfigError: No trial has experts, or this one has none.
        RunError: The sweep is not done, or a file of it is damaged.
    """
    found = _counts(run)
    if not found:
        raise ConfigError(
            f"run {run.config.name!r}: no trial recorded experts: its proxy has none, or was not"
            " trained yet; a sweep has them with proxy.options.size: moe-tiny"
        )
    name = trial or _default(run, found)
    if name not in found:
        raise ConfigError(f"trial {name!r} recorded no experts{did_you_mean(name, found)}")
    return plot_domain_experts(found[name].held_out)


def _counts(run: Run) -> dict[str, ExpertCounts]:
    """Return the counts of the trials that have some, those of the sweep first."""
    files = [file for step in (SWEEP, VALIDATE) for file in sorted(step.trial_files(run.path))]
    results = [read_entry(file)[1] for file in files]
    return {one.trial: one.experts for one in results if one.experts is not None}


def _default(run: Run, found: dict[str, ExpertCounts]) -> str:
    chosen = run.recommendation.chosen if run.is_done("validate") else None
    own = [name for name in found if chosen is not None and mixture_of(name) == chosen]
    best = best_trial(run.trials, run.objective)[0]
    return next(iter([*own, *(name for name in (best, *found) if name in found)]))
