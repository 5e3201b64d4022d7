"""Lines of a record: what is written, what is read, and what a cut or damaged file means."""

import itertools
import json
import os
import sys
from contextlib import suppress
from unittest.mock import Mock

import pytest
from hypothesis import given, strategies as st

from mixopt.config import TrackingConfig
from mixopt.errors import RunError
from mixopt.system import ServerUri
from mixopt.tracking import Tracker, record, sync
from mixopt.tracking.mlflow_names import MAX_KEY, mlflow_key
from mixopt.tracking.record import (
    ARTIFACTS,
    JOURNAL,
    LOCAL,
    LOCK,
    LOG,
    SENT,
    MetricPoint,
    SenderProcess,
    append_line,
    points_of,
    read_points,
    wanted_runs,
)


def test_a_file_of_metrics_is_read_in_pieces_without_halves_of_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in range(20):
        append_line(path, {"step": step, "time": 1.0, "loss": float(step)})
        if step == 9:
            with path.open("ab") as stream:
                stream.write(b'{"step": 99, "ti')
    whole = path.stat().st_size
    with path.open("ab") as stream:
        stream.write(b'{"step": 20, "time": 1, "loss": 1}')
    points, end = read_points(path, 0, 1000)
    assert points == [MetricPoint("loss", float(step), 1000, step) for step in range(20)]
    assert end == whole
    pieces, after = [], 0
    while after != end:
        points, after = read_points(path, after, 3)
        assert len(points) <= 3
        pieces += points
    assert [point.step for point in pieces] == list(range(20))
    assert read_points(path, end, 3) == ([], end)
    assert read_points(path, whole + 99, 1000)[1] == end


@given(st.binary(max_size=80) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_line_has_points_that_mlflow_takes_or_none(line):
    for point in points_of(line):
        assert abs(point.step) < 1 << 63
        assert 0 <= point.time < 1 << 63


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ('{"step": 1, "time": 2, "loss": 1, "moe": {"mean": 2}}', {"loss": 1.0, "moe/mean": 2.0}),
        ('{"step": 1, "time": 2, "loss": "much", "on": true, "none": null, "huge": 1e300}', {}),
        ('{"step": 1.5, "time": 2, "loss": 1}', {}),
        ('{"step": true, "time": 2, "loss": 1}', {}),
        ('{"step": 1, "time": -1, "loss": 1}', {}),
        ('{"step": 9223372036854775808, "time": 2, "loss": 1}', {}),
        ('{"step": 1, "time": 9223372036854776, "loss": 1}', {}),
    ],
)
def test_the_points_of_a_line_are_its_numbers(line, values):
    assert list(points_of(line.encode())) == [
        MetricPoint(key, value, 2000, 1) for key, value in values.items()
    ]


@given(st.text(min_size=1, max_size=400))
def test_every_name_has_a_key_that_mlflow_takes(name):
    from mlflow.utils.validation import _validate_metric_name

    key = mlflow_key(name)
    assert len(key) <= MAX_KEY
    _validate_metric_name(key)


def test_names_that_begin_alike_have_keys_of_their_own():
    assert mlflow_key("a" * 300 + "x") != mlflow_key("a" * 300 + "y")
    assert mlflow_key("loss/web") == "loss/web"
    assert mlflow_key("weight/c++") == "weight/c_2b__2b_"
    assert [mlflow_key(name) for name in ("..", "a/../b", "/a", "")] == ["__", "a____b", "_a", "_"]


def begun(path, *, fingerprint="1", params=None, **tags):
    """Return a tracker of a sweep, which was started."""
    tracker = Tracker(TrackingConfig(), "toy", path, sends=False)
    tracker.start("sweep", params or {"seed": 0}, {"mixopt.fingerprint": fingerprint, **tags})
    return tracker


def test_a_step_that_starts_again_keeps_what_it_was_started_with(tmp_path):
    tracker = begun(tmp_path, old="1")
    tracker.add("sweep", lines="a.jsonl", metrics={"outcome/x": 2.0})
    tracker.add("validate", tags={"new": "1"})
    tracker.end("sweep")
    (before,) = wanted_runs(tmp_path).values()
    assert (before.status, before.ended >= before.started) == ("FINISHED", True)
    begun(tmp_path, params={"seed": 9}, more="yes")
    wanted = wanted_runs(tmp_path)["sweep"]
    assert (wanted.status, wanted.ended, wanted.params) == ("RUNNING", None, {"seed": "0"})
    assert (wanted.lines, wanted.metrics) == ("a.jsonl", {"outcome/x": 2.0})
    assert wanted.tags == {"mixopt.fingerprint": "1", "old": "1", "more": "yes"}
    assert wanted.started == before.started
    begun(tmp_path, fingerprint="2")
    wanted = wanted_runs(tmp_path)["sweep"]
    assert (wanted.fingerprint, wanted.lines, wanted.metrics) == ("2", None, {})


def test_damaged_lines_of_the_record_are_skipped(tmp_path):
    begun(tmp_path, good="yes")
    with (tmp_path / JOURNAL).open("a") as stream:
        stream.write("""\
[1, 2]
{"step": "sweep", "server": null, "experiment": "x", "name": "x", "started": -1}
{"step": "sweep", "server": 1, "experiment": "x", "name": "x", "started": 1, "files": 7}
""")
    (wanted,) = wanted_runs(tmp_path).values()
    assert wanted.tags["good"] == "yes"


WAITS = [
    ("sys.exit(0)", None),
    ("sys.exit(1)", "MLflow's process ended; see {}/tracking.log"),
    ("sys.stderr.write('2026-11-30 04:12:59 s: down\\n'); sys.exit(1)", "s: down"),
    ("open('tracking_sent.json', 'w').write('{\"trouble\": \"noted\"}'); sys.exit(1)", "noted"),
    ("time.sleep(60)", "mlflow.db: no answer for 0.5 s"),
]


@pytest.mark.parametrize(("code", "expected"), WAITS)
def test_the_end_of_a_sender_is_waited_for_while_it_gives_signs_of_life(
    tmp_path, monkeypatch, code, expected
):
    python = tmp_path / "python"
    script = f"import sys, time; assert sys.stdin.read() == chr(10); {code}"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -S -c {json.dumps(script)}\n")
    python.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(python))
    process = SenderProcess(tmp_path, None)
    found = process.end(0.5 if "sleep" in code else 60)
    assert found == (expected and expected.format(tmp_path))
    assert process._process.returncode is not None


NAMED = "http://me:s3cret@127.0.0.1:5000"
LOGIN = "--uri http://127.0.0.1:5000 with MLFLOW_TRACKING_USERNAME and"


@pytest.mark.parametrize(
    ("uri", "error", "patience", "hint"),
    [
        (NAMED, None, None, LOGIN),
        ("sqlite:///a.db", None, None, "--uri sqlite:///{}/a.db"),
        (None, KeyError(), 5, "sync {}"),
    ],
)
def test_what_is_left_is_one_warning_with_the_command_that_sends_it(
    tmp_path, monkeypatch, uri, error, patience, hint
):
    monkeypatch.chdir(tmp_path)
    warnings, process = [], Mock(**{"return_value.end.return_value": "down"})
    monkeypatch.setattr(record, "SenderProcess", process)
    tracker = Tracker(TrackingConfig(uri=uri), "toy", tmp_path, warnings.append)
    with suppress(KeyError), tracker:
        tracker.start("sweep", {})
        tracker.start("validate", {})
        if error is not None:
            raise error
    (path, server), _ = process.call_args
    assert (path, server and server.given) == (
        tmp_path,
        uri and uri.replace("a.db", f"{tmp_path}/a.db"),
    )
    assert process.call_count == 1
    process.return_value.end.assert_called_once_with(patience)
    (warning,) = warnings
    assert warning.startswith("tracking: down; what is missing is sent by")
    assert hint.format(tmp_path) in warning
    assert "s3cret" not in warning
    assert warning.endswith("set") == (uri == NAMED)


@pytest.mark.parametrize(
    ("server", "begins", "seconds"), [(NAMED, True, 5), (NAMED, False, 60), (None, True, 60)]
)
def test_a_server_has_5_seconds_after_its_first_sign_of_life(
    tmp_path, monkeypatch, server, begins, seconds
):
    def poll():
        if begins and not (tmp_path / SENT).exists():
            (tmp_path / SENT).write_text("{}")

    silent = Mock(**{"return_value.poll": poll})
    monkeypatch.setattr("subprocess.Popen", silent)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("time.monotonic", itertools.count().__next__)
    trouble = SenderProcess(tmp_path, server and ServerUri(server)).end()
    assert trouble.endswith(f": no answer for {seconds} s")
    silent.return_value.kill.assert_called_once_with()


def test_a_record_that_cannot_be_written_or_started_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "mlflow.db")
    warnings = []

    def start(path, sends=False):
        Tracker(TrackingConfig(), "toy", path, warnings.append, sends=sends).start("sweep", {})

    start(tmp_path / "file")
    start(tmp_path, sends=True)
    (tmp_path / SENT).write_text('{"trouble": "down"}')
    start(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    start(tmp_path, sends=True)
    expected = [
        "the record cannot be written: ",
        f"cannot be started: {tmp_path}/mlflow.db: is not a file; delete it; what is missing ",
        "down; what is missing ",
        "cannot be started: MLflow is not installed: pip install 'mixopt[all]'; what is missing",
    ]
    for warning, words in zip(warnings, expected, strict=True):
        assert warning.startswith(f"tracking: {words}")


@pytest.mark.parametrize("name", [JOURNAL, SENT, LOG, LOCK, LOCAL, f"{LOCAL}-wal", ARTIFACTS])
def test_no_file_of_the_record_is_a_link_that_leads_out(tmp_path, name):
    run, warnings = tmp_path / "run", []
    run.mkdir()
    Tracker(TrackingConfig(), "toy", run, sends=False).start("sweep", {})
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(tmp_path / "outside")
    with pytest.raises(RunError, match=f"'{name}' is outside this folder"):
        sync(run)
    Tracker(TrackingConfig(), "toy", run, warnings.append).start("sweep", {})
    assert len(warnings) == 1
    assert list(tmp_path.iterdir()) == [run]


def test_disabled_tracking_writes_nothing(tmp_path):
    with Tracker(TrackingConfig(enabled=False), "toy", tmp_path) as tracker:
        tracker.start("sweep", {})
        tracker.end("sweep")
    assert list(tmp_path.iterdir()) == []
