"""A page is given numbers and words, whatever a run holds, and those of the run."""

import base64
import json

import numpy as np
import pytest
from made_fit import fitted

from mixopt import load_run
from mixopt.errors import PluginError
from mixopt.reporting import law_data, packed_json
from mixopt.reporting.what_if import starts_of, what_if_data, what_if_section
from mixopt.run_directory import request_of

ATTACKS = ("</script><script>window.hit = 1</script>", "<!--<script>", "__proto__", "\u2028&amp;")


@pytest.fixture(scope="module")
def run(finished):
    return load_run(finished)


@pytest.fixture(scope="module")
def data(run):
    return what_if_data(request_of(run, run.fit), starts_of(run))


def test_no_name_ends_the_script_that_holds_it():
    packed = packed_json({"names": list(ATTACKS)})
    assert not set("<>&\u2028") & set(packed)
    assert json.loads(packed)["data"]["names"] == list(ATTACKS)


@pytest.mark.parametrize("kind", ["float64", "float32", "int32"])
def test_arrays_are_kept_exactly_and_equal_ones_once(kind):
    array = np.array([[0, 1, -2], [3, 300, -30000]], dtype=kind)
    packed = json.loads(packed_json({"a": array, "b": {"c": array.copy()}}))
    assert packed["data"] == {"a": {"$array": 0}, "b": {"c": {"$array": 0}}}
    (one,) = packed["arrays"]
    found = np.frombuffer(base64.b64decode(one["data"]), one["type"])
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
    with pytest.raises(ValueError, match=message):
        packed_json({"a": value})


@pytest.mark.parametrize("name", ["linear", "odd_regressors:Plain", "odd_regressors:OfItsOwnKind"])
def test_a_regressor_that_no_page_can_predict_with_has_no_law(name):
    with pytest.raises(PluginError, match="cannot be written out as numbers"):
        law_data(fitted(name))


def test_the_data_is_that_of_the_run(run, data):
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
    assert data["trials"]["names"] == run.fit.trials.table["trial"].to_list()
    assert np.array_equal(data["trials"]["weights"], run.fit.data.weights_ND)


def test_a_law_too_large_for_a_page_is_left_out_with_a_line(run, monkeypatch):
    monkeypatch.setattr("mixopt.reporting.what_if.MAX_BYTES", 1000)
    section = what_if_section(run)
    assert "The what-if is left out" in section.body
    assert not section.script
