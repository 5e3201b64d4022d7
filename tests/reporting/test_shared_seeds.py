"""Tables of means and differences say when the two are over other seeds."""

import re
from types import SimpleNamespace

import pytest
from made_proposal import made_proposal
from made_validation import made_validation

from mixopt.proposals import Gain, Interval, Recommendation
from mixopt.reporting.terminal import recommendation_text
from mixopt.reporting.validation_section import _mixtures

VALUES = {
    "best_trial": [1.0, 1.1, 1.2, 1.6, 1.5, 1.4],
    "proposal": [1.1, 1.2, 1.3],
    "natural": [1.3, 1.4, 1.5],
}
NOTE = (
    "Seeds: 6 of the best trial, 3 of the proposal and natural. A mean is over all seeds of a"
    " mixture, a difference over the seeds that both mixtures have, so the two may not agree."
)


@pytest.fixture
def recommendation():
    made = made_proposal()
    gains = {
        name: Gain(Interval(0.1, 0.05, 0.15), 3, "better", None) for name in ("proposal", "natural")
    }
    return Recommendation(
        made.mixture, "best_trial", "not the proposal", "why", made.natural, "help",
        "bits_per_byte", 1000, gains, {}, None, (), {},
    )  # fmt: skip


def words(text):
    return re.sub(r"\s+", " ", text)


def test_the_terminal_says_that_means_and_gains_are_over_other_seeds(recommendation):
    said = recommendation_text(recommendation, made_validation(VALUES))
    assert NOTE in words(said)
    for mean in ("1.3000", "1.2000"):  # over 6 seeds and over 3
        assert mean in said


def test_the_page_says_so_beside_the_table_of_means(recommendation):
    validation = made_validation(VALUES)
    objective = validation.objective
    run = SimpleNamespace(validation=validation, objective=objective, recommendation=recommendation)
    assert NOTE in _mixtures(run)


def test_nothing_is_said_where_all_mixtures_have_the_same_seeds(recommendation):
    same = made_validation({name: values[:3] for name, values in VALUES.items()})
    assert same.means_note == ""
    assert "Seeds:" not in recommendation_text(recommendation, same)
