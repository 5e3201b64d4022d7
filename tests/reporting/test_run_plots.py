"""Figures of a run and of its experts show its own numbers, or name the command that is next."""

import re

import numpy as np
import pytest
from made_experts import counted, made_layer
from refusals import refuses

from mixopt.errors import ConfigError, RunError
from mixopt.proposals import mixture_of
from mixopt.reporting import figure_svg, plot_domain_experts, plot_windows
from mixopt.reporting.run_experts import SweepExperts, shown_trial
from mixopt.routing import Assignments, ExpertCounts, layer_table
from mixopt.run_directory import Run, load_run


@pytest.fixture(scope="module")
def run(finished):
    return load_run(finished)


def widths(figure):
    return sorted(bar.get_width() for bar in figure.axes[0].patches)


def test_all_figures_are_found_by_completion(run):
    found = {name for name in dir(run.plot) if not name.startswith("_")}
    names = "mixtures cells design held_out responses validation"
    assert found == set(names.split())
    assert "mixtures()" in repr(run.plot)


def test_figures_of_a_run_are_of_its_recommendation_beside_natural(run):
    found, figure = run.recommendation, run.plot.mixtures()
    shares = [*found.mixture.values(), *found.natural.values()]
    assert widths(figure) == pytest.approx(sorted(shares))
    assert "recommended" in re.findall(r"<text[^>]*>([^<]*)</text>", figure_svg(figure))
    refuses(ConfigError, "a map of cells needs domains that nest", run.plot.cells)
    axes = run.plot.responses().axes[0]
    marks = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert marks == [pytest.approx(found.mixture[axes.get_title(loc="left")])]


def test_experts_are_those_of_a_trial_of_the_recommended_mixture(run):
    names = [*run.trials.table["trial"], *run.validation.trials.table["trial"]]
    counts = {}
    for number, name in enumerate(names):
        layers = [np.full((2, 4), 8) + number * np.eye(2, 4, dtype=int)]
        counts[name] = ExpertCounts(counted(layers), counted(layers))
    found = SweepExperts(run.path, None, counts, shown_trial(run, counts), None)
    name = next(item for item in names if mixture_of(item) == run.recommendation.chosen)
    expected = plot_domain_experts(counts[name].held_out)
    assert figure_svg(found.figures()["experts_domains"]) == figure_svg(expected)


def test_a_figure_of_a_step_that_is_not_done_says_which_command_does_it(run, copied, tmp_path):
    load_run(copied).log.discard("fit")
    plot = load_run(copied).plot
    draws = {"propose": plot.mixtures, "fit": plot.held_out, "validate": plot.validation}
    for step, draw in draws.items():
        said = rf"'{step}' is not done yet: mixopt run {copied} --until {step}"
        refuses(RunError, said, draw)
    assert plot.design().axes
    empty = Run(tmp_path / "none", run.config)
    refuses(RunError, "'sweep' is not done yet: mixopt run .* --until sweep", empty.plot.design)


def made_counts(layers=(1, 2, 3, 4), experts=4, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for number in layers:
        counts_DE = rng.integers(1, 200, size=(2, experts))
        counts_DE[:, 0] = 0  # a dead expert
        found.append(made_layer(counts_DE, number))
    return Assignments(("web", "code"), tuple(found))


def test_a_domain_s_load_is_a_multiple_of_the_even_one_in_the_first_the_middle_and_the_last_layer():
    assignments = made_counts(layers=(4,))
    axes = plot_domain_experts(assignments).axes[0]
    counts_DE = assignments.layers[0].counts_DE
    order = [int(tick.get_text()) for tick in axes.get_xticklabels()]
    load_DE = 4 * (counts_DE / counts_DE.sum(1, keepdims=True))[:, order]
    image = np.asarray(axes.images[0].get_array())
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(image, np.clip(np.log2(load_DE), -3, 3))
    assert axes.figure.axes[-1].get_yticks().tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["web", "code"]
    titles = [axes.get_title(loc="left") for axes in plot_domain_experts(made_counts()).axes[:3]]
    assert titles == ["layer 1", "layer 3", "layer 4"]


def test_layers_and_their_mean_are_lines_over_the_windows_and_so_is_a_change_in_each_panel():
    windows = [(step, layer_table(made_counts(seed=step))) for step in (100, 200, 300)]
    figure = plot_windows(windows, changes=[200, 250])
    for axes in figure.axes:
        *layers, mean, first, second = axes.lines
        assert len(layers) == 4
        assert {tuple(line.get_xdata()) for line in (*layers, mean)} == {(100, 200, 300)}
        assert (first.get_xdata()[0], second.get_xdata()[0]) == (200, 250)
