"""What a page and a notebook are given, whatever a run holds, and what the widget gives back."""

import base64
import importlib
import json
import sys

import numpy as np
import pytest
from made_what_if import INVENTORY, NATURAL, made_fit_of_gaussians
from refusals import refuses

import mixopt
from mixopt import load_run
from mixopt.errors import ConfigError, PluginError
from mixopt.reporting import packed_json
from mixopt.reporting.what_if import starts_of, what_if_data, what_if_section
from mixopt.run_directory import request_of

ATTACKS = ("</script><script>window.hit = 1</script>", "<!--<script>", "__proto__", "\u2028&amp;")


@pytest.fixture(scope="module")
def run(finished):
    return load_run(finished)


@pytest.mark.parametrize("kind", ["float64", "float32", "int32"])
def test_arrays_are_kept_exactly_and_equal_ones_once(kind):
    array = np.array([[0, 1, -2], [3, 300, -30000]], dtype=kind)
    text = packed_json({"a": array, "b": {"c": array.copy()}, "names": ATTACKS})
    assert not set("<>&\u2028") & set(text)  # no name ends the script that holds it
    packed = json.loads(text)
    shown = {"$array": 0}
    assert packed["data"] == {"a": shown, "b": {"c": shown}, "names": list(ATTACKS)}
    (packed_array,) = packed["arrays"]
    found = np.frombuffer(base64.b64decode(packed_array["data"]), packed_array["type"])
    assert found.tolist() == array.ravel().tolist()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "number"),
        (np.array([1.0, np.inf]), "number"),
        (np.array(["</script>"]), "an array of"),
        ({"$array": 0}, "read as an array"),
    ],
)
def test_what_a_page_cannot_read_is_refused(value, message):
    refuses(ValueError, message, packed_json, {"a": value})


def test_the_data_is_that_of_the_run(run):
    data = what_if_data(request_of(run, run.fit), starts_of(run))
    domains, limits = run.fit.domains, data["constraints"]
    assert data["domains"] == list(domains)
    known = {"Recommended": run.recommendation.mixture, "Natural": run.natural}
    known |= {"hand": run.validation.mixture("hand")}
    assert [name for name, _ in data["starts"]] == list(known)
    for name, weights in data["starts"]:
        assert np.array_equal(weights, known[name].over(domains).array)
    assert limits["target_tokens"] == 25_000_000_000
    assert limits["max_epochs"] == [4] * 2
    assert limits["inventory"].tolist() == [run.inventory[name] for name in domains]
    assert limits["high"].tolist() == [0.8, 1.0]
    assert data["law"]["intervals"]["agrees"] == data["targets"].index("help")
    assert data["trials"]["names"] == run.fit.trials.table["trial"].to_list()
    assert np.array_equal(data["trials"]["weights"], run.fit.data.weights_ND)


def test_a_law_too_large_for_a_page_is_left_out_with_a_line(run, monkeypatch):
    monkeypatch.setattr("mixopt.reporting.what_if.MAX_BYTES", 1000)
    section = what_if_section(run)
    assert "The what-if is left out" in section.body
    assert not section.script


@pytest.fixture(scope="module")
def fit():
    return made_fit_of_gaussians()


@pytest.fixture
def widget(fit):
    return mixopt.explore(fit, constraints={"max_epochs": 2}, inventory=INVENTORY, tokens=1e10)


def test_a_fit_starts_at_its_natural_mixture_with_the_limits_that_are_given(widget):
    assert np.allclose(widget.mixture.array, NATURAL)
    limits = json.loads(widget._data)["data"]["constraints"]
    known = {"max_epochs": [2, 2, 2], "target_tokens": 10_000_000_000, "guardrails": None}
    assert {name: limits[name] for name in known} == known


def test_a_run_starts_at_its_recommendation_with_its_limits_and_those_that_are_given(run):
    rails = {"reference": "uniform", "targets": {"help": 0.1}}
    widget = mixopt.explore(run, constraints={"guardrails": rails, "floors": {"code": 9.0}})
    assert widget.mixture == run.recommendation.mixture.over(run.fit.domains)
    packed = json.loads(widget._data)
    limits = packed["data"]["constraints"]
    assert limits["max_epochs"] == [4] * 2
    held = limits["guardrails"]
    columns = [run.fit.targets.index(name) for name in ("help", "code")]
    assert (held["reference"], held["targets"]) == ("uniform", columns)
    assert (held["fixed"], held["floors"]) == ([None, 9.0], [False, True])
    margins = packed["arrays"][held["margins"]["$array"]]
    assert np.frombuffer(base64.b64decode(margins["data"]), margins["type"]).tolist() == [0.1, 0.0]


def test_weights_of_the_page_are_a_mixture_in_the_next_cell_and_one_set_there_moves_the_page(
    widget,
):
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"].startswith("Explorer(prose 50.0%, code 30.0%, law 20.0%)")
    heard = []
    widget.observe(lambda change: heard.append(change["new"]), "mixture")
    widget.weights = {"code": 0.2, "prose": 0.3, "law": 0.5}
    assert widget.mixture == mixopt.Mixture({"code": 0.2, "prose": 0.3, "law": 0.5})
    assert heard == [widget.mixture]
    assert {"weights", "_data"} <= set(widget.traits(sync=True))
    widget.mixture = mixopt.Mixture({"law": 0.6, "code": 0.1, "prose": 0.3})
    assert widget.weights == {"code": 0.1, "prose": 0.3, "law": 0.6}


def test_a_missing_package_names_the_extra_and_what_is_no_fit_is_refused(monkeypatch):
    refuses(ConfigError, "expected a run .* or a fit, got str", mixopt.explore, "runs/mine")
    monkeypatch.delitem(sys.modules, "mixopt.reporting.explorer", raising=False)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    hint = r"explore: needs anywidget: .*'mixopt\[all\]'"
    refuses(PluginError, hint, importlib.import_module, "mixopt.reporting.explorer")
