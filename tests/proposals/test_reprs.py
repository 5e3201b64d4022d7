"""What mixopt made says in a line what it is."""

import re

from made_fit import fitted, make_trials
from made_proposal import made_proposal
from made_validation import made_validation

VALUES = {"proposal": [1.0, 1.1, 1.05], "natural": [1.2, 1.3, 1.26], "uniform": [1.0, 1.2, 1.0]}


def test_a_fit_has_its_rank_and_error():
    assert re.fullmatch(
        r"Fit\('linear': 28 trials, 3 domains, 4 losses; held out: Spearman 0\.\d{3},"
        r" RMSE 0\.\d{4} bits per byte\)",
        repr(fitted("linear")),
    )


def test_trials_are_counted_by_what_became_of_them():
    trials = make_trials(count=12, replicates=0)
    assert repr(trials) == "Trials(12 finished; 3 domains, 4 losses)"


def test_a_validation_says_how_the_proposal_did():
    assert "; " in repr(made_validation(VALUES))
    lost = made_validation({name: [None, None, None] for name in VALUES})
    assert "nothing can be compared yet" in repr(lost)


def test_a_proposal_has_its_largest_shares_and_its_prediction():
    found = repr(made_proposal())
    assert found.startswith("Proposal(")
    assert "predicted" in found
