"""Progress that is no terminal's: a line now and then, and one for each end."""

import io
import re

import pytest

from mixopt.system import difference_text, first_few, progress


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    monkeypatch.setattr("time.monotonic", lambda: Clock.now)
    return Clock


def test_the_end_is_said_once_with_what_was_reported_last(capsys, clock):
    with progress("sweep", 100) as update:
        update(50, "1/3 trials, 9k tokens/s")
        for speed in range(20):
            update(100, f"2/3 trials, {speed}k tokens/s")
        update(100, "3/3 trials, 9k tokens/s")
    assert capsys.readouterr().err == "sweep: 100% 3/3 trials, 9k tokens/s, 0s elapsed\n"


@pytest.mark.parametrize("seconds", [600, 5 * 86_400])
def test_a_log_has_forty_lines_at_most_however_long_a_step_takes(capsys, clock, seconds):
    with progress("sweep", seconds) as update:
        for clock.now in range(0, seconds, 5):
            update(clock.now, "training")
    lines = capsys.readouterr().err.splitlines()
    assert 5 < len(lines) <= 40


def test_a_bar_is_one_line_of_a_terminal(monkeypatch):
    """The note is cut where the line is full."""
    text = io.StringIO()
    text.isatty = lambda: True
    for name, value in (("COLUMNS", "60"), ("TERM", "xterm"), ("FORCE_COLOR", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr", text)
    with progress("sweep", 100) as update:
        update(50, "5/21 trials, 3 failed, 123,456k tokens/s, and more than one line can hold")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue()).replace("\r", "\n")
    with_note = [line for line in shown.split("\n") if "sweep" in line]
    assert with_note
    assert not [line for line in shown.split("\n") if line.strip() and "sweep" not in line]
    assert all(len(line) <= 60 for line in with_note)


def test_time_left_is_measured_from_the_first_progress_not_from_the_start(capsys, clock):
    with progress("sweep", 100) as update:
        for done, clock.now in enumerate((1.0, 180.0, 240.0, 320.0)):
            update(done, "training" if done else "starting")
    assert capsys.readouterr().err.splitlines() == [
        "sweep: 1% training, 3m00s elapsed",
        "sweep: 2% training, 4m00s elapsed, 1h38m left",
        "sweep: 3% training, 5m20s elapsed, 1h53m left",
    ]


def test_of_many_words_the_first_are_written_and_a_difference_that_rounds_to_0_has_no_minus():
    assert first_few(["a", "b", "c"], 3) == "a, b, c"
    assert first_few(["a", "b", "c"], 1) == "a and 2 more"
    assert difference_text(-0.00001) == "+0.0000"
    assert difference_text(-0.0001) == "\N{MINUS SIGN}0.0001"
