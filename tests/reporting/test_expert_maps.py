"""Figures of all layers at a glance, and of a change of weights, at every size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from made_experts import counted
from PIL import Image

from mixopt.errors import RoutingError
from mixopt.reporting import plot_expert_change, plot_layer_domains, plot_load
from mixopt.reporting.load_scale import LOADS, NEAR, fewer_cells
from mixopt.routing import CountedWindow, ExpertChange

LARGEST = (61, 256, 20)


def made(layers: int, experts: int, domains: int, seed: int = 0):
    """Return assignments with one expert that has 40 times the even load, in the middle layer."""
    rng = np.random.default_rng(seed)
    counts_LDE = rng.integers(50, 150, (layers, domains, experts))
    counts_LDE[layers // 2, :, experts // 2] = 100 * experts
    counts_LDE[-1, :, 0] = 0
    return counted(counts_LDE)


def change(before, after) -> ExpertChange:
    names = before.domains
    even = dict.fromkeys(names, 1 / len(names))
    skewed = {name: float(name == names[0]) for name in names}
    windows = (CountedWindow(0, 40, before),), (CountedWindow(40, 80, after),)
    return ExpertChange(41, "stage 2", even, skewed, *windows)


def image(axes):
    return np.asarray(axes.images[0].get_array())


def pixels(figure) -> np.ndarray:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return np.asarray(Image.open(stream).convert("L"))


# --- The map of loads ----------------------------------------------------------------------------


def test_every_expert_of_every_layer_has_its_cell():
    assignments = made(3, 8, 2)
    left = plot_load(assignments).axes[0]
    counts_LE = np.array([layer.counts_DE.sum(0) for layer in assignments.layers])
    load_LE = 8 * counts_LE / counts_LE.sum(1, keepdims=True)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(image(left), np.clip(np.log2(load_LE), -3, 3))


def test_the_distribution_beside_it_has_the_busiest_expert_of_each_layer():
    middle = plot_load(made(5, 512, 2)).axes[1]
    busiest = middle.lines[-1].get_xdata()
    assert len(busiest) == 5
    assert busiest.argmax() == 2
    assert busiest[2] > 100


def test_an_expert_beyond_the_scale_has_a_ring_where_a_cell_is_too_narrow_to_see():
    left = plot_load(made(5, 512, 2)).axes[0]
    (ring,) = left.lines
    assert (ring.get_xdata().tolist(), ring.get_ydata().tolist()) == ([128], [2])


def test_of_experts_that_share_a_cell_the_one_farthest_from_even_is_shown():
    load_LE = np.ones((1, 600))
    load_LE[0, 10], load_LE[0, 13], load_LE[0, 599] = 6.0, 0.0, 0.5
    shown, each = fewer_cells(load_LE)
    assert (shown.shape, each) == ((1, 200), 3)
    assert (shown[0, 3], shown[0, 4], shown[0, 199]) == (6.0, 0.0, 0.5)
    assert fewer_cells(np.ones((2, 256)))[1] == 1


def test_a_layer_with_fewer_experts_than_another_has_no_cell_there():
    few, many = made(1, 4, 2), made(1, 6, 2)
    both = type(few)(few.domains, (few.layers[0], many.layers[0]))
    shown = image(plot_load(both).axes[0])
    assert np.isnan(shown[0, 4:]).all()
    assert np.isfinite(shown[1]).all()


@pytest.mark.parametrize("sizes", [(1, 8, 2), (24, 64, 8), LARGEST, (8, 512, 3)])
def test_figures_are_no_higher_than_a_screen_at_any_size(sizes):
    assignments = made(*sizes)
    for figure in (
        plot_load(assignments),
        plot_layer_domains(assignments),
        plot_expert_change(change(made(*sizes, seed=1), assignments)),
    ):
        width, height = figure.get_size_inches()
        assert width <= 8
        assert height <= 10


@pytest.mark.parametrize("colours", [LOADS, NEAR])
def test_colours_get_darker_all_the_way_so_that_they_are_told_apart_in_grey(colours):
    red, green, blue = colours(np.linspace(0, 1, 101))[:, :3].T
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    assert (np.diff(grey) < 0).all()
    assert grey[0] > 0.9
    assert grey[-1] < 0.25


def test_an_overloaded_expert_is_dark_in_grey_and_one_that_has_nothing_light():
    counts_E = np.full(8, 1000)
    counts_E[2], counts_E[5] = 9000, 0
    figure = plot_load(counted([np.tile(counts_E, (2, 1))]))
    grey = pixels(figure)
    box = figure.axes[0].get_window_extent()
    row = grey[int(grey.shape[0] - (box.y0 + box.y1) / 2)]
    cells = [row[int(box.x0 + (n + 0.25) * box.width / 8)] for n in range(8)]
    assert (np.argmin(cells), np.argmax(cells)) == (2, 5)


# --- Layers and domains --------------------------------------------------------------------------


def test_each_domain_has_a_cell_in_each_layer():
    apart = np.array([[400, 0, 0, 0], [0, 0, 200, 200]])
    figure = plot_layer_domains(counted([np.full((2, 4), 100), apart]))
    busiest, own, distance = (image(axes) for axes in figure.axes[:3])
    np.testing.assert_allclose(busiest, [[0, 0], [2, 1]])
    np.testing.assert_allclose(own, [[0, 0], [1, 1]])
    np.testing.assert_allclose(distance, [[0, 0], [1, 1]], atol=1e-6)
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["d0", "d1"]


# --- Before and after ----------------------------------------------------------------------------


def test_a_change_has_both_sides_their_ratio_and_the_weights():
    before = counted([np.array([[100, 100, 200, 0], [100, 100, 200, 0]])])
    after = counted([np.array([[100, 200, 100, 0], [100, 200, 100, 0]])])
    figure = plot_expert_change(change(before, after))
    assert figure.get_suptitle() == "Weights changed from step 41 on: stage 2"
    was, now, ratio = (image(axes) for axes in figure.axes[:3])
    np.testing.assert_allclose(was, [[0, 0, 1, -3]])
    np.testing.assert_allclose(now, [[0, 1, 0, -3]])
    np.testing.assert_allclose(ratio, [[0, 1, -1, 0]], err_msg="nothing before and after is 1")
    by_title = {axes.get_xlabel(): axes for axes in figure.axes}
    ring, dot = by_title["weight, %"].lines
    np.testing.assert_allclose(ring.get_xdata(), [50, 50])
    np.testing.assert_allclose(dot.get_xdata(), [100, 0])
    ring, dot = by_title["busiest over even"].lines
    np.testing.assert_allclose((ring.get_xdata(), dot.get_xdata()), 2)


def test_an_expert_that_had_nothing_and_has_something_is_as_dark_as_the_scale_goes():
    before = counted([np.array([[200, 0], [200, 0]])])
    after = counted([np.array([[100, 100], [100, 100]])])
    assert image(plot_expert_change(change(before, after)).axes[2])[0, 1] == 3


def test_two_sides_of_other_experts_are_not_drawn():
    with pytest.raises(RoutingError, match="step 41: before the change"):
        plot_expert_change(change(made(2, 4, 2), made(2, 8, 2)))
