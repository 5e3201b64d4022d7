"""The validation's part of the page compares what is recommended with all others."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from made_proposal import made_proposal
from made_validation import made_validation

from mixopt.proposals import Comparison, Recommendation
from mixopt.reporting.validation_section import _domains, _says

MADE = made_proposal()
RECOMMENDED = Recommendation(
    MADE.mixture, "proposal", "shown better", "why", MADE.natural, "help", "bits_per_byte",
    1000, {}, {}, None, (), {},
)  # fmt: skip
VALUES = {"proposal": [1.0, 1.0, 1.0], "natural": [1.2, 1.3, 1.25], "uniform": [0.8, 0.9, 0.85]}


def test_a_difference_that_is_not_shown_is_called_not_significant():
    assert _says(Comparison("natural", 0.1, -0.1, 0.3, 4)) == "not significant"
    assert _says(Comparison("natural", -0.2, -0.3, -0.1, 4)) == "better"


def table(chosen):
    """Return the heads of the table by evaluation domain, and the rows by their name."""
    validation = made_validation(VALUES)
    recommendation = replace(RECOMMENDED, chosen=chosen)
    run = SimpleNamespace(
        validation=validation, objective=validation.objective, recommendation=recommendation
    )
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", _domains(run))
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    return cells[0], {row[0]: row[1:] for row in cells[1:]}


@pytest.mark.parametrize(
    ("chosen", "heads"),
    [
        ("proposal", ["the proposal", "- natural", "- uniform"]),
        ("uniform", ["uniform", "- the proposal", "- natural"]),
    ],
)
def test_each_loss_is_that_of_what_is_recommended_less_each_other(chosen, heads):
    columns, rows = table(chosen)
    assert columns[1:] == heads
    mean = {"proposal": 1.0, "natural": 1.25, "uniform": 0.85}
    names = [head.removeprefix("- ").removeprefix("the ") for head in heads]
    own, *differences = rows["help"]
    assert float(own) == pytest.approx(mean[chosen])
    for other, text in zip(names[1:], differences, strict=True):
        found = float(text.split(" ")[0].replace("\N{MINUS SIGN}", "-"))
        assert found == pytest.approx(mean[chosen] - mean[other], abs=1e-4)
