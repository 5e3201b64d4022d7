"""Figures as files and on the page: equal, small, in its colours; no foreign settings count."""

import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from made_fit import fitted

from mixopt.reporting import figure_svg, page_svg, plot_design, plot_mixtures, plot_responses
from mixopt.reporting.figure_style import new_figure

NATURAL = {"web": 0.7, "code": 0.3}
PROPOSAL = {"web": 0.1, "code": 0.9}
AT = {"code": 0.5, "prose": 0.3, "law": 0.2}


def test_a_figure_has_the_page_s_colours_and_letters_the_file_s_words_and_ids_of_its_own():
    svg = figure_svg(plot_mixtures({"proposed": PROPOSAL, "natural": NATURAL}))
    assert svg == figure_svg(plot_mixtures({"proposed": PROPOSAL, "natural": NATURAL}))
    element = page_svg(svg, "shares", "a < b")
    assert "currentColor" in element
    assert "#1c2128" not in element
    assert re.findall('font-family:[^;"]*', element) == ["font-family:var(--letters)"]
    names = re.findall(r'\bid="([^"]*)"', element)
    used = re.findall(r'(?:url\(|href=")#([^)"]*)', element)
    assert all(name.startswith("shares-") for name in names)
    assert sorted(set(used)) == sorted(names)
    root = ElementTree.fromstring(element)
    assert (root.get("role"), root.get("aria-label")) == ("img", "a < b")
    texts = r"<text[^>]*>([^<]*)</text>"
    assert re.findall(texts, element) == re.findall(texts, svg)
    # As an older matplotlib writes letters, with their size.
    text = "<text style=\"fill: #1c2128; font: 9px 'DejaVu Sans', sans-serif; text-anchor: end\">"
    svg = f'<svg width="9pt" height="9pt" viewBox="0 0 9 9">{text}a</text></svg>'
    shown = "fill: currentColor; font-size: 9px; text-anchor: end"
    assert f'<text style="{shown}">a</text>' in page_svg(svg, "a", "b")


@pytest.mark.parametrize("kind", ["design", "responses"])
def test_every_dot_of_the_file_is_at_its_place_in_the_path(kind):
    fit = fitted("linear")
    svg = figure_svg(plot_design(fit.trials) if kind == "design" else plot_responses(fit, AT))
    place = r'<use xlink:href="#[^"]*" x="([^"]*)" y="([^"]*)" style="fill: '
    expected = np.array(re.findall(place, svg), dtype=float)
    found = re.findall(r"M(-?[\d.]+) (-?[\d.]+)h0", page_svg(svg, "a", "b"))
    found = np.array(found, dtype=float)
    assert len(found) >= 3 * len(fit.trials)
    gaps = np.abs(found[:, None, :] - expected[None]).max(axis=2)
    assert gaps.min(axis=1).max() <= 0.005 + 1e-9


def test_marks_that_are_no_plain_circles_stay_as_they_are_and_letters_that_no_xml_may_have_go():
    figure, axes_RC = new_figure(2.0)
    axes_RC[0, 0].scatter([0, 1], [0, 1], marker="s", linewidths=0)
    axes_RC[0, 0].scatter([0, 1], [1, 0], marker="o", linewidths=1, edgecolors="#123456")
    element = page_svg(figure_svg(figure), "a", "b")
    assert "h0" not in element
    assert element.count("#123456") >= 2
    svg = figure_svg(plot_mixtures({"a_b<": 0.5, "c": 0.5})).replace("a_b", "a\x01b")
    assert ">ab&lt;<" in page_svg(svg, "a", "b")


ASK = (
    "import os; from mixopt.reporting.figure_style import matplotlib;"
    "print(matplotlib.rcParams['text.usetex'], os.getcwd())"
)


@pytest.mark.parametrize("content", ["text.usetex: True\n", None])
def test_settings_in_the_working_directory_do_not_count(tmp_path, content):
    settings = tmp_path / "matplotlibrc"
    if content is None:
        os.mkfifo(settings)
    else:
        settings.write_text(content)
    answer = subprocess.check_output([sys.executable, "-c", ASK], cwd=tmp_path, timeout=300)
    assert answer.decode() == f"False {tmp_path}\n"
