"""Figures of experts show the loads they are given."""

from dataclasses import replace

import numpy as np
import pytest

from mixopt.errors import RoutingError
from mixopt.reporting import figure_svg, plot_distances, plot_domain_experts
from mixopt.reporting.expert_maps import plot_load
from mixopt.reporting.expert_plots import plot_expert_history, plot_windows
from mixopt.routing import Assignments
from mixopt.routing.assignments import no_layer

NAMES = ("web", "code")


def made(layers=(1, 2, 3, 4), experts=4, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for number in layers:
        counts_HDE = rng.integers(1, 100, size=(2, 2, experts))
        counts_HDE[:, :, 0] = 0  # a dead expert
        tokens_D = counts_HDE.sum((0, 2)).astype(float)
        found.append(
            replace(
                no_layer(number, experts, 1, 2),
                counts_HDE=counts_HDE,
                probability_DE=np.ones((2, experts)) / experts * tokens_D[:, None],
                entropy_D=tokens_D,
            )
        )
    return Assignments(NAMES, tuple(found))


def image(axes):
    return np.asarray(axes.images[0].get_array())


def test_a_domains_load_is_shown_as_a_multiple_of_the_even_one():
    assignments = made(layers=(4,))
    axes = plot_domain_experts(assignments).axes[0]
    counts_DE = assignments.layers[0].counts_DE
    order = [int(tick.get_text()) for tick in axes.get_xticklabels()]
    load_DE = 4 * (counts_DE / counts_DE.sum(1, keepdims=True))[:, order]
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(image(axes), np.clip(np.log2(load_DE), -3, 3))
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(NAMES)


def test_the_first_the_middle_and_the_last_layer_are_shown_or_those_asked_for():
    titles = [axes.get_title(loc="left") for axes in plot_domain_experts(made()).axes[:3]]
    assert titles == ["layer 1", "layer 3", "layer 4"]
    figure = plot_distances(made(), layers=[2])
    assert figure.axes[0].get_title(loc="left") == "layer 2"
    with pytest.raises(RoutingError, match="layer 9 has no router"):
        plot_domain_experts(made(), layers=[9])


def test_each_layer_has_a_line_over_the_windows_and_there_is_a_mean():
    windows = [(step, made(seed=step)) for step in (100, 200, 300)]
    axes = plot_windows(windows).axes[0]
    assert len(axes.lines) == 4 + 1 + 1  # one of them stands for a layer in the legend
    assert axes.lines[0].get_xdata().tolist() == [100, 200, 300]


CHANGES = [(200, "web 50% to 20%"), (250, "web 20% to 50%")]


def test_a_change_of_weights_is_a_line_in_each_panel_and_is_named_above():
    windows = [(step, made(seed=step)) for step in (100, 200, 300)]
    figure = plot_windows(windows, changes=CHANGES)
    for axes in figure.axes:
        assert [line.get_xdata()[0] for line in axes.lines[-2:]] == [200, 250]
    title = figure.get_suptitle()
    assert title.startswith("Weights changed (dashed) after step 200: web 50% to 20%")


def test_a_change_is_between_the_windows_of_a_history():
    windows = [(step, made(seed=step)) for step in (100, 200, 300)]
    figure = plot_expert_history(windows, layer=2, changes=CHANGES)
    shown = [axes for axes in figure.axes if axes.images]
    for axes in shown:
        assert [line.get_xdata()[0] for line in axes.lines] == [1.5, 2.0]
    assert "step 250: web 20% to 50%" in figure.get_suptitle()


def test_of_many_changes_the_first_few_are_named():
    windows = [(step, made(seed=step)) for step in (100, 200, 300)]
    changes = [(100 + n, f"change {n}") for n in range(30)]
    figure = plot_windows(windows, changes=changes)
    assert "change 3" in figure.get_suptitle()
    assert figure.get_suptitle().endswith("26 more")


def test_a_history_has_a_panel_for_all_and_for_each_domain():
    windows = [(step, made(seed=step)) for step in (100, 200, 300)]
    figure = plot_expert_history(windows, layer=2)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title(loc="left") for axes in shown] == ["all domains", *NAMES]
    assert image(shown[0]).shape == (4, 3)


def test_distances_are_between_0_and_1():
    axes = plot_distances(made()).axes[0]
    assert image(axes).shape == (2, 2)
    assert (np.diag(image(axes)) == 0).all()


def test_equal_counts_give_equal_figures():
    assert figure_svg(plot_load(made())) == figure_svg(plot_load(made()))
