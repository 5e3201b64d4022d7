"""Figures show all the values they are given, and become SVG that a page can hold."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from mixopt.plots import figure_svg
from mixopt.plots.figure_style import page_svg
from mixopt.plots.mixture_plots import plot_design, plot_held_out, plot_responses, plot_shares
from mixopt.plots.validation_plots import plot_curves, plot_gains, plot_validation
from mixopt.proposals import Comparison, Gain, Interval

NATURAL = {"web": 0.7, "code": 0.2, "books": 0.1}
PROPOSAL = {"web": 0.05, "code": 0.0, "books": 0.95}
COMPARISONS = [
    Comparison("natural", -0.05, -0.06, -0.04, 3),
    Comparison("uniform", 0.01, -0.01, 0.03, 3),
]


def bars(figure):
    return {round(bar.get_width(), 6) for bar in figure.axes[0].patches}


def texts(figure):
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", figure_svg(figure)))


def weights(trials=12):
    return np.random.default_rng(0).dirichlet(np.ones(3), size=trials)


def test_every_share_is_a_bar_with_its_value():
    figure = plot_shares(NATURAL, PROPOSAL)
    assert bars(figure) == {0.7, 0.2, 0.1, 0.05, 0.0, 0.95}
    assert "95.0%" in texts(figure)


def test_no_bar_is_cut_off():
    figure = plot_shares(NATURAL, PROPOSAL)
    assert figure.axes[0].get_xlim()[1] > 0.95


def test_the_largest_proposed_share_is_at_the_top():
    axes = plot_shares(NATURAL, PROPOSAL).axes[0]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == ["code", "web", "books"]


def test_a_design_shows_each_trial_in_each_domain():
    figure = plot_design(weights(), tuple(NATURAL), NATURAL)
    shown = sum(len(dots.get_offsets()) for dots in figure.axes[0].collections)
    assert shown == 12 * 3


def test_responses_have_a_panel_for_each_domain():
    objective_N = np.linspace(1, 2, 12)
    figure = plot_responses(weights(), objective_N, tuple(NATURAL), PROPOSAL, "bits per byte")
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(NATURAL)


def test_figures_of_many_domains_have_those_with_the_largest_shares():
    names = tuple(f"d{place:03}" for place in range(300))
    shares_D = np.arange(300.0) / np.arange(300.0).sum()
    proposal = dict(zip(names, shares_D.tolist(), strict=True))
    even = dict.fromkeys(names, 1 / 300)
    weights_ND = np.tile(shares_D, (5, 1))
    responses = plot_responses(weights_ND, np.arange(5.0), names, proposal, "bits per byte")
    assert [axes.get_title(loc="left") for axes in responses.axes] == list(names[-24:])
    for figure in (plot_shares(even, proposal), plot_design(weights_ND, names, even)):
        labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
        assert sorted(labels) == list(names[-24:])
        assert "(24 of 300 domains, with the largest shares)" in figure.axes[0].get_xlabel()


def test_held_out_predictions_share_one_scale_with_the_identity_line():
    figure = plot_held_out(np.array([1.0, 3.0]), np.array([2.0, 2.5]), "bits per byte", "note")
    axes = figure.axes[0]
    assert axes.get_xlim() == axes.get_ylim()
    low, high = axes.get_xlim()
    assert low < 1.0
    assert high > 3.0


def test_equal_predictions_are_drawn_too():
    figure = plot_held_out(np.array([1.0, 1.0]), np.array([1.0, 1.0]), "bits per byte")
    assert "<svg" in figure_svg(figure)


def test_a_validation_without_a_finished_seed_is_drawn_without_it():
    values = {"proposal": {0: 1.0, 1: 1.1}, "natural": {}}
    assert "natural" in texts(plot_validation(values, [], "bits per byte"))


def test_an_interval_is_drawn_in_the_row_of_its_baseline():
    values = {name: {0: 1.0, 1: 1.1} for name in ("proposal", "natural", "uniform")}
    left, right = plot_validation(values, COMPARISONS, "bits per byte").axes
    rows = [line.get_ydata()[0] for line in right.lines if len(line.get_ydata()) == 1]
    assert rows == [1, 2]
    assert left.get_ylim() == right.get_ylim()


def test_predicted_and_validated_gains_are_both_drawn():
    gains = {
        "natural": Gain(Interval(0.1, 0.0, 0.2), 3, "not significant", Interval(0.2, 0.1, 0.3)),
        "ours": Gain(Interval(-0.1, -0.2, 0.0), 3, "not significant"),
    }
    low, high = plot_gains(gains, "bits per byte").axes[0].get_xlim()
    assert low < -0.2
    assert high > 0.3


def test_curves_have_a_line_for_each_seed():
    line = (np.array([1e6, 2e6]), np.array([2.0, 1.5]))
    figure = plot_curves({"proposal": [line, line], "natural": [line]}, "bits per byte")
    assert len(figure.axes[0].lines) == 3
    assert "2M" in texts(figure)


def test_equal_figures_give_equal_svg():
    assert figure_svg(plot_shares(NATURAL, PROPOSAL)) == figure_svg(plot_shares(NATURAL, PROPOSAL))


def test_drawing_changes_no_setting_of_matplotlib():
    before = dict(matplotlib.rcParams)
    figure_svg(plot_shares(NATURAL, PROPOSAL))
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_not_used():
    code = "import sys, mixopt.plots.mixture_plots, mixopt.plots.validation_plots as _\n"
    code += "print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture
def element():
    return page_svg(figure_svg(plot_shares(NATURAL, PROPOSAL)), "shares", "a &lt; b")


def test_a_figure_of_a_page_follows_the_page_s_colours(element):
    assert "currentColor" in element
    assert "#1c2128" not in element


def test_a_figure_of_a_page_has_ids_of_its_own(element):
    names = re.findall(r'\bid="([^"]*)"', element)
    used = re.findall(r'(?:url\(|href=")#([^)"]*)', element)
    assert all(name.startswith("shares-") for name in names)
    assert set(used) <= set(names)


def test_a_figure_of_a_page_says_what_it_shows(element):
    root = ElementTree.fromstring(element)
    assert (root.get("role"), root.get("aria-label")) == ("img", "a < b")
