"""The widget of notebooks from Python's side: what the page turns is here, and back."""

import json
import sys

import numpy as np
import pytest
from made_what_if import NATURAL, made_fit_of_gaussians

import mixopt
from mixopt.errors import ConfigError, PluginError

TOKENS = {"code": 3e9, "prose": 5e9, "law": 2e9}


@pytest.fixture(scope="module")
def fit():
    return made_fit_of_gaussians()


@pytest.fixture
def widget(fit):
    return mixopt.explore(fit, constraints={"max_epochs": 2}, inventory=TOKENS, tokens=1e10)


def test_a_fit_starts_at_its_natural_mixture_with_the_limits_that_are_given(widget):
    assert np.allclose(widget.mixture.array, NATURAL)
    limits = json.loads(widget._data)["data"]["constraints"]
    assert limits["max_epochs"] == [2, 2, 2]
    assert limits["target_tokens"] == 10_000_000_000


def test_weights_of_the_page_are_a_mixture_in_the_next_cell(widget):
    heard = []
    widget.observe(lambda change: heard.append(change["new"]), "mixture")
    widget.weights = {"code": 0.2, "prose": 0.3, "law": 0.5}
    assert widget.mixture == mixopt.Mixture({"code": 0.2, "prose": 0.3, "law": 0.5})
    assert heard == [widget.mixture]


def test_a_mixture_that_is_set_moves_the_page(widget):
    widget.mixture = mixopt.Mixture({"law": 0.5, "code": 0.2, "prose": 0.3})
    assert widget.weights == {"code": 0.2, "prose": 0.3, "law": 0.5}


def test_without_a_kernel_the_mixture_is_a_line(widget):
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"].startswith("Explorer(prose 50.0%, code 30.0%, law 20.0%)")


def test_a_missing_package_names_the_extra(fit, monkeypatch):
    monkeypatch.delitem(sys.modules, "mixopt.reporting.explorer", raising=False)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(PluginError, match=r"explore: needs anywidget: .*'mixopt\[all\]'"):
        mixopt.explore(fit)


def test_what_is_neither_a_run_nor_a_fit_is_refused():
    with pytest.raises(ConfigError, match="expected a run .* or a fit, got str"):
        mixopt.explore("runs/mine")
