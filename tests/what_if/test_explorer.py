"""The widget of notebooks from Python's side: what the page turns and asks is here, and back."""

import json
import sys

import numpy as np
import pytest
from made_fit import DOMAINS
from made_what_if import NATURAL, made_fit_of_gaussians

import mixopt
from mixopt.errors import ConfigError, InfeasibleError, PluginError

TOKENS = {"code": 3e9, "prose": 5e9, "law": 2e9}
# What the page sends with nothing changed.
FIELDS = {
    "bounds": {name: [0.0, 1.0] for name in DOMAINS},
    "max_epochs": None,
    "tokens": "1e10",
    "radius": None,
    "target": None,
    "locked": {},
}


@pytest.fixture(scope="module")
def fit():
    return made_fit_of_gaussians()


@pytest.fixture
def widget(fit):
    return mixopt.explore(fit, inventory=TOKENS, tokens=1e10)


@pytest.fixture
def ask(widget):
    """A function that asks as the page's button does, and returns the answer."""
    asked = []

    def request(**changes):
        asked.append(1)
        widget._request = {**FIELDS, **changes, "serial": len(asked)}
        assert widget._answer["serial"] == len(asked)
        return widget._answer

    return request


def drawn(widget):
    """Return what the page draws now, arrays left out."""
    return json.loads(widget._data)["data"]


def test_a_fit_starts_at_its_natural_mixture_and_without_a_proposal(widget):
    assert np.allclose(widget.mixture.array, NATURAL)
    assert widget.proposal is None


def test_weights_of_the_page_are_a_mixture_in_the_next_cell(widget):
    heard = []
    widget.observe(lambda change: heard.append(change["new"]), "mixture")
    widget.weights = {"code": 0.2, "prose": 0.3, "law": 0.5}
    assert widget.mixture == mixopt.Mixture({"code": 0.2, "prose": 0.3, "law": 0.5})
    assert heard == [widget.mixture]


def test_a_mixture_that_is_set_moves_the_page(widget):
    widget.mixture = mixopt.Mixture({"law": 0.5, "code": 0.2, "prose": 0.3})
    assert widget.weights == {"code": 0.2, "prose": 0.3, "law": 0.5}


def test_propose_answers_as_the_fit_does(widget, ask, fit):
    limits = {"bounds": {"law": [0.1, 0.25]}, "max_epochs": 1}
    answer = ask(bounds={**FIELDS["bounds"], "law": [0.1, 0.25]}, max_epochs=1)
    expected = fit.propose(constraints=limits, inventory=TOKENS, tokens=1e10)
    assert answer["error"] is None
    assert widget.proposal.mixture.total_variation(expected.mixture) < 1e-6
    assert widget.mixture == widget.proposal.mixture.over(DOMAINS)
    assert widget.weights == dict(widget.mixture)
    assert answer["active"] == list(expected.binding) != []


def test_the_answer_tells_the_gain_with_its_interval(widget, ask):
    answer = ask()
    gain = widget.proposal.gains["natural"]
    said = f"{gain.value:.4f} ({gain.low:.4f} to {gain.high:.4f})"
    assert any(said in line for line in answer["lines"])


def test_limits_that_no_mixture_meets_are_named_and_nothing_changes(widget, ask):
    before, data = widget.mixture, widget._data
    answer = ask(bounds={name: [0.0, 0.2] for name in DOMAINS})
    assert "no mixture satisfies the caps" in answer["error"]
    assert "\n" not in answer["error"]
    assert (widget.mixture, widget._data, widget.proposal) == (before, data, None)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"tokens": "many"}, "target tokens 'many': is not a number of tokens"),
        ({"max_epochs": -1}, "max_epochs"),
        ({"bounds": {"code": [0.5, 0.2]}}, "the minimum, 0.5, is above the maximum, 0.2"),
        ({"radius": {"kind": "tv", "size": 2, "reference": "natural"}}, "radius.tv"),
        ({"target": "poems"}, "poems"),
    ],
)
def test_a_field_that_cannot_be_right_is_one_line(ask, field, message):
    assert message in ask(**field)["error"]


def test_a_locked_domain_keeps_its_share(widget, ask):
    ask(locked={"prose": 0.37})
    assert widget.mixture["prose"] == pytest.approx(0.37)


def test_a_radius_is_kept(widget, ask):
    answer = ask(radius={"kind": "tv", "size": 0.05, "reference": "natural"})
    natural = mixopt.Mixture.from_array(DOMAINS, NATURAL)
    assert widget.mixture.total_variation(natural) <= 0.05 + 1e-6
    assert any("total variation from natural" in line for line in answer["active"])


def test_another_target_is_what_the_page_then_minimises(widget, ask):
    ask(target="law")
    assert widget.proposal.objective == "law"
    assert drawn(widget)["objective"]["description"] == "law"


def test_the_page_draws_the_limits_that_were_asked_for(widget, ask):
    ask(max_epochs=2)
    assert drawn(widget)["constraints"]["max_epochs"] == [2, 2, 2]


def test_epochs_need_an_inventory(fit):
    answer = mixopt.explore(fit)
    with pytest.raises(ConfigError, match="needs the tokens of each domain"):
        answer.propose({"max_epochs": 2, "tokens": "1e10"})


def test_proposing_in_python_raises(widget):
    with pytest.raises(InfeasibleError, match="no mixture satisfies"):
        widget.propose({"bounds": {name: [0.0, 0.2] for name in DOMAINS}})


def test_without_a_kernel_there_is_a_table(widget):
    data, _ = widget._repr_mimebundle_()
    assert "<td" in data["text/html"]
    assert data["text/plain"] == repr(widget) == "Explorer(prose 50.0%, code 30.0%, law 20.0%)"


def test_the_script_is_a_module_with_a_default_export(widget):
    assert widget._esm.rstrip().endswith("export default { render: renderWidget };")
    assert "import " not in "".join(
        line for line in widget._esm.splitlines() if line.startswith("import ")
    )


@pytest.mark.parametrize("name", ["anywidget", "traitlets"])
def test_a_missing_package_names_the_extra(fit, name, monkeypatch):
    monkeypatch.delitem(sys.modules, "mixopt.what_if.explorer", raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PluginError, match=rf"explore: needs {name}: .*'mixopt\[notebooks\]'"):
        mixopt.explore(fit)


def test_what_is_neither_a_run_nor_a_fit_is_refused():
    with pytest.raises(ConfigError, match="expected a run .* or a fit, got str"):
        mixopt.explore("runs/mine")
