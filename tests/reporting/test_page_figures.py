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


@pytest.fixture(scope="module")
def element():
    return page_svg(figure_svg(plot_mixtures(PROPOSAL, NATURAL)), "shares", "a < b")


@pytest.fixture(scope="module")
def fit():
    return fitted("linear")


def places(svg):
    """Return where the dots of a file are."""
    found = re.findall(r'<use xlink:href="#[^"]*" x="([^"]*)" y="([^"]*)" style="fill: ', svg)
    return np.array(found, dtype=float)


def drawn(svg):
    """Return where the dots of a page's figure are."""
    found = re.findall(r"M(-?[\d.]+) (-?[\d.]+)h0", svg)
    return np.array(found, dtype=float)


def test_it_follows_the_page_s_colours_and_letters(element):
    assert "currentColor" in element
    assert "#1c2128" not in element
    assert re.findall('font-family:[^;"]*', element) == ["font-family:var(--letters)"]


def test_letters_that_an_older_matplotlib_names_with_their_size_are_the_page_s_too():
    text = "<text style=\"fill: #1c2128; font: 9px 'DejaVu Sans', sans-serif; text-anchor: end\">"
    svg = f'<svg width="9pt" height="9pt" viewBox="0 0 9 9">{text}a</text></svg>'
    shown = "fill: currentColor; font-size: 9px; text-anchor: end"
    assert f'<text style="{shown}">a</text>' in page_svg(svg, "a", "b")


def test_it_has_ids_of_its_own_and_those_alone_that_are_used(element):
    names = re.findall(r'\bid="([^"]*)"', element)
    used = re.findall(r'(?:url\(|href=")#([^)"]*)', element)
    assert all(name.startswith("shares-") for name in names)
    assert sorted(set(used)) == sorted(names)


def test_it_says_what_it_shows(element):
    root = ElementTree.fromstring(element)
    assert (root.get("role"), root.get("aria-label")) == ("img", "a < b")


def test_all_its_words_are_those_of_the_file():
    svg = figure_svg(plot_mixtures(PROPOSAL, NATURAL))
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert re.findall(r"<text[^>]*>([^<]*)</text>", page_svg(svg, "a", "b")) == texts


def responses(fit):
    return plot_responses(fit, AT)


@pytest.mark.parametrize("draw", [lambda fit: plot_design(fit.trials), responses])
def test_every_dot_of_the_file_is_at_its_place_in_the_path(fit, draw):
    svg = figure_svg(draw(fit))
    found = drawn(page_svg(svg, "a", "b"))
    expected = places(svg)
    expected = expected[len(expected) - len(found) :] if len(found) > len(expected) else expected
    assert len(found) >= 3 * len(fit.trials)
    gaps = np.abs(found[:, None, :] - expected[None]).max(axis=2)
    assert gaps.min(axis=1).max() <= 0.005 + 1e-9


def test_marks_that_are_no_plain_circles_stay_as_they_are():
    figure, axes_RC = new_figure(2.0)
    axes_RC[0, 0].scatter([0, 1], [0, 1], marker="s", linewidths=0)
    axes_RC[0, 0].scatter([0, 1], [1, 0], marker="o", linewidths=1, edgecolors="#123456")
    element = page_svg(figure_svg(figure), "a", "b")
    assert "h0" not in element
    assert element.count("#123456") >= 2


def test_a_name_that_no_xml_may_have_is_shown_without_its_odd_letters():
    svg = figure_svg(plot_mixtures({"a_b<": 0.5, "c": 0.5})).replace("a_b", "a\x01b")
    assert ">ab&lt;<" in page_svg(svg, "a", "b")


def test_equal_figures_give_equal_svg():
    first, second = (figure_svg(plot_mixtures(PROPOSAL, NATURAL)) for _ in range(2))
    assert first == second


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
    answer = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.stdout == f"False {tmp_path}\n", answer.stderr
