"""Trials say what became of them, in a line and as a table in a notebook."""

import polars as pl
import pytest
from made_fit import make_trials

from mixopt.trials import Trials


@pytest.fixture
def half_done():
    """Trials of which two have no losses."""
    made = make_trials(count=4, replicates=0)
    lost = pl.col("trial").is_in(["t001", "t003"])
    losses = [name for name in made.table.columns if name.startswith(("loss/", "bpb/"))]
    table = made.table.with_columns(
        status=pl.when(lost).then(pl.lit("failed")).otherwise(pl.col("status")),
        reason=pl.when(lost).then(pl.lit("<b>out of memory</b>")).otherwise(None),
        **{name: pl.when(lost).then(None).otherwise(pl.col(name)) for name in losses},
    )
    return Trials(table, made.domains, made.targets)


def test_trials_are_counted_by_what_became_of_them(half_done):
    assert repr(half_done) == "Trials(2 finished, 2 failed; 3 domains, 4 losses)"


def test_a_trial_that_failed_has_a_row_without_losses(half_done):
    shown = half_done._repr_html_()
    assert shown.count("<tr>") == 5
    assert shown.count(">failed</td>") == 2
    (lost,) = [row for row in shown.split("<tr>") if ">t001</td>" in row]
    assert lost.count('"></td>') == 4


def test_trials_of_no_finished_one_are_shown_too(half_done):
    lost = half_done.table.filter(pl.col("status") == "failed")
    trials = Trials(lost, half_done.domains, half_done.targets)
    assert repr(trials).startswith("Trials(2 failed;")
    assert ">t003</td>" in trials._repr_html_()


def test_a_finished_trial_has_its_losses_and_largest_shares(half_done):
    first = half_done.table.row(0, named=True)
    shown = half_done._repr_html_()
    assert f">{first['bpb/code']:.4f}</td>" in shown
    assert f"{100 * first['weight/code']:.1f}%" in shown
