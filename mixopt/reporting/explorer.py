"""The page's what-if as a notebook widget.

It uses anywidget, which Jupyter, VS Code and marimo support. The JavaScript in `assets` draws and
predicts; assets/widget.js is the counterpart of this module.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.config import ConstraintsConfig
from mixopt.errors import ConfigError, PluginError
from mixopt.fitting import Fit
from mixopt.mixture import Mixture, largest_shares
from mixopt.proposals import ProposalRequest
from mixopt.reporting.page import asset
from mixopt.reporting.what_if import packed_json, starts_of, view_script, what_if_data
from mixopt.run_directory import Run, request_of

try:
    import anywidget
    import traitlets
except ModuleNotFoundError as error:
    raise PluginError(f"explore: needs {error.name}: pip install 'mixopt[all]'") from None

# The output cell may be narrow in a wide window.
STYLE = asset("what_if.css").replace("@media (max-width", "@container (max-width")
# A module whose default export has `render({model, el})`.
SCRIPT = f"""{view_script()}
const WIDGET_STYLE = {json.dumps(STYLE)};
{asset("widget.js")}
export default {{ render: renderWidget }};
"""


class Explorer(anywidget.AnyWidget):
    """A mixture edited by hand.

    Attributes:
        weights: Share of each domain; setting it moves the sliders.
        mixture: The weights as a `Mixture`; can be set, too.
    """

    _esm = SCRIPT
    _data = traitlets.Unicode().tag(sync=True)
    weights = traitlets.Dict().tag(sync=True)
    mixture = traitlets.Instance(Mixture)

    def __init__(self, question: ProposalRequest, starts: Mapping[str, Mixture]) -> None:
        """Start at the first of the given mixtures."""
        self._domains = question.fit.domains
        first = next(iter(starts.values())).over(self._domains)
        data = packed_json(what_if_data(question, starts))
        super().__init__(_data=data, weights=dict(first), mixture=first)

    def __repr__(self) -> str:
        """Return the largest shares."""
        return f"Explorer({largest_shares(self.mixture)})"

    @traitlets.observe("weights")
    def _on_weights(self, change: Mapping[str, Any]) -> None:
        """Update the mixture after the page or the user's code has set the weights."""
        mixture = Mixture(change["new"]).over(self._domains)
        if mixture != self.mixture:
            self.mixture = mixture

    @traitlets.observe("mixture")
    def _on_mixture(self, change: Mapping[str, Any]) -> None:
        weights = dict(change["new"].over(self._domains))
        if weights != self.weights:
            self.weights = weights


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
        PluginError: anywidget is not installed, or the fit has no exact law and cannot be emulated.
        ConfigError: An unreadable file or an invalid value.
        InfeasibleError: No mixture meets the constraints.
        RunError: The run has no proposal yet.
    """
    changes: dict[str, Any] = {"constraints": constraints, "inventory": inventory, "tokens": tokens}
    if isinstance(source, Run):
        return Explorer(request_of(source, source.fit, **changes), starts_of(source))
    if not isinstance(source, Fit):
        raise ConfigError(
            f"explore: expected a run (mixopt.load_run) or a fit, got {type(source).__name__}"
        )
    question = ProposalRequest.of(source, **changes)
    return Explorer(question, {"Natural": question.natural})
