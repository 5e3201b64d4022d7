"""Data in a page is numbers and words, whatever a run holds."""

import numpy as np
import pytest
from law_answers import law_page
from made_fit import fitted

from mixopt.errors import PluginError
from mixopt.what_if import law_data, packed_json

ATTACKS = ("</script><script>window.hit = 1</script>", "<!--<script>", "__proto__", "\u2028&amp;")
READ = """<script type="application/json" id="data">{data}</script>
<script>{script}; const found = readWhatIf(document.getElementById("data").textContent);</script>"""


@pytest.fixture
def read(open_page):
    """A function that reads packed data in a browser and asks something of it."""
    from mixopt.what_if import law_script

    def answer(data, question):
        content = READ.format(data=packed_json(data), script=law_script())
        return open_page(content).evaluate(question)

    return answer


def test_no_name_ends_the_script_that_holds_it():
    assert not set("<>&") & set(packed_json({"names": list(ATTACKS)}))


def test_hostile_names_are_read_as_they_are_and_run_nothing(read):
    data = {"names": list(ATTACKS), "of": dict.fromkeys(ATTACKS, 1)}
    answer = read(data, "() => [found.names, Object.keys(found.of), window.hit ?? null]")
    assert answer == [list(ATTACKS), list(ATTACKS), None]


@pytest.mark.parametrize("kind", ["float64", "float32", "int32", "int16"])
def test_arrays_are_read_back_exactly(read, kind):
    array = np.array([[0, 1, -2], [3, 300, -30000]], dtype=kind) / (8 if "f" in kind else 1)
    array = array.astype(kind)
    assert read({"a": array}, "() => Array.from(found.a)") == array.ravel().tolist()


def test_equal_arrays_are_kept_once():
    array = np.arange(1000.0)
    once = len(packed_json({"a": array}))
    assert len(packed_json({"a": array, "b": {"c": array.copy()}})) < once + 50


@pytest.mark.parametrize("value", [np.nan, np.inf, np.array([1.0, np.nan])])
def test_a_number_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="number"):
        packed_json({"a": value})


def test_words_in_an_array_are_refused():
    with pytest.raises(ValueError, match="an array of"):
        packed_json({"a": np.array(["</script>"])})


def test_a_key_that_would_be_read_as_an_array_is_refused():
    with pytest.raises(ValueError, match="read as an array"):
        packed_json({"names": {"$array": 0}})


def test_a_regressor_that_cannot_be_written_out_has_no_law():
    with pytest.raises(PluginError, match="cannot be written out as numbers"):
        law_data(fitted("odd_regressors:Plain"))


def test_a_kind_of_law_that_no_browser_knows_is_refused():
    with pytest.raises(PluginError, match="a kind of law that no page knows: 'alert'"):
        law_data(fitted("odd_regressors:OfItsOwnKind"))


def test_data_with_an_unknown_kind_is_not_called(open_page, page_problems):
    fit = fitted("linear")
    content = {"domains": list(fit.domains), "targets": list(fit.targets), **law_data(fit)}
    content["law"]["model"]["kind"] = "constructor"
    open_page(law_page(content))
    assert any("unknown kind of law: constructor" in problem for problem in page_problems)
    page_problems.clear()
