"""The page's what-if as a notebook widget.

It uses anywidget, which Jupyter, VS Code and marimo support. The JavaScript in `assets` draws and
predicts; assets/widget.js is the counterpart of this module.
"""

import json
from collections.abc import Mapping
from typing import Any

import anywidget
import traitlets

from mixopt.mixture import Mixture, largest_shares
from mixopt.proposals import ProposalRequest
from mixopt.reporting.page import asset
from mixopt.reporting.what_if import packed_json, view_script, what_if_data

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
