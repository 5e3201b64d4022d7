"""What a fit says of how ready its losses are."""

from __future__ import annotations

import json

import pytest
from made_fit import TARGETS, fitted, make_trials

from mixopt.fitting import readiness
from mixopt.reporting import readiness_text


@pytest.fixture(scope="module")
def fit():
    return fitted("linear", trials=make_trials(replicates=4))


def test_each_loss_has_its_weight_and_its_rank_correlation(fit):
    found = {one.name: one for one in readiness(fit).losses}
    assert list(found) == list(TARGETS)
    assert [one.weight for one in found.values()] == [0.5, 0.0, 0.5, 0.0]
    assert found["code"].spearman > 0.9
    assert found["code"].ceiling > 0.9


def test_it_is_said_in_lines_with_the_command_that_shows_more(fit):
    (line,) = readiness(fit).lines("runs/mine")
    assert line == "readiness of 4 losses: 4 ready: mixopt status runs/mine --readiness"


def test_without_replicates_states_are_from_held_out_folds_and_that_is_said():
    found = readiness(fitted("linear", trials=make_trials(replicates=1)))
    (line,) = found.lines("D")
    alone = "(without replicates, from held-out folds alone): mixopt status D --readiness"
    assert line == f"readiness of 4 losses: 4 ready {alone}"
    text = readiness_text(found)
    heads = " ".join(text.partition("─")[0].split("\n\n")[1].split())
    for name in ("loss", "weight", "spread", "Spearman", "control", "state"):
        assert name in heads
    for word in ("lower", "bound", "most", "correlated", "with"):
        assert word in heads
    assert "the state comes from the rank correlation on held-out folds alone" in text


def test_the_table_has_the_objective_first_and_says_what_its_columns_mean(fit):
    lines = readiness_text(readiness(fit)).splitlines()
    assert lines[4].split()[:2] == ["the", "objective"]
    assert any(line.startswith("ready: the lower bound is 1 or more, and no") for line in lines)
    assert any(line.startswith("most correlated with: the training domain") for line in lines)
    assert "noise from 4 trials of one mixture" in lines


def test_it_is_json(fit):
    content = json.loads(json.dumps(readiness(fit).to_json(), allow_nan=False))
    assert content["replicates"] == {"trials": 4, "mixtures": 1}
    assert content["losses"][0]["state"] == "ready"
