"""Figures of a validation: each seed, each difference with its interval, each curve."""

import re

import numpy as np
from made_validation import made_validation

from mixopt.reporting import figure_svg, plot_validation, plot_validation_curves

VALUES = {"proposal": [1.0, 1.1, 1.05], "natural": [1.2, 1.3, 1.26], "uniform": [1.0, 1.2, 1.0]}


def words(figure):
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", figure_svg(figure)))


def test_each_seed_is_a_dot_in_the_row_of_its_mixture():
    left, _ = plot_validation(made_validation(VALUES)).axes
    dots = [np.asarray(one.get_offsets()) for one in left.collections]
    assert [sorted(one[:, 0].round(6).tolist()) for one in dots] == [
        sorted(v) for v in VALUES.values()
    ]
    assert [one[0, 1] for one in dots] == [0, 1, 2]


def test_a_difference_is_drawn_with_its_interval_in_the_row_of_its_baseline():
    validation = made_validation(VALUES)
    left, right = plot_validation(validation).axes
    means = [line for line in right.lines if len(line.get_ydata()) == 1]
    assert [line.get_ydata()[0] for line in means] == [1, 2]
    assert [line.get_xdata()[0] for line in means] == [one.mean for one in validation.comparisons]
    assert left.get_ylim() == right.get_ylim()


def test_a_validation_without_a_finished_seed_is_drawn_without_it():
    shown = words(plot_validation(made_validation({**VALUES, "uniform": [None, None, None]})))
    assert "uniform" in shown


def test_curves_have_a_line_for_each_seed():
    line = (np.array([1e6, 2e6]), np.array([2.0, 1.5]))
    curves = {"proposal": [line, line], "natural": [line]}
    figure = plot_validation_curves(curves, "bits per byte")
    assert len(figure.axes[0].lines) == 3
    assert "2M" in words(figure)


def test_the_early_drop_does_not_hide_what_differs_at_the_end():
    tokens = np.linspace(1e5, 1e6, 10)
    first, second = (end + 3.0 * np.exp(-tokens / 8e4) for end in (1.50, 1.49))
    curves = {"proposal": [(tokens, second)], "natural": [(tokens, first)]}
    axes = plot_validation_curves(curves, "bits per byte").axes[0]
    low, high = axes.get_ylim()
    assert first[0] > high
    assert low < second[-1] < first[2] < high
