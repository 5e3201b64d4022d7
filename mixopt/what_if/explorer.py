"""The widget that `explore` shows: the page's what-if, and proposals that Python makes.

By anywidget, which Jupyter, VS Code and marimo show alike. What is drawn and predicted is the
JavaScript of `assets`; the other side of this module is mixopt/what_if/assets/widget.js. The page
asks by `_request` and is answered by `_answer`; `_data` is what it draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from mixopt.errors import MixoptError
from mixopt.mixture import Mixture, largest_shares
from mixopt.system import html_table
from mixopt.what_if.packing import packed_json
from mixopt.what_if.run_data import asked_data
from mixopt.what_if.widget_script import widget_script

if TYPE_CHECKING:
    from mixopt.proposals import Interval, Proposal
    from mixopt.run_directory import Run
    from mixopt.what_if.proposal_inputs import ProposalInputs


class Explorer(anywidget.AnyWidget):
    """A mixture that is turned by hand, and proposals under other constraints.

    Attributes:
        weights: Share of each domain, as the page shows them; setting it moves the sliders.
        mixture: The same as a `Mixture`; it can be set, too.
        proposal: The last one: the run's at first; of a fit, None until one was asked for.
    """

    _esm = widget_script()
    _data = traitlets.Unicode().tag(sync=True)
    _form = traitlets.Dict().tag(sync=True)
    _request = traitlets.Dict().tag(sync=True)
    _answer = traitlets.Dict().tag(sync=True)
    weights = traitlets.Dict().tag(sync=True)
    mixture = traitlets.Instance(Mixture)
    proposal = traitlets.Any(None, allow_none=True)

    def __init__(self, inputs: ProposalInputs, run: Run | None = None) -> None:
        """Start at what a run recommends, or at its proposal; of a fit, at the natural mixture.

        Args:
            inputs: What proposals are asked with.
            run: The run that they are of, if any.
        """
        self._inputs = inputs
        question = inputs.question()
        proposal = None if run is None else run.proposal
        recommended = None if run is None or not run.is_done("validate") else run.recommendation
        chosen = recommended or proposal
        mixture = question.natural if chosen is None else chosen.mixture
        drawn = asked_data(
            question,
            inputs.limits,
            question.natural if proposal is None else proposal.mixture,
            None if recommended is None else recommended.mixture,
        )
        mixture = mixture.over(inputs.fit.domains)
        super().__init__(
            _data=packed_json(drawn),
            _form=_form(inputs),
            weights=dict(mixture),
            mixture=mixture,
            proposal=proposal,
        )

    def propose(self, fields: Mapping[str, Any] | None = None) -> Proposal:
        """Propose under changed fields, and show it.

        It is searched without refits on resampled trials, which take most of the time, so it has
        no `stability` and no `optimism`; `mixopt propose RUN` finds these too.

        Args:
            fields: `bounds` by domain, `locked` (shares by domain), `max_epochs`, `tokens`,
                `radius` (`{"kind": "tv", "size": 0.2, "reference": "natural"}`), `target`; what
                is absent stays as the run, or `explore`, has it.

        Returns:
            The proposal; `proposal`, `mixture` and `weights` are of it, too.

        Raises:
            ConfigError: A field cannot be right.
            InfeasibleError: Constraints that no mixture meets.
        """
        inputs = self._inputs.changed(fields or {}).without_refits()
        question = inputs.question()
        proposal = question.proposal(inputs.target)
        mixture = proposal.mixture.over(inputs.fit.domains)
        target = question.aim(inputs.target)
        drawn = asked_data(question, inputs.limits, mixture, None, objective=target)
        with self.hold_sync():
            self.proposal, self._data, self.mixture = proposal, packed_json(drawn), mixture
            self._answer = {"serial": self._serial, "error": None, **_said(proposal)}
        return proposal

    def __repr__(self) -> str:
        """Say the largest shares."""
        return f"Explorer({largest_shares(self.mixture)})"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Show the widget; where there is no kernel, as on a page of a repository, a table."""
        shown = super()._repr_mimebundle_(**kwargs)
        if shown is None:
            return None
        data, metadata = shown
        return {**data, "text/html": self._table()}, metadata

    def _table(self) -> str:
        natural = self._inputs.question().natural.over(self.mixture.domains)
        rows = [
            [name, f"{100 * natural[name]:.1f}%", f"{100 * share:.1f}%"]
            for name, share in self.mixture.items()
        ]
        caption = "mixopt.explore: run this cell for the sliders"
        return html_table(caption, ["domain", "natural", "mixture"], rows, what="domains")

    @property
    def _serial(self) -> int:
        return int(self._request.get("serial", 0))

    @traitlets.observe("_request")
    def _asked(self, change: Mapping[str, Any]) -> None:
        """Answer the page's button; what cannot be done is said there."""
        fields = {name: one for name, one in change["new"].items() if name != "serial"}
        try:
            self.propose(fields)
        except MixoptError as error:
            self._answer = {"serial": self._serial, "error": str(error)}
        except Exception as error:
            self._answer = {"serial": self._serial, "error": f"{type(error).__name__}: {error}"}
            raise

    @traitlets.observe("weights")
    def _turned(self, change: Mapping[str, Any]) -> None:
        """Take over what the page, or the user's code, made of the weights."""
        mixture = Mixture(change["new"]).over(self._inputs.fit.domains)
        if mixture != self.mixture:
            self.mixture = mixture

    @traitlets.observe("mixture")
    def _set(self, change: Mapping[str, Any]) -> None:
        weights = dict(change["new"].over(self._inputs.fit.domains))
        if weights != self.weights:
            self.weights = weights


def _form(inputs: ProposalInputs) -> dict[str, Any]:
    """Return what the fields show at first."""
    limits, fit = inputs.limits, inputs.fit
    radius, tokens = limits.radius, inputs.search.target_tokens
    kind = "kl" if radius is not None and radius.kl is not None else "tv"
    return {
        "bounds": [list(limits.bounds.get(name, (0.0, 1.0))) for name in fit.domains],
        "max_epochs": limits.max_epochs,
        "tokens": None if tokens is None else f"{tokens:g}",
        "radius": None
        if radius is None
        else {"kind": kind, "size": getattr(radius, kind), "reference": radius.reference},
        "objective": fit.objective.describe(),
        "targets": list(fit.targets),
    }


def _said(proposal: Proposal) -> dict[str, Any]:
    """Return what the page says of a proposal."""
    unit = proposal.unit.replace("_", " ")
    return {
        "lines": [
            f"Predicted: {_range(proposal.predicted_objective)} {unit}, for {proposal.objective}.",
            f"Gain over natural: {_range(proposal.gains['natural'])} {unit}.",
        ],
        "active": list(proposal.binding),
        "warnings": list(proposal.warnings),
    }


def _range(found: Interval) -> str:
    return f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"
