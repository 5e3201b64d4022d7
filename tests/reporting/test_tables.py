"""Tables fit the terminal: headers and cells break, then columns move below."""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len

from mixopt.reporting import table_text
from mixopt.system import wrapped

WORDS = ("short", "a long text of many words in one cell", "+0.1234")


def lines_of(columns, rows, width):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        return table_text("Title", columns, rows).splitlines()


def test_a_table_has_its_first_column_to_the_left_and_numbers_to_the_right():
    lines = lines_of(("domain", "share"), [("web", "1.0%"), ("code", "99.0%")], 80)
    assert lines == [
        "Title",
        "",
        "  domain  share",
        "  ──────────────",
        "  web      1.0%",
        "  code    99.0%",
    ]


@pytest.mark.parametrize("width", [40, 60, 100])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_cut(width):
    columns = ("name", *(f"column number {n}" for n in range(9)))
    rows = [("first", *(WORDS[n % 3] for n in range(9)))]
    lines = lines_of(columns, rows, width)
    assert max(map(len, lines)) <= width
    found = re.findall(r"\S+", "\n".join(lines))
    for word in (*WORDS[1].split(), "+0.1234", "short", "first"):
        assert word in found


def test_an_interval_stays_in_one_line_and_a_text_beside_it_breaks():
    interval = "+0.1507 to +0.2999"
    columns = ("over the mixture", "validated gain", "95% interval")
    lines = lines_of(columns, [("the best trial", "+0.2253", interval)], 44)
    assert sum(interval in line for line in lines) == 1
    assert lines[-2].split()[:2] == ["the", "best"]


def test_columns_that_cannot_fit_go_below_each_after_the_first():
    columns = ("domain", *(f"loss{n}" for n in range(12)))
    lines = lines_of(columns, [("web", *["0.12345"] * 12)], 40)
    assert sum(line.startswith("  domain") for line in lines) > 1
    assert sum(line.count("0.12345") for line in lines) == 12


def test_a_name_that_fills_the_terminal_is_cut_into_lines():
    lines = lines_of(("domain", "share"), [("x" * 100, "1.0%")], 60)
    assert max(map(len, lines)) <= 60
    assert sum(line.count("x") for line in lines) == 100


def test_wide_letters_count_as_two_columns():
    lines = lines_of(("d", "n"), [("数据", "1"), ("web!", "2")], 60)
    assert cell_len(lines[-1]) == cell_len(lines[-2])


def test_a_sentence_is_broken_between_words_and_indented():
    assert wrapped("  one two three", width=11) == "  one two\n    three"
    assert wrapped("/a/long/path/without/a/space", width=10) == "/a/long/path/without/a/space"
