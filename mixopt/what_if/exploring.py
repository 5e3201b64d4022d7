"""`explore`: the what-if as a widget of a notebook, for a run or a fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.errors import ConfigError, PluginError
from mixopt.what_if.proposal_inputs import ConstraintsGiven, ProposalInputs

if TYPE_CHECKING:
    from mixopt.fitting import Fit
    from mixopt.run_directory import Run
    from mixopt.what_if.explorer import Explorer


def explore(
    source: Run | Fit,
    *,
    constraints: ConstraintsGiven | None = None,
    inventory: Mapping[str, float] | str | Path | None = None,
    tokens: float | str | None = None,
) -> Explorer:
    """Show the what-if in a notebook: turn a mixture, change constraints, propose again.

    The widget predicts in the page, as `report.html` does; its button proposes in Python. The next
    cell has `widget.mixture` and `widget.proposal`, and may observe both.

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
    try:
        from mixopt.what_if.explorer import Explorer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "mixopt":
            raise
        raise PluginError(f"explore: needs {error.name}: pip install 'mixopt[notebooks]'") from None
    return Explorer(*_inputs(source, constraints, inventory, tokens))


def _inputs(
    source: Run | Fit,
    constraints: ConstraintsGiven | None,
    inventory: Mapping[str, float] | str | Path | None,
    tokens: float | str | None,
) -> tuple[ProposalInputs, Run | None]:
    from mixopt.fitting import Fit
    from mixopt.run_directory import Run

    if not isinstance(source, (Run, Fit)):
        raise ConfigError(
            f"explore: expected a run (mixopt.load_run) or a fit, got {type(source).__name__}"
        )
    run = source if isinstance(source, Run) else None
    first = (
        ProposalInputs.of_fit(source) if isinstance(source, Fit) else ProposalInputs.of_run(source)
    )
    return first.given(constraints=constraints, inventory=inventory, tokens=tokens), run
