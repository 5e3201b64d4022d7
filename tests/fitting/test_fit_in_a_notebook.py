"""A fit says what was chosen and how good it is, in a line and as a table in a notebook."""

import re

import pytest
from made_fit import fitted

from mixopt.fitting import OBJECTIVE


@pytest.fixture(scope="module")
def fit():
    return fitted("linear")


def test_a_fit_is_one_line_with_its_rank_and_error(fit):
    assert re.fullmatch(
        r"Fit\('linear': 28 trials, 3 domains, 4 losses; held out: Spearman 0\.\d{3},"
        r" RMSE 0\.\d{4} bits per byte\)",
        repr(fit),
    )


def test_a_notebook_shows_the_chosen_regressor_first_and_the_ceiling_last(fit):
    rows = fit._repr_html_().split("<tr>")[2:]
    assert ">linear</td>" in rows[0]
    assert ">regressor, chosen</td>" in rows[0]
    assert ">ceiling</td>" in rows[-1]


def test_a_notebook_has_the_numbers_of_the_report(fit):
    report = fit.report
    own = report.filter((report["predictor"] == "linear") & (report["target"] == OBJECTIVE))
    assert f">{own['rmse'][0]:.4f}</td>" in fit._repr_html_()
