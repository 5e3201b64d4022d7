"""The figure of a job has its weights over its steps, and its losses beneath."""

import re

import pytest

from mixopt.errors import ConfigError
from mixopt.online import TrainingHistory
from mixopt.plots import figure_svg, plot_training

WEIGHTS = ((1, {"code": 0.75, "prose": 0.25}), (11, {"code": 0.2, "prose": 0.8}))


def history(losses=2, weights=WEIGHTS):
    held_out = {f"e{n}": ([10, 20], [3.0 + n, 2.0 + n]) for n in range(losses)}
    return TrainingHistory(weights, held_out, {}, 20)


def words(figure):
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", figure_svg(figure)))


def test_bands_are_the_weights_until_the_next_change():
    figure = plot_training(history())
    upper = next(axes for axes in figure.axes if axes.get_ylabel() == "share of the tokens")
    corners = {tuple(one) for one in upper.collections[0].get_paths()[0].vertices.round(6).tolist()}
    # prose is at the bottom, since it has most of the two on average
    assert {(1.0, 0.25), (11.0, 0.25), (11.0, 0.8), (20.0, 0.8)} <= corners
    assert "prose  25.0% \N{RIGHTWARDS ARROW} 80.0%" in words(figure)


def test_each_of_a_few_losses_is_a_line_with_its_name_and_end():
    figure = plot_training(history(losses=3))
    lower = next(axes for axes in figure.axes if "loss" in axes.get_ylabel())
    assert [list(one.get_ydata()) for one in lower.lines] == [[3.0, 2.0], [4.0, 3.0], [5.0, 4.0]]
    assert "e1  3.0000" in words(figure)
    assert lower.get_xlabel() == "optimiser step"


def test_of_sixty_losses_the_mean_is_drawn_over_all():
    figure = plot_training(history(losses=60))
    lower = next(axes for axes in figure.axes if "loss" in axes.get_ylabel())
    assert len(lower.lines) == 61
    assert list(lower.lines[-1].get_ydata()) == [32.5, 31.5]
    assert "mean of 60  31.5000" in words(figure)


def test_a_job_with_weights_alone_has_one_panel():
    assert len(plot_training(history(losses=0)).axes) == 1


def test_a_job_that_has_written_nothing_yet_is_refused():
    with pytest.raises(ConfigError, match="neither weights nor losses yet"):
        plot_training(TrainingHistory((), {}, {}, 1))
