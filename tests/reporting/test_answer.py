"""The answer on the first screen says of which mixture its warnings are."""

from dataclasses import replace

import pytest
from made_proposal import made_proposal

from mixopt.proposals import Recommendation
from mixopt.reporting.answer import _recommended

PROPOSAL = replace(made_proposal(), warnings=("it is far from all trials",))


def recommendation(mixture, warnings=()):
    return Recommendation(
        mixture, "some", "undecided", "why", PROPOSAL.natural, "help", "bits_per_byte",
        1000, {}, {}, None, warnings, {},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mixture", "said"),
    [
        (PROPOSAL.mixture, "it is far from all trials"),
        (PROPOSAL.natural, "of the proposal: it is far from all trials"),
    ],
)
def test_a_warning_names_the_proposal_where_another_mixture_is_recommended(mixture, said):
    found = _recommended(recommendation(mixture, ("tasks are few",)), PROPOSAL)
    assert found.warnings == ("tasks are few", said)


def test_a_warning_of_both_is_said_once_and_of_what_is_recommended():
    both = recommendation(PROPOSAL.natural, PROPOSAL.warnings)
    assert _recommended(both, PROPOSAL).warnings == PROPOSAL.warnings


def test_a_warning_that_names_the_proposal_is_not_said_to_be_of_it():
    line = "the proposal (predicted 1.5) is not predicted to beat the best trial"
    proposal = replace(PROPOSAL, warnings=(line,))
    assert _recommended(recommendation(PROPOSAL.natural), proposal).warnings == (line,)
