"""Lines of a record: what is written, what is read, and what a cut or damaged file means."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict

import pytest
from hypothesis import given, strategies as st

from mixopt.config import TrackingConfig
from mixopt.tracking import Tracker, record
from mixopt.tracking.record import (
    JOURNAL,
    SENT,
    Position,
    WantedRun,
    append_line,
    points_of,
    wanted_runs,
)
from mixopt.tracking.sender import MAX_KEY, key_of

LIMIT = 1000


def write(path, steps, **metrics):
    for step in steps:
        append_line(path, {"step": step, "time": 1.0, **(metrics or {"loss": float(step)})})


def taken(position, path, limit=LIMIT):
    return [(p.key, p.step) for p in position.take(path, limit)]


def test_half_a_line_is_ended_by_who_writes_next_and_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [0])
    with path.open("ab") as stream:
        stream.write(b'{"step": 1, "ti')
    write(path, [2])
    assert taken(Position(), path) == [("loss", 0), ("loss", 2)]


def test_what_is_read_in_pieces_is_what_is_read_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(20))
    position, pieces = Position(), []
    while points := taken(position, path, limit=3):
        pieces += points
    assert pieces == [("loss", step) for step in range(20)]
    with path.open("ab") as stream:
        stream.write(b'{"step": 20')
    assert taken(position, path) == []


def test_after_a_cut_only_later_steps_are_new(tmp_path):
    path = tmp_path / "metrics.jsonl"
    position = Position()
    write(path, range(10))
    assert len(taken(position, path)) == 10
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]))
    write(path, range(5, 15), loss=0.5, rate=1.0)
    assert [step for key, step in taken(position, path) if key == "loss"] == list(range(10, 15))


@given(st.binary(max_size=80) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_line_has_points_that_mlflow_takes_or_none(line):
    for point in points_of(line):
        assert abs(point.step) < 1 << 63
        assert 0 <= point.time < 1 << 63


def test_lines_that_are_not_of_metrics_have_no_points(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("""\
{"step": 1.5, "time": 1, "loss": 1}
{"step": true, "time": 1, "loss": 1}
{"step": 1, "time": -1, "loss": 1}
{"step": 99999999999999999999, "time": 1, "loss": 1}
{"step": 1, "time": 1, "loss": "much", "on": true, "none": null}
""")
    assert taken(Position(), path) == []
    write(path, [2])
    assert taken(Position(), path) == [("loss", 2)]


@given(st.text(min_size=1, max_size=400))
def test_every_name_has_a_key_that_mlflow_takes(name):
    from mlflow.utils.validation import _validate_metric_name

    key = key_of(name)
    assert len(key) <= MAX_KEY
    _validate_metric_name(key)


def test_names_that_begin_alike_have_keys_of_their_own():
    assert key_of("a" * 300 + "x") != key_of("a" * 300 + "y")
    assert key_of("loss/web") == "loss/web"
    assert key_of("weight/c++") == "weight/c_2b__2b_"


def want(path, **fields):
    """Append what a run shall be to the record."""
    first = {"step": "sweep", "server": None, "experiment": "toy", "name": "a", "started": 1}
    append_line(path / JOURNAL, first)
    append_line(path / JOURNAL, asdict(WantedRun("sweep", None, "toy", "sweep", 1, **fields)))


def test_a_step_that_starts_again_keeps_what_it_was_started_with(tmp_path):
    with Tracker(TrackingConfig(), "toy", tmp_path, sends=False) as tracker:
        tracker.start("sweep", {"seed": 0}, {"mixopt.fingerprint": "1"})
        tracker.follow("sweep", tmp_path / "a.jsonl")
        tracker.end("sweep")
    assert wanted_runs(tmp_path)["sweep"].status == "FINISHED"
    with Tracker(TrackingConfig(), "toy", tmp_path, sends=False) as tracker:
        tracker.start("sweep", {"seed": 9}, {"mixopt.fingerprint": "1", "more": "yes"})
    wanted = wanted_runs(tmp_path)["sweep"]
    assert (wanted.status, wanted.ended, wanted.params) == ("RUNNING", None, {"seed": "0"})
    assert (wanted.lines, wanted.tags["more"]) == (["a.jsonl"], "yes")


def test_another_fingerprint_is_another_run(tmp_path):
    for fingerprint in ("1", "2"):
        with Tracker(TrackingConfig(), "toy", tmp_path, sends=False) as tracker:
            tracker.start("sweep", {"seed": 0}, {"mixopt.fingerprint": fingerprint})
            if fingerprint == "1":
                tracker.follow("sweep", tmp_path / "a.jsonl")
    wanted = wanted_runs(tmp_path)["sweep"]
    assert (wanted.fingerprint, wanted.lines) == ("2", [])


def test_facts_are_added_to_a_step_of_another_process_and_to_none_that_is_not_there(tmp_path):
    want(tmp_path, tags={"old": "1"})
    with Tracker(TrackingConfig(), "toy", tmp_path, sends=False) as tracker:
        tracker.add("sweep", metrics={"outcome/x": 2.0})
        tracker.add("validate", tags={"new": "1"})
    (wanted,) = wanted_runs(tmp_path).values()
    assert (wanted.tags, wanted.metrics) == ({"old": "1"}, {"outcome/x": 2.0})


def test_damaged_lines_of_the_record_are_skipped(tmp_path):
    want(tmp_path, tags={"good": "yes"})
    with (tmp_path / JOURNAL).open("a") as stream:
        stream.write("""\
[1, 2]
{"step": "sweep", "server": null, "experiment": "x", "name": "x", "started": -1}
{"step": "sweep", "server": 1, "experiment": "x", "name": "x", "started": 1, "files": 7}
""")
    (wanted,) = wanted_runs(tmp_path).values()
    assert wanted.tags.get("good") == "yes"


WAITS = [
    ("sys.exit(0)", None),
    ("sys.exit(1)", "MLflow's process ended; see {}/tracking.log"),
    ("sys.stderr.write('2026-11-30 04:12:59 s: down\\n'); sys.exit(1)", "s: down"),
    ("open('tracking_sent.json', 'w').write('{\"trouble\": \"noted\"}'); sys.exit(1)", "noted"),
    ("time.sleep(60)", "s: no answer for 0.5 s"),
]


@pytest.mark.parametrize(("code", "expected"), WAITS)
def test_the_end_of_a_sender_is_waited_for_while_it_gives_signs_of_life(tmp_path, code, expected):
    script = f"import sys, time; sys.stdin.read(); {code}"
    with (tmp_path / "tracking.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", script],
            stdin=subprocess.PIPE, stderr=log, text=True, cwd=tmp_path,
        )  # fmt: skip
    found = record.wait_for_sender(process, tmp_path, "s", 0.5 if "sleep" in code else 60)
    assert found == (expected and expected.format(tmp_path))
    assert process.returncode is not None


NAMED = "http://me:s3cret@127.0.0.1:5000"
LOGIN = "--uri http://127.0.0.1:5000, with MLFLOW_TRACKING_USERNAME and"


@pytest.mark.parametrize(
    ("uri", "is_alive", "error", "patience", "hint"),
    [
        (NAMED, True, None, 5, LOGIN),
        (NAMED, False, None, 60, LOGIN),
        ("sqlite:///a.db", True, None, 60, "--uri sqlite:///{}/a.db"),
        (None, True, KeyError(), 5, "sync {}"),
    ],
)
def test_what_is_left_is_one_warning_with_the_command_that_sends_it(
    tmp_path, monkeypatch, uri, is_alive, error, patience, hint
):
    """A server is given 5 s without a sign of life, a file or a start 60, an error 5."""
    monkeypatch.chdir(tmp_path)
    started, waited, warnings = [], [], []

    def wait(process, path, server, patience):
        waited.append(patience)
        return "down"

    monkeypatch.setattr(record, "start_sender", lambda *given: started.append(given) or "process")
    monkeypatch.setattr(record, "wait_for_sender", wait)
    with (
        suppress(KeyError),
        Tracker(TrackingConfig(uri=uri), "toy", tmp_path, warnings.append) as t,
    ):
        t.start("sweep", {})
        t.start("validate", {})
        if is_alive:
            (tmp_path / SENT).write_text("{}")
        if error is not None:
            raise error
    assert [given[2] for given in started] == ["toy"]
    assert waited == [patience]
    (warning,) = warnings
    assert warning.startswith("tracking: down; the run continues, and what is missing is sent by")
    assert hint.format(tmp_path) in warning
    assert "s3cret" not in warning
    assert warning.endswith("set") == (uri == NAMED)


def test_a_record_that_cannot_be_written_or_started_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "mlflow.db")
    warnings = []
    Tracker(TrackingConfig(), "toy", tmp_path / "file", warnings.append, sends=False).start("a", {})
    Tracker(TrackingConfig(), "toy", tmp_path, warnings.append).start("a", {})
    (tmp_path / SENT).write_text('{"trouble": "down"}')
    Tracker(TrackingConfig(), "toy", tmp_path, warnings.append, sends=False).start("a", {})
    assert warnings.pop().startswith("tracking: down; the run continues")
    assert "the record cannot be written: " in warnings[0]
    assert "cannot be started: " in warnings[1]
    assert "mlflow.db: is not a file; delete it" in warnings[1]
