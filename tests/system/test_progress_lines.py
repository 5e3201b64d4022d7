"""Progress that is no terminal's: a line now and then, and one for each end."""

from __future__ import annotations

from mixopt.system import progress


def test_an_end_is_said_once_and_again_for_one_more_that_has_finished(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with progress("sweep", 100) as update:
        update(50, "1/3 trials, 9k tokens/s")
        for speed in range(20):
            update(100, f"2/3 trials, {speed}k tokens/s")
        update(100, "3/3 trials, 9k tokens/s")
    said = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in said] == [
        "sweep: 100% 2/3 trials",
        "sweep: 100% 3/3 trials",
    ]


def test_time_left_is_measured_from_the_first_progress_not_from_the_start(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 180.0, 190.0, 200.0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with progress("sweep", 100) as update:
        for done in (0, 1, 2, 3):
            update(done, "training" if done else "starting")
    assert capsys.readouterr().err.splitlines() == [
        "sweep: 1% training, 3m00s elapsed",
        "sweep: 2% training, 3m10s elapsed, 16m20s left",
        "sweep: 3% training, 3m20s elapsed, 16m10s left",
    ]
