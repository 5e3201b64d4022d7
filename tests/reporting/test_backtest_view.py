"""A backtest in the terminal and on its page has every predictor, and escapes what it quotes."""

import pytest
from page_checks import cut_off

from mixopt.fitting import Backtest
from mixopt.reporting import backtest_text, write_backtest

FIGURES = {"loss_spearman": 0.5, "objective_spearman": 0.25, "pick_rank": 2.5, "regret": 0.125}


def row(trials, predictor, coverage=None):
    width = None if coverage is None else 0.4
    known = {"coverage": coverage, "width": width}
    return {"trials": trials, "predictor": predictor, **FIGURES, **known}


def loss(name, state):
    return {"loss": name, "state": state, "spearman": 0.5, "low": None, "own_share": 0.25}


ROWS = [row(n, name, c) for n in (8, 16, 32) for name, c in (("auto", 0.9), ("ridge", None))]
STATES = [loss("(objective)", "weak"), loss("web", "ready"), loss("<b>x</b>", "noise")]
MADE = Backtest(tuple(ROWS), tuple(STATES), 48, 48, 12, 4, 8, "nats_per_token", ("<i>note</i>",))


def test_the_terminal_has_the_least_the_enough_and_the_most_trials():
    text = backtest_text(MADE)
    words = [line.split()[:2] for line in text.splitlines()]
    assert [word for word in words if word[:1] == ["auto"]] == [["auto", "8"], ["auto", "32"]]
    assert "losses at 32 trials: 1 ready, 1 noise" in text
    assert "in nats per token" in text
    assert text.endswith("<i>note</i>")


def test_the_page_has_every_number_of_trials_and_runs_nothing_that_a_name_holds(tmp_path):
    write_backtest(MADE, tmp_path / "backtest.html")
    page = (tmp_path / "backtest.html").read_text()
    assert page.count("<td>16</td>") == 3  # auto on the first screen, both predictors below
    assert "<i>note</i>" not in page
    assert "<b>x</b>" not in page
    assert "&lt;b&gt;x" in page


@pytest.mark.nightly
def test_a_browser_finds_nothing_wrong_with_the_page(open_page, tmp_path):
    write_backtest(MADE, tmp_path / "backtest.html")
    page = open_page(tmp_path / "backtest.html", "narrow")
    page.locator("#answer thead button").nth(1).click()
    assert page.locator("#answer td").first.inner_text() == "32"
    assert cut_off(page) == []
