"""Figures of experts show the loads they are given."""

import numpy as np
import pytest
from made_experts import made_layer

from mixopt.errors import RoutingError
from mixopt.reporting import plot_domain_experts, plot_windows
from mixopt.routing import Assignments, layer_table

NAMES = ("web", "code")


def made(layers=(1, 2, 3, 4), experts=4, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for number in layers:
        counts_DE = rng.integers(1, 200, size=(2, experts))
        counts_DE[:, 0] = 0  # a dead expert
        found.append(made_layer(counts_DE, number))
    return Assignments(NAMES, tuple(found))


def tables():
    return [(step, layer_table(made(seed=step))) for step in (100, 200, 300)]


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
    figure = plot_domain_experts(made(), layers=[2])
    assert figure.axes[0].get_title(loc="left") == "layer 2"
    with pytest.raises(RoutingError, match="layer 9 has no router"):
        plot_domain_experts(made(), layers=[9])


def test_each_layer_has_a_line_over_the_windows_and_there_is_a_mean():
    windows = tables()
    axes = plot_windows(windows).axes[0]
    assert len(axes.lines) == 4 + 1
    assert axes.lines[0].get_xdata().tolist() == [100, 200, 300]


def test_a_change_of_weights_is_a_line_in_each_panel():
    figure = plot_windows(tables(), changes=[200, 250])
    for axes in figure.axes:
        assert [line.get_xdata()[0] for line in axes.lines[-2:]] == [200, 250]
