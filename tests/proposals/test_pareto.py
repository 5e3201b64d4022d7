"""A Pareto front: allowed, undominated, from one target's best mixture to the other's."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from made_fit import fitted, table, with_objective
from made_proposal import made_proposal

from mixopt.config import ProposeConfig
from mixopt.errors import ConfigError
from mixopt.fitting import Fit
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Front, Interval, Proposal, ProposalRequest, propose_front
from mixopt.proposals.pareto_front import _lattice, _undominated

DOMAINS = ("code", "law", "mail")
SLOPES_MD = np.array([[-2.0, -0.2, 0.0], [-0.3, -1.5, 0.0], [0.0, -0.1, -2.5]])


def law(weights_ND: np.ndarray) -> np.ndarray:
    """Synthetic losses of a data mixing law: each falls with its own domain above all."""
    return 2.0 + np.exp(weights_ND @ SLOPES_MD.T)


@pytest.fixture(scope="module")
def fit() -> Fit:
    weights_ND = np.random.default_rng(0).dirichlet(np.ones(3), 24)
    trials = table(weights_ND, law(weights_ND), DOMAINS, DOMAINS)
    goal = Objective(DOMAINS, "target", {"code": 1.0})
    return fitted("log_linear", trials=trials, goal=goal)


def front(fit: Fit, targets=("code", "law"), points: int = 5, bootstrap: int = 0) -> Front:
    config = ProposeConfig(samples=500, bootstrap=bootstrap)
    request = ProposalRequest.of(fit, constraints={"bounds": {"mail": (0.1, 1)}}, search=config)
    return propose_front(request, targets, points=points)


def test_its_ends_are_the_best_of_each_target_by_its_direction_and_points_are_allowed_and_refitted(
    fit,
):
    points = front(fit, points=3, bootstrap=2).points
    assert points[0].mixture["code"] == pytest.approx(0.9, abs=1e-3)
    assert points[-1].mixture["law"] == pytest.approx(0.9, abs=1e-3)
    for point in points:
        assert point.mixture["mail"] > 0.1 - 1e-9
        assert point.stability.refits == 2
    turned = with_objective(fit, replace(fit.objective, higher=("law",)))
    assert front(turned).points[-1].mixture["law"] < 0.01


def test_three_targets_have_a_surface(fit):
    found = front(fit, DOMAINS, points=10)
    assert 5 < len(found.points) <= 10
    assert {max(point.mixture, key=point.mixture.get) for point in found.points} == set(DOMAINS)


def test_the_targets_weights_are_evenly_spread_with_corners_and_no_more_than_the_points():
    assert _lattice(2, 3).tolist() == [[0, 1], [0.5, 0.5], [1, 0]]
    assert (3 * _lattice(3, 10)).round(9).tolist() == [
        [a, b, 3 - a - b] for a in range(4) for b in range(4 - a)
    ]
    assert [len(_lattice(3, 9)), len(_lattice(4, 2))] == [6, 4]


def test_its_folder_holds_its_proposals_and_a_table(fit, tmp_path):
    found = front(fit)
    found.to_folder(tmp_path)
    assert Proposal.from_file(tmp_path / "point-01.yaml") == found.points[0]
    written = pl.read_csv(tmp_path / "front.csv")
    assert written.columns[:4] == ["point", "loss/code", "loss/law", "weight/code"]
    assert len(list(tmp_path.iterdir())) == len(found.points) + 1


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("code", "code"), "needs two different targets or more; got"),
        (("code", "lwa"), "unknown evaluation domain 'lwa'; did you mean 'law'?"),
    ],
)
def test_targets_that_cannot_be_traded_are_refused(fit, targets, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        front(fit, targets)


def test_a_point_that_another_beats_on_every_target_is_left_out():
    def point(share, *losses):
        named = {n: Interval(x, x, x) for n, x in zip(("code", "law"), losses, strict=True)}
        return made_proposal(mixture=Mixture({"code": share, "law": 1 - share}), losses=named)

    def kept(*points):
        return [item.mixture["code"] for item in _undominated(points, ("code", "law"), ())]

    points = point(0.9, 1.0, 3.0), point(0.5, 2.0, 2.0), point(0.4, 2.0, 2.5)
    assert kept(*points) == [0.9, 0.5]
    assert kept(*points, point(0.1, 0.5, 1.0)) == [0.1]
    assert kept(point(0.9, 1.0, 3.0), point(0.5, 2.0, 3.0)) == [0.9]
