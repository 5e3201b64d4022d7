"""`explore`: the what-if as a widget of a notebook, for a run or a fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from mixopt.config import ConstraintsConfig
    from mixopt.fitting import Fit
    from mixopt.reporting.explorer import Explorer
    from mixopt.run_directory import Run


def explore(
    source: Run | Fit,
    *,
    constraints: ConstraintsConfig | Mapping[str, Any] | str | Path | None = None,
    inventory: Mapping[str, float] | str | Path | None = None,
    tokens: float | str | None = None,
) -> Explorer:
    """Show the what-if in a notebook: turn a mixture, see its losses, intervals and limits.

    The widget predicts in the page, as `report.html` does. The next cell has `widget.mixture`, and
    may observe it.

    Args:
        source: A run with a proposal, or a fit.
        constraints: The fields of an experiment's `constraints:`, or a YAML file of them; as the
            run has them when None.
        inventory: Distinct tokens of each domain, or a YAML file of them; the run's when None.
            Of a fit without, nothing is known of epochs.
        tokens: Length of the full run, such as 25e9; as the run has it when None.

    Raises:
        PluginError: anywidget is not installed, or the fit's regressor has no plain law.
        ConfigError: Something cannot be read, or cannot be right.
        InfeasibleError: Constraints that no mixture meets.
        RunError: The run has no proposal yet.
    """
    from mixopt.config import (
        ConstraintsConfig,
        ProposeConfig,
        read_constraints,
        read_inventory,
        token_count,
    )
    from mixopt.fitting import Fit
    from mixopt.proposals import ProposalRequest
    from mixopt.run_directory import Run, base_losses, collapsed_trials

    try:
        from mixopt.reporting.explorer import Explorer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "mixopt":
            raise
        raise PluginError(f"explore: needs {error.name}: pip install 'mixopt[notebooks]'") from None
    if not isinstance(source, (Run, Fit)):
        raise ConfigError(
            f"explore: expected a run (mixopt.load_run) or a fit, got {type(source).__name__}"
        )
    fit = source.fit if isinstance(source, Run) else source
    limits, search, sizes = ConstraintsConfig(), ProposeConfig(), None
    known: dict[str, Any] = {}
    if isinstance(source, Run):
        limits, search, sizes = source.config.constraints, source.config.propose, source.inventory
        known = {"collapsed": collapsed_trials(source.path), "base": base_losses(source)}
    if constraints is not None:
        if not isinstance(constraints, ConstraintsConfig):
            constraints = read_constraints(constraints)
        limits = constraints
    if inventory is not None:
        sizes = read_inventory(inventory, fit.domains)
    if tokens is not None:
        search = search.model_copy(update={"target_tokens": token_count(tokens)})
    question = ProposalRequest.of(fit, constraints=limits, inventory=sizes, search=search, **known)
    starts = {}
    if isinstance(source, Run):
        if source.is_done("validate"):
            starts["Recommended"] = source.recommendation.mixture
        starts["Proposal"] = source.proposal.mixture
    return Explorer(question, limits, {**starts, "Natural": question.natural})
