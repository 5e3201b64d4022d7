"""Figures with a row for each domain show all the values they are given."""

import re
from dataclasses import replace

import numpy as np
import pytest
from made_fit import DOMAINS, make_trials
from made_proposal import made_proposal

from mixopt.errors import ConfigError
from mixopt.mixture import Mixture
from mixopt.proposals import Front, Interval
from mixopt.reporting import (
    figure_svg,
    front_text,
    plot_cells,
    plot_design,
    plot_front,
    plot_mixtures,
)
from mixopt.reporting.figure_style import MAX_NAME, written

NATURAL = {"web": 0.7, "code": 0.2, "books": 0.1}
PROPOSAL = {"web": 0.05, "code": 0.0, "books": 0.95}


def texts(figure):
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", figure_svg(figure)))


def names(figure):
    return [tick.get_text() for tick in figure.axes[0].get_yticklabels()]


def many(count):
    """Return names and a mixture whose last domain has the largest share."""
    domains = tuple(f"d{place:03}" for place in range(count))
    shares_D = np.arange(count) / np.arange(count).sum()
    return domains, dict(zip(domains, shares_D.tolist(), strict=True))


def test_every_share_is_a_bar_with_its_value():
    figure = plot_mixtures({"proposed": PROPOSAL, "natural": NATURAL})
    bars = figure.axes[0].patches
    middles = {bar.get_width(): bar.get_y() + bar.get_height() / 2 for bar in bars}
    assert set(middles) == {0.7, 0.2, 0.1, 0.05, 0.0, 0.95}
    assert (middles[0.95], middles[0.1]) == (pytest.approx(-0.19), pytest.approx(0.19))
    assert "95.0%" in texts(figure)


def test_a_proposed_mixture_does_not_look_like_the_recommended_one():
    figure = plot_mixtures({"recommended": NATURAL, "proposed": PROPOSAL})
    recommended, proposed = figure.axes[0].containers
    assert recommended[0].get_facecolor() != proposed[0].get_facecolor()


def test_sixty_domains_have_a_row_each_and_of_three_hundred_those_with_the_largest_shares():
    domains, shares = many(60)
    figure = plot_mixtures({"proposed": shares, "natural": Mixture.uniform(domains)})
    assert sorted(names(figure)) == list(domains)
    assert len({bar.get_width() for bar in figure.axes[0].patches}) == 60
    (natural,) = (line for line in figure.axes[0].lines if line.get_label() == "natural")
    assert natural.get_xdata() == pytest.approx([1 / 60] * 60)
    assert figure.get_figheight() == pytest.approx(11.1)  # a printed page has 11.7 inches
    assert {name.get_fontsize() for name in figure.axes[0].get_yticklabels()} == {7.0}
    domains, shares = many(300)
    figure = plot_mixtures(shares)
    assert sorted(names(figure)) == list(domains[-64:])
    assert "(64 of 300 domains)" in figure.axes[0].get_xlabel()


UNLIKE = {"one": {"a": 1.0}, "two": {"b": 1.0}}


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot_mixtures(UNLIKE), "and 'two': domain 'a' is in one"),
        (lambda: plot_mixtures({}), "a figure of no mixtures was requested"),
        (lambda: plot_design(make_trials(), {}), "unknown domain 'code'"),
        (lambda: plot_cells(NATURAL), "a map of cells needs domains that nest"),
    ],
)
def test_a_figure_that_cannot_be_drawn_says_why(draw, message):
    with pytest.raises(ConfigError, match=message):
        draw()


def test_a_tree_is_a_map_of_branches_by_their_last_parts_beside_natural():
    tree = Mixture({"web/high": 0.1, "web/low": 0.3, "code/high": 0.6, "code/low": 0.0})
    figure = plot_cells(made_proposal(mixture=tree, natural=Mixture.uniform(tuple(tree))))
    axes = figure.axes[0]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), [[0.6, 0.0], [0.1, 0.3]])
    assert names(figure) == ["code", "web"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["high", "low"]
    assert "60.0% (25.0%)" in texts(figure)
    assert axes.get_xlabel() == "share of the training tokens, natural in brackets"
    assert plot_cells(tree).axes[0].get_xlabel() == "share of the training tokens"


def test_a_design_shows_each_trial_in_each_domain():
    trials = make_trials(count=12, replicates=0)
    figure = plot_design(trials, dict.fromkeys(DOMAINS, 1 / 3))
    dots, natural = figure.axes[0].collections
    shown_DN = np.asarray(dots.get_offsets())[:, 0].reshape(len(DOMAINS), -1)
    np.testing.assert_allclose(shown_DN, trials.weights().T)
    assert [path.vertices[0][0] for path in natural.get_paths()] == [1 / 3] * len(DOMAINS)
    assert names(figure) == list(DOMAINS)


def test_a_name_is_written_as_it_is_and_a_long_one_shortened_in_its_middle():
    odd = {"$\\frac{1}$": 0.5, "x" * 80 + "end": 0.5}
    shown = texts(plot_mixtures(odd))
    assert "$\\frac{1}$" in shown
    assert len(written("x" * 80)) == MAX_NAME
    assert "x\N{HORIZONTAL ELLIPSIS}x" in shown
    assert "xend" in shown


def front(domains, points=3):
    """Return a front of mixtures at random."""
    rng = np.random.default_rng(0)
    names = tuple(f"d{place:02}" for place in range(domains))
    found = []
    for place in range(points):
        losses = {"exam": Interval(1.0 + place, 0, 9), "essay": Interval(9.0 - place, 0, 9)}
        mixture = Mixture.from_array(names, rng.dirichlet(np.full(domains, 0.3)))
        found.append(made_proposal(mixture=mixture, losses=losses))
    return Front(("exam", "essay"), tuple(found), "bits_per_byte")


def test_a_front_has_a_row_a_point_in_the_terminal_and_all_shares_in_its_figure():
    shares = [0.5, 0.3, 0.12, 0.076, 0.004, 0], [0, 0, 0.996, 0.004, 0, 0]
    found = front(6, points=2)
    points = [
        replace(point, mixture=Mixture.from_array(tuple(point.mixture), weights))
        for point, weights in zip(found.points, shares, strict=True)
    ]
    said = front_text(replace(found, points=tuple(points)))
    assert said.startswith("Pareto front of exam and essay, bits per byte")
    higher = replace(found, higher=("exam",))
    assert "exam and essay, higher exam is better" in front_text(higher)
    assert plot_front(higher).axes[0].get_xlabel() == "exam"
    rows = [line.split(maxsplit=3) for line in said.splitlines()[-2:]]
    assert rows == [
        ["1", "1.0000", "9.0000", "d00 50%, d01 30%, d02 12%, d03 8%"],
        ["2", "2.0000", "8.0000", "d02 100%"],
    ]
    found = front(6)
    shares = np.asarray(plot_front(found).axes[-1].images[0].get_array())
    np.testing.assert_allclose(shares, [point.mixture.array for point in found.points])
