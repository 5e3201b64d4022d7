"""The forest plot of microanneals."""

import pytest
from made_anneals import SOURCES, made_anneals

from mixopt.errors import ConfigError
from mixopt.reporting import figure_svg, plot_anneals


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_anneals(tmp_path_factory.mktemp("anneals"))


def test_the_best_source_is_at_the_top_of_every_panel(run):
    figure = run.plot.anneals()
    assert len(figure.axes) == 3
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [one.source for one in run.anneals.effects()]
    assert figure.axes[1].get_title(loc="left") == "exam"


def test_an_interval_is_drawn_where_it_is(run):
    (axes,) = plot_anneals(run.anneals, targets=[]).axes
    effects = run.anneals.effects()
    spans = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2]
    drawn = [tuple(span) for span in spans if span[0] != span[1]]
    assert drawn == [(one.low, one.high) for one in effects]


def test_a_loss_outside_the_objective_may_be_asked_for(run):
    figure = plot_anneals(run.anneals, targets=["forums_news"])
    assert figure.axes[1].get_title(loc="left") == "forums_news"
    with pytest.raises(ConfigError, match="unknown loss 'forum'"):
        plot_anneals(run.anneals, targets=["forum"])


def test_equal_figures_are_equal_files(run):
    assert figure_svg(plot_anneals(run.anneals)) == figure_svg(plot_anneals(run.anneals))


def test_every_source_is_named(run):
    svg = figure_svg(run.plot.anneals())
    assert all(name in svg for name in SOURCES)
