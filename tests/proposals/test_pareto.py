"""A Pareto front: allowed, undominated, from one target's best mixture to the other's."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from made_fit import with_objective

from mixopt.config import ConstraintsConfig, FitConfig, ProposeConfig
from mixopt.constraints import Constraints
from mixopt.errors import ConfigError
from mixopt.fitting import Fit, fit_trials
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Front, Interval, Proposal, ProposalRequest, propose_front
from mixopt.proposals.pareto_front import FrontPoint, _lattice, _objective, _undominated
from mixopt.reporting import figure_svg, plot_front
from mixopt.system import plugin_names
from mixopt.trials import Losses, Trial, TrialResult, Trials

DOMAINS = ("code", "law", "mail")
NATURAL = Mixture.uniform(DOMAINS)
LIMITS = ConstraintsConfig(bounds={"mail": (0.1, 1.0)})
CONSTRAINTS = Constraints.from_config(LIMITS, dict.fromkeys(DOMAINS, 1))
SLOPES_MD = np.array([[-2.0, -0.2, 0.0], [-0.3, -1.5, 0.0], [0.0, -0.1, -2.5]])


def law(weights_ND: np.ndarray) -> np.ndarray:
    """Synthetic losses of a data mixing law: each falls with its own domain above all."""
    return 2.0 + np.exp(weights_ND @ SLOPES_MD.T)


@pytest.fixture(scope="module")
def fit() -> Fit:
    rng = np.random.default_rng(0)
    trials, results = [], []
    for row, weights_D in enumerate(rng.dirichlet(np.ones(3), 24)):
        trials.append(Trial(f"t{row:02d}", Mixture.from_array(DOMAINS, weights_D), seed=row))
        values = dict(zip(DOMAINS, law(weights_D[None])[0].tolist(), strict=True))
        results.append(TrialResult(f"t{row:02d}", "finished", 9, 9, 1.0, Losses(9, values, values)))
    objective = Objective(DOMAINS, "target", {"code": 1.0})
    table = Trials.from_results(trials, results, proxy="synthetic")
    return fit_trials(table, FitConfig(regressors=["log_linear"], folds=4), objective, 0)


def front(fit: Fit, targets=("code", "law"), points: int = 5, bootstrap: int = 0) -> Front:
    config = ProposeConfig(samples=500, bootstrap=bootstrap)
    request = ProposalRequest(fit, CONSTRAINTS, NATURAL, search=config)
    return propose_front(request, targets, points=points)


def test_its_ends_are_the_best_of_each_target(fit):
    found = front(fit)
    first, last = found.points[0].proposal.mixture, found.points[-1].proposal.mixture
    assert first["code"] == pytest.approx(0.9, abs=1e-3)
    assert last["law"] == pytest.approx(0.9, abs=1e-3)


def test_no_point_is_beaten_by_another(fit):
    losses = [[p.losses[name].value for name in ("code", "law")] for p in front(fit).points]
    for one, other in permutations(np.array(losses), 2):
        assert not ((other <= one).all() and (other < one).any())


def test_every_point_is_an_allowed_proposal_with_its_own_refits(fit):
    for point in front(fit, points=3, bootstrap=2).points:
        assert CONSTRAINTS.violations(point.proposal.mixture) == []
        assert point.proposal.stability.refits == 2


def test_three_targets_have_a_surface(fit):
    found = front(fit, DOMAINS, points=10)
    assert 5 < len(found.points) <= 10
    assert all(sum(p.importance.values()) == pytest.approx(1.0) for p in found.points)


def test_its_folder_holds_its_proposals_and_a_table(fit, tmp_path):
    found = front(fit)
    found.to_folder(tmp_path)
    assert Proposal.from_file(tmp_path / "point-01.yaml") == found.points[0].proposal
    table = pl.read_csv(tmp_path / "front.csv")
    assert table.columns[:4] == ["point", "loss/code", "loss/law", "weight/code"]
    assert len(list(tmp_path.iterdir())) == len(found.points) + 1


def test_its_picture_shows_proposals_among_the_trials(fit):
    svg = figure_svg(plot_front(front(fit, points=3), fit.trials))
    assert svg.count("a proposal, predicted") == 1


def test_a_metric_of_which_higher_is_better_is_traded_by_its_sign(fit):
    turned = with_objective(fit, replace(fit.objective, higher=("law",)))
    assert front(turned).points[-1].proposal.mixture["law"] < 0.01


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


@pytest.mark.parametrize(
    ("targets", "points", "rows"), [(2, 5, 5), (3, 10, 10), (3, 9, 6), (3, 2, 3), (4, 3, 4)]
)
def test_importances_are_even_with_corners_and_at_most_as_many_as_asked_for(targets, points, rows):
    lattice_PM = _lattice(targets, points)
    assert lattice_PM.shape == (rows, targets)
    assert len(np.unique(lattice_PM, axis=0)) == rows
    np.testing.assert_allclose(lattice_PM.sum(axis=1), 1.0)
    assert lattice_PM.min() == 0.0
    for corner_M in np.eye(targets):
        assert (lattice_PM == corner_M).all(axis=1).any()


def point(code: float, losses: tuple[float, float]) -> FrontPoint:
    """A point of which only the mixture and the losses are known."""
    both = zip(("code", "law"), losses, strict=True)
    proposal = SimpleNamespace(
        mixture=Mixture({"code": code, "law": 1 - code}),
        losses={name: Interval(loss, loss, loss) for name, loss in both},
    )
    return FrontPoint({"code": code}, proposal)


def kept(points: list[FrontPoint], higher=()) -> list[float]:
    return [one.proposal.mixture["code"] for one in _undominated(points, ("code", "law"), higher)]


def test_a_point_that_another_beats_on_every_target_is_left_out():
    points = [point(0.9, (1.0, 3.0)), point(0.5, (2.0, 2.0)), point(0.4, (2.0, 2.5))]
    assert kept(points) == [0.9, 0.5]
    assert kept([*points, point(0.1, (0.5, 1.0))]) == [0.1]
    assert kept([point(0.9, (1.0, 3.0)), point(0.5, (2.0, 3.0))]) == [0.9]


def test_points_are_in_the_order_of_the_first_targets_loss():
    points = [point(0.1, (3.0, 1.0)), point(0.9, (1.0, 3.0)), point(0.5, (2.0, 2.0))]
    assert kept(points) == [0.9, 0.5, 0.1]


def test_points_that_are_one_mixture_count_once():
    points = [point(0.5, (2.0, 2.0)), point(0.5009, (2.0, 2.0)), point(0.502, (2.0, 2.0))]
    assert kept(points) == [0.5, 0.502]


def test_a_point_is_beaten_by_more_where_more_is_better():
    points = [point(0.9, (1.0, 3.0)), point(0.5, (2.0, 2.0))]
    assert kept(points, higher=("law",)) == [0.9]
    assert kept(points, higher=("code",)) == [0.5]


def test_targets_count_by_their_spread_over_the_trials(fit):
    objective = _objective(fit, ("code", "law"), np.array([0.25, 0.75]))
    assert (objective.kind, objective.scale) == ("mean", "spread")
    assert dict(objective.weights) == {"code": 0.25, "law": 0.75}
    spreads_M = fit.trials.losses("bits_per_byte")[:, :2].std(axis=0, ddof=1)
    assert [objective.spreads[n] for n in ("code", "law")] == pytest.approx(spreads_M, rel=0.05)
    alone = _objective(fit, ("code", "law"), np.array([1.0, 0.0]))
    assert dict(alone.weights) == {"code": 1.0}


def test_its_table_and_plain_values_number_the_points(fit):
    found = front(fit)
    assert found.table()["point"].to_list() == list(range(1, len(found.points) + 1))
    plain = found.to_json()
    assert plain["targets"] == ["code", "law"]
    assert plain["points"][0]["importance"] == {"code": 1.0, "law": 0.0}
    assert plain["points"][0]["weights"] == dict(found.points[0].proposal.mixture)


class Counted:
    """A fitted regressor that notes each time that one like it is fitted again."""

    def __init__(self, inner, fits: list[int]) -> None:
        self.inner, self.fits, self.predict = inner, fits, inner.predict

    def tuned(self):
        return Counted(self.inner.tuned(), self.fits)

    def fit(self, weights_ND, losses_NM):
        self.fits.append(len(weights_ND))
        self.inner.fit(weights_ND, losses_NM)
        return self

    def select(self, targets):
        return Counted(self.inner.select(targets), self.fits)


def test_all_points_share_the_same_refits(fit):
    fits: list[int] = []
    counted = replace(fit, fitted=Counted(fit.fitted, fits))
    found = front(counted, points=3, bootstrap=2)
    assert len(found.points) == 3
    assert fits == [24, 24]


def test_an_objective_in_units_of_spread_is_traded_anew(fit):
    spread = with_objective(fit, fit.objective.scaled({"code": 0.5}))
    assert front(spread).to_json()["points"] == front(fit).to_json()["points"]


def test_its_points_have_the_seed_the_epochs_and_what_collapsed(fit):
    limits = ConstraintsConfig(guardrails={"experts": True})
    names, weights_ND = fit.trials.table["trial"].to_list(), fit.trials.weights()
    inventory = {"code": 10, "law": 20, "mail": 40}
    seen = []
    request = ProposalRequest(
        fit,
        Constraints.from_config(limits, inventory),
        NATURAL,
        inventory,
        ProposeConfig(samples=200, bootstrap=0, target_tokens=80),
        seed=5,
        collapsed=[names[int(weights_ND[:, 0].argmax())]],
    )
    found = propose_front(
        request,
        ("code", "law"),
        points=2,
        update=lambda done, note: seen.append((done, note)),
    )
    first = found.points[0].proposal
    assert first.provenance["seed"] == 5
    assert first.epochs["code"] == pytest.approx(8 * first.mixture["code"], abs=1e-4)
    assert first.mixture["code"] < 0.99
    assert seen == [(1, "points"), (2, "points")]


def test_a_point_that_ties_on_all_targets_is_not_beaten():
    assert kept([point(0.9, (1.0, 3.0)), point(0.5, (1.0, 3.0))]) == [0.9, 0.5]


def test_points_that_tie_on_the_first_target_are_told_apart_by_the_second():
    assert kept([point(0.5, (1.0, 3.0)), point(0.9, (1.0, 2.0))]) == [0.9]


@pytest.mark.parametrize("name", plugin_names("regressor"))
def test_there_is_a_front_under_every_regressor_refits_included(fit, name):
    fitted = fit.trials.fit(
        regressors=name,
        objective="code",
        unit="bits_per_byte",
        inventory=dict.fromkeys(DOMAINS, 100),
        size={"parameters": 9, "tokens": 9} if name == "scaling" else None,
    )
    found = front(fitted, points=3, bootstrap=2)
    assert {"code", "law"} <= set(found.points[0].losses)
    assert found.points[0].proposal.stability.refits == 2
