"""`explore`: the what-if as a notebook widget, for a run or a fit."""

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
    """Show the what-if in a notebook: edit a mixture; see its losses, intervals and limits.

    The widget predicts in JavaScript, as `report.html` does. The next cell can read or observe
    `widget.mixture`.

    Args:
        source: A run with a proposal, or a fit.
        constraints: Fields of an experiment's `constraints:`, or a YAML file with them; merged into
            the run's.
        inventory: Distinct tokens of each domain, or a YAML file with them; None: the run's. A fit
            without them shows no epochs.
        tokens: Length of the full run in tokens, such as 25e9; None: the run's.

    Raises:
        PluginError: anywidget is not installed, or the fit's regressor has no plain law.
        ConfigError: An unreadable file or an invalid value.
        InfeasibleError: No mixture meets the constraints.
        RunError: The run has no proposal yet.
    """
    from mixopt.fitting import Fit
    from mixopt.proposals import ProposalRequest
    from mixopt.run_directory import Run, request_of

    try:
        from mixopt.reporting.explorer import Explorer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "mixopt":
            raise
        raise PluginError(f"explore: needs {error.name}: pip install 'mixopt[all]'") from None
    from mixopt.reporting.what_if import starts_of

    changes: dict[str, Any] = {"constraints": constraints, "inventory": inventory, "tokens": tokens}
    if isinstance(source, Run):
        return Explorer(request_of(source, source.fit, **changes), starts_of(source))
    if not isinstance(source, Fit):
        raise ConfigError(
            f"explore: expected a run (mixopt.load_run) or a fit, got {type(source).__name__}"
        )
    question = ProposalRequest.of(source, **changes)
    return Explorer(question, {"Natural": question.natural})
