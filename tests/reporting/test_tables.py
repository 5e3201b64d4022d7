"""Tables fit the terminal; a backtest has every predictor there and on its page."""

import re

import pytest
from page_checks import cut_off

from mixopt.corpus import DomainCount
from mixopt.fitting import Backtest
from mixopt.mixture import Mixture
from mixopt.reporting import backtest_text, counts_text, schedule_text, table_text, write_backtest
from mixopt.sampling import Schedule, Stage, simulate_schedule
from mixopt.system import wrapped

WORDS = ("short", "a long text of many words in one cell", "+0.1234")


def lines_of(columns, rows, width):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        return table_text("Title", columns, rows).splitlines()


def test_a_table_has_its_first_column_to_the_left_and_numbers_to_the_right():
    lines = lines_of(("domain", "share"), [("web", "1.0%"), ("数据", "99.0%")], 80)
    head = ["Title", "", "  domain  share", "  ──────────────"]
    assert lines == [*head, "  web      1.0%", "  数据    99.0%"]  # each of these is two columns


@pytest.mark.parametrize("width", [40, 60, 100])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_cut(width):
    columns = ("name", *(f"column number {n}" for n in range(9)))
    rows = [("first", *(WORDS[n % 3] for n in range(9)))]
    lines = lines_of(columns, rows, width)
    assert max(map(len, lines)) <= width
    found = re.findall(r"\S+", "\n".join(lines))
    for word in (*WORDS[1].split(), "+0.1234", "short", "first"):
        assert word in found


def test_an_interval_stays_in_one_line_and_texts_break_between_words(monkeypatch):
    interval = "+0.1507 to +0.2999"
    columns = ("over the mixture", "validated gain", "95% interval")
    lines = lines_of(columns, [("the best trial", "+0.2253", interval)], 44)
    assert sum(interval in line for line in lines) == 1
    assert lines[-2].split()[:2] == ["the", "best"]
    monkeypatch.setenv("COLUMNS", "40")
    words = "  " + " ".join(["twelve chars"] * 4)
    assert wrapped(words) == f"{words[:40].rstrip()}\n    {words[41:]}"
    assert wrapped(f"/a/long/path{'/without/a/space' * 3}").count("\n") == 0


def test_columns_that_cannot_fit_go_below_each_after_the_first():
    columns = ("domain", *(f"loss{n}" for n in range(12)))
    lines = lines_of(columns, [("web", *["0.12345"] * 12)], 40)
    assert sum(line.startswith("  domain") for line in lines) > 1
    assert sum(line.count("0.12345") for line in lines) == 12
    lines = lines_of(("domain", "share"), [("x" * 100, "1.0%")], 60)
    assert max(map(len, lines)) <= 60
    assert sum(line.count("x") for line in lines) == 100  # a name that fills the terminal is cut


def cells_of(text):
    """Return the words of each line that has some."""
    return [line.split() for line in text.splitlines() if line.strip()]


def test_counts_are_exact_or_about_or_in_bytes_where_the_tokenizer_is_still_to_come():
    web = DomainCount("web", 2, 3_000_000, 750_000, "read", is_exact=True)
    code = DomainCount("code", 0, 0, 250_400, "stated", is_exact=False)
    rows = cells_of(counts_text([web, code], "bytes"))
    assert ["web", "2", "3.0", "MB", "750,000", "75.0%", "read"] in rows
    assert ["code", "-", "-", "~250k", "25.0%", "stated"] in rows
    said = counts_text([DomainCount("web", 1, 3_000, None, "read", is_exact=True), code], "bpe")
    assert ["web", "1", "3.0", "kB", "-", "1.2%", "read"] in cells_of(said)
    assert said.endswith("bpe is trained in the step prepare; until then sizes are in bytes")


def test_a_schedule_says_what_is_drawn_and_when_a_domain_runs_out():
    stage = Stage(Mixture({"code": 0.25, "prose": 0.75}), steps=10, name="main")
    schedule = Schedule((stage,), batch=8, sequence_length=100)
    text = schedule_text(simulate_schedule(schedule, {"code": 10_000, "prose": 3_000}))
    assert text.startswith("8k tokens in 10 steps of 8")
    rows = cells_of(text)
    assert ["main", "0", "10", "8k"] in rows
    assert ["code", "25.0%", "2k", "0.200", "-"] in rows
    assert ["prose", "75.0%", "6k", "2.000", "at", "4k,", "step", "4", "of", "main"] in rows
    assert "requested" not in text


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
