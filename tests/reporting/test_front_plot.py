"""The figure of a front has a row for each point, whose bands add up to all tokens."""

from __future__ import annotations

import numpy as np
import pytest
from made_proposal import made_proposal

from mixopt.mixture import Mixture
from mixopt.proposals import Front, Interval
from mixopt.proposals.pareto_front import FrontPoint
from mixopt.reporting import plot_front


def front(domains, points=3):
    """Return a front of mixtures at random."""
    rng = np.random.default_rng(0)
    names = tuple(f"d{place:02}" for place in range(domains))
    found = []
    for place in range(points):
        losses = {"exam": Interval(1.0 + place, 0, 9), "essay": Interval(9.0 - place, 0, 9)}
        mixture = Mixture.from_array(names, rng.dirichlet(np.full(domains, 0.3)))
        found.append(FrontPoint({}, made_proposal(mixture=mixture, losses=losses)))
    return Front(("exam", "essay"), tuple(found), "bits_per_byte")


@pytest.mark.parametrize(("domains", "bands"), [(6, 6), (60, 19)])
def test_the_bands_of_each_point_add_up_to_all_tokens(domains, bands):
    figure = plot_front(front(domains))
    bars = figure.axes[-1].patches
    assert len(bars) == 3 * bands
    for place in range(3):
        own = [bar for bar in bars if bar.get_y() < place < bar.get_y() + bar.get_height()]
        assert sum(bar.get_width() for bar in own) == pytest.approx(1.0)


def test_of_sixty_domains_the_rest_is_one_band_and_no_two_bands_look_alike():
    axes = plot_front(front(60)).axes[-1]
    labels = [one.get_text() for one in axes.legend_.texts]
    assert labels[-1] == "42 others"
    looks = [(bar.get_facecolor(), bar.get_hatch()) for bar in axes.patches[::3]]
    assert len(set(looks)) == len(labels) == 19


def test_each_point_is_at_its_predicted_losses():
    axes = plot_front(front(6)).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("loss on exam", "loss on essay")
    dots = np.asarray(axes.collections[0].get_offsets())
    np.testing.assert_allclose(dots, [[1, 9], [2, 8], [3, 7]])
