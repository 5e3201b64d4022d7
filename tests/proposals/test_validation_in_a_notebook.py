"""A validation and a recommendation show themselves in a line and as a table in a notebook."""

from made_proposal import made_proposal
from made_validation import made_validation

from mixopt.proposals import Recommendation

VALUES = {"proposal": [1.0, 1.1, 1.05], "natural": [1.2, 1.3, 1.26], "uniform": [None, None, None]}


def test_a_validation_says_how_the_proposal_did():
    said = repr(made_validation(VALUES))
    assert said == "Validation(3 mixtures, 9 runs: better than natural)"


def test_a_validation_without_runs_says_that_nothing_can_be_compared():
    lost = made_validation({name: [None, None] for name in VALUES})
    assert "nothing can be compared yet" in repr(lost)
    assert "no run has finished yet" in lost._repr_html_()


def test_a_notebook_has_a_row_for_each_mixture_with_its_difference():
    validation = made_validation(VALUES)
    shown = validation._repr_html_()
    (found,) = validation.comparisons
    assert f"{found.mean:+.4f}".replace("-", "\N{MINUS SIGN}") in shown
    assert shown.count("<tr>") == 4
    assert "too few seeds finished" in shown


def test_a_recommendation_is_a_line_with_what_is_known_of_it():
    made = made_proposal()
    found = Recommendation(
        made.mixture, "proposal", "significantly better", "why", made.natural, "math",
        "bits_per_byte", 1000, {}, {}, None, (), {},
    )  # fmt: skip
    said = "proposal: prose 50.0%, law 30.0%, code 20.0% and 1 more; significantly better"
    assert repr(found) == f"Recommendation({said})"
    assert ">prose</td>" in found._repr_html_()
