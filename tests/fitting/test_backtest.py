"""A backtest picks among runs that it has not seen; losses here are of a known law, or noise."""

import numpy as np
import pytest
from made_fit import table
from mixing_law import mixtures

from mixopt.errors import TrialsError

DOMAINS = ("web", "code", "books")
PREDICTORS = ["linear", "ridge", "lightgbm", "olmix", "own_share", "nearest", "mean"]


def runs(weights_ND, losses_NM, sizes=(10**6,)):
    """Finished runs with losses web, code, ..., of sizes that take turns."""
    targets = (*DOMAINS[:2], "exam")[: np.shape(losses_NM)[1]]
    return table(weights_ND, losses_NM, DOMAINS, targets, [(size, size) for size in sizes])


def by_predictor(found):
    """The rows at the most trials, which are the last."""
    return {row["predictor"]: row for row in found.rows}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Without the peers that take seconds; one test has them."""
    monkeypatch.setattr("mixopt.fitting.backtest.PEERS", {"ridge": ""})


def linear_runs(count):
    """Runs whose losses are exactly linear in the shares."""
    weights_ND = mixtures(count, 3)
    return runs(weights_ND, 3 - weights_ND[:, :2] @ [[1.0, 0.2], [0.1, 2.0]])


def test_every_predictor_has_a_row_at_every_number_of_trials_and_an_exact_law_picks_the_best(
    monkeypatch,
):
    straight = linear_runs(32).backtest(regressors="linear")
    few = ["linear", "ridge", "own_share", "nearest", "mean"]
    assert [row["predictor"] for row in straight.rows] == few * 2
    assert [row["trials"] for row in straight.rows[:: len(few)]] == [12, 24]
    for row in straight.rows[:: len(few)]:
        assert row["objective_spearman"] == pytest.approx(1)
        assert (row["pick_rank"], row["regret"]) == (1, 0)
    assert (straight.enough, straight.held_out) == (12, 8)
    assert straight.notes == ("12 trials rank held-out runs about as well as 24 do",)
    monkeypatch.undo()  # what teams use without mixopt is among them
    found = linear_runs(11).backtest(regressors="linear")
    assert [row["predictor"] for row in found.rows] == PREDICTORS


def test_runs_of_a_mixture_are_held_out_together():
    """A random loss for each mixture: only another seed of the same mixture could predict it."""
    weights_ND = np.repeat(mixtures(24, 3), 3, axis=0)
    losses_NM = np.repeat(np.random.default_rng(5).normal(3, 1, (24, 2)), 3, axis=0)
    found = runs(weights_ND, losses_NM).backtest(regressors="linear")
    assert by_predictor(found)["nearest"]["objective_spearman"] < 0.6
    assert any("72 runs are of 24 mixtures" in note for note in found.notes)


def test_runs_of_several_sizes_are_compared_within_a_size():
    weights_ND = np.repeat(mixtures(20, 3), 2, axis=0)
    losses_NM = 3 - weights_ND[:, :2] - 1.5 * np.tile([[0], [1]], (20, 1))
    found = runs(weights_ND, losses_NM, (10**6, 10**8)).backtest(regressors="linear")
    row = by_predictor(found)["linear"]
    assert (row["pick_rank"], row["objective_spearman"]) == (1, pytest.approx(1))
    assert row["regret"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("seeds", "reason"),
    [(1, "cannot tell which mixture is better"), (2, "seeds of one mixture differ by")],
)
def test_a_table_of_noise_cannot_tell_anything_and_says_why(seeds, reason):
    weights_ND = np.repeat(mixtures(40 // seeds, 3), seeds, axis=0)
    noise_NM = np.random.default_rng(3).normal(3, 0.1, (40, 2))
    found = runs(weights_ND, noise_NM).backtest(regressors="linear")
    assert found.enough is None
    assert {loss["state"] for loss in found.losses} <= {"noise", "weak"}
    assert any(reason in note for note in found.notes)


def test_a_loss_that_nearly_never_changes_is_left_out_unless_it_is_the_objective():
    weights_ND = mixtures(24, 3)
    losses_NM = np.column_stack([3 - weights_ND[:, :2], np.eye(24)[0]])
    table = runs(weights_ND, losses_NM)
    found = table.backtest(regressors="linear", objective=["web", "code"])
    assert [loss["loss"] for loss in found.losses] == ["(objective)", "web", "code"]
    with pytest.raises(TrialsError, match="'exam': the same in all fitted runs of a split"):
        table.backtest(regressors="linear", objective="exam")
