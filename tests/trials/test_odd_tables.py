"""Tables with absurd names, numbers and types: one line, and no time that grows with a square."""

from __future__ import annotations

import polars as pl
import pytest

from mixopt import Trials
from mixopt.errors import TrialsError

ROWS = 4


def frame() -> pl.DataFrame:
    """A table of four finished trials, as others may have written it."""
    content = {
        "trial": [f"t{row}" for row in range(ROWS)],
        "role": "sampled",
        "seed": 0,
        "status": "finished",
        "reason": "",
        "mixture": [f"m{row}" for row in range(ROWS)],
        "weight/a": [0.1, 0.2, 0.3, 0.4],
        "weight/b": [0.9, 0.8, 0.7, 0.6],
        "loss/x": [1.0, 2.0, 3.0, 4.0],
        "bpb/x": None,
        "tokens": 10,
        "parameters": 10,
        "proxy": "p",
        "seconds": 1.0,
        "round": 0,
    }
    return pl.DataFrame(content)


def read(table: pl.DataFrame, tmp_path) -> Trials:
    path = tmp_path / "trials.parquet"
    table.write_parquet(path)
    return Trials.read(path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("weight/a", {"q": 1}, "column 'weight/a' of the table of trials holds no plain values"),
        ("mixture", None, "trial 't0': has no fingerprint of its mixture"),
        ("loss/x", 1e308, "trial 't0': is finished but its loss on 'x' is 1e[+]308"),
        ("tokens", -1, "trial 't0': tokens is -1; need a number from 0 to 9007199254740992"),
    ],
)
def test_a_cell_that_cannot_be_is_one_line(column, value, message, tmp_path):
    odd = pl.Series(column, [value] * ROWS)
    with pytest.raises(TrialsError, match=message):
        read(frame().with_columns(odd), tmp_path)


def test_a_message_shows_no_control_character_of_a_table(tmp_path):
    odd = pl.Series("seed", ["\x1b[31m"] * ROWS)
    with pytest.raises(TrialsError) as caught:
        read(frame().with_columns(odd), tmp_path)
    assert str(caught.value).isprintable()
    assert r"\x1b[31m" in str(caught.value)


def test_a_device_is_no_table():
    with pytest.raises(TrialsError, match="/dev/zero: cannot be read: it is a device"):
        Trials.from_csv("/dev/zero", "/dev/zero")


def test_a_fit_of_trials_without_losses_is_one_line(tmp_path):
    trials = read(frame().drop("loss/x", "bpb/x"), tmp_path)
    with pytest.raises(TrialsError, match="the trials have no losses: no column loss/NAME"):
        trials.fit()
