"""Pages carry the scripts that they need, without comments."""

import re

import numpy as np
import pytest
from law_answers import ANSWER
from made_fit import fitted
from made_what_if import made_fit_of_gaussians, what_if_content

from mixopt.errors import PluginError
from mixopt.what_if import law_data, law_script, packed_json, view_script, what_if_section
from mixopt.what_if.scripts import LAW, VIEW, asset, compact

WRITTEN = """// About.
/**
 * What it does.
 * @returns {string} Where.
 */
function where() {
  /* Why. */
  const address = "http://www.w3.org/2000/svg"; // behind code it stays

  return `${address} // in a text`;
}
"""
COMPACT = """function where() {
const address = "http://www.w3.org/2000/svg"; // behind code it stays
return `${address} // in a text`;
}"""


def test_comments_blank_lines_and_indentation_are_left_out():
    assert compact(WRITTEN) == COMPACT


def test_what_is_left_of_our_files_is_their_code():
    for name in (*LAW, *VIEW, "what_if.css", "widget.js", "proposal_form.js", "widget.css"):
        code = re.sub(r"^\s*(/\*.*?\*/|//[^\n]*)", "", asset(name), flags=re.DOTALL | re.MULTILINE)
        assert "".join(compact(asset(name)).split()) == "".join(code.split())


def test_scripts_of_a_page_take_less_than_100_kilobytes():
    assert len(view_script({"mean", "gaussian_process", "power", "skills"})) < 100_000


def test_a_page_has_the_kinds_of_its_law_alone():
    fit = fitted("power")
    section = what_if_section(what_if_content(fit))
    assert "powerModel" in section.script
    assert "gaussianModel" not in section.script
    assert "treesModel" not in section.script


@pytest.mark.parametrize("name", ["power", "linear", "gaussian_process", "made_laws:few_trees"])
def test_a_law_needs_no_other_scripts(open_page, name):
    fit = fitted(name)
    content = {"domains": list(fit.domains), "targets": list(fit.targets), **law_data(fit)}
    kinds = {content["law"]["model"]["kind"]}
    page = open_page(
        f'<script type="application/json" id="data">{packed_json(content)}</script>'
        f"<script>{law_script(kinds)}\n"
        "const law = makeLaw(readWhatIf(document.getElementById('data').textContent));</script>"
    )
    even = np.full(len(fit.domains), 1 / len(fit.domains))
    found = page.evaluate(ANSWER, [even.tolist()])[0]
    assert np.abs(np.array(found["losses"]) - fit.predict(even[None]).losses_NM[0]).max() < 1e-6


def test_a_law_that_is_too_large_is_refused_in_a_line(monkeypatch):
    monkeypatch.setattr("mixopt.what_if.section.MOST_BYTES", 1000)
    with pytest.raises(PluginError) as caught:
        what_if_section(what_if_content(made_fit_of_gaussians()))
    assert "the what-if is left out: the fitted law (gaussian_process) takes 0.0 MB" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
