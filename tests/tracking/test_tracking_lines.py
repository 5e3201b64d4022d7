"""Files of metrics and names for MLflow: what is torn, cut or odd."""

import json
import posixpath
import re
import resource
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, strategies as st

from mixopt.tracking import MetricLines
from mixopt.tracking.database import anywhere, first_use
from mixopt.tracking.journal import JOURNAL, Journal
from mixopt.tracking.keys import LONGEST, key_of, name_tags, names_of
from mixopt.tracking.lines import LineFile, Position, points_of


def values(points) -> list[tuple]:
    return [(point.key, point.step, point.value) for point in points]


def test_half_a_line_is_ended_by_who_writes_next_and_left_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1, "ti')
    MetricLines(file).write({"loss": 2.0}, step=2)
    points, position = Position().new_points(file, 100)
    assert values(points) == [("loss", 2, 2.0)]
    assert position.new_points(file, 100)[0] == []


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1, "time": 1.5, "loss"')
    points, position = Position().new_points(file, 100)
    assert points == []
    with file.open("ab") as stream:
        stream.write(b": 3.0}\n")
    assert values(position.new_points(file, 100)[0]) == [("loss", 1, 3.0)]


def test_what_is_read_in_pieces_is_what_is_read_at_once(tmp_path):
    file = tmp_path / "metrics.jsonl"
    for step in range(10):
        MetricLines(file).write({"loss": {"web": step, "code": -step}}, step)
    found, position = [], Position()
    while True:
        points, position = position.new_points(file, 3)
        if not points:
            break
        found += points
    assert found == Position().new_points(file, 100)[0]
    assert len(found) == 20


def test_after_a_cut_each_metric_goes_on_at_its_own_step(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = MetricLines(file)
    lines.write({"held_out": 1.0}, step=4)  # its step's other line was not written yet
    _, position = Position().new_points(file, 100)
    file.write_bytes(b"")
    lines.write({"loss": 2.0}, step=4)
    lines.write({"held_out": 1.0}, step=4)
    lines.write({"loss": 1.5, "held_out": 0.5}, step=5)
    points, position = position.new_points(file, 100)
    assert values(points) == [("loss", 4, 2.0), ("loss", 5, 1.5), ("held_out", 5, 0.5)]
    assert position.new_points(file, 100)[0] == []


def test_numbers_that_are_not_finite_are_spelled_in_the_file(tmp_path):
    file = tmp_path / "metrics.jsonl"
    MetricLines(file).write({"loss": {"a": float("inf"), "b": float("nan")}}, step=1)
    line = file.read_bytes()
    assert json.loads(line)["loss"] == {"a": "inf", "b": "nan"}
    assert [str(point.value) for point in points_of(line)] == ["inf", "nan"]


@pytest.mark.parametrize("line", [b"[]\n", b"\x00\xff\n", b'{"step": 1}\n', b'{"loss": 2}\n'])
def test_what_is_no_line_of_metrics_has_no_points(line):
    assert list(points_of(line)) == []


@given(st.text(min_size=1))
def test_every_name_has_a_key_that_mlflow_takes(name):
    key = key_of(name)
    assert re.fullmatch(r"[/\w.\- :]+", key)
    assert posixpath.normpath(key) == key
    assert not key.startswith(("/", ".."))
    assert len(key) <= LONGEST


def test_long_names_that_begin_alike_have_keys_of_their_own():
    keys = {key_of("a" * 300 + end) for end in "bc"}
    assert [len(key) for key in keys] == [LONGEST] * 2


@given(st.lists(st.text(alphabet="ab+(/", min_size=1, max_size=8), max_size=12))
def test_names_come_back_from_their_tags(names):
    found = names_of(name_tags(names))
    for name in names:
        assert found.get(key_of(name), key_of(name)) in names


def test_names_longer_than_a_tag_go_on_in_further_tags():
    names = [f"domain ({number})" for number in range(500)]
    tags = name_tags(names)
    assert max(map(len, tags.values())) <= 5000
    assert list(names_of({**tags, "other": "x"}).values()) == names


def test_a_database_is_named_so_that_another_working_directory_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert anywhere("sqlite:///all.db") == f"sqlite:///{tmp_path.resolve()}/all.db"
    assert anywhere(f"sqlite:///{tmp_path}/all.db") == anywhere("sqlite:///all.db")
    assert anywhere("http://127.0.0.1:5000") == "http://127.0.0.1:5000"


FIELDS = {"name": "n", "folder": None, "params": {}, "environment": {}, "datasets": []}


def journal_of(path, *events):
    """Return the journal of a directory with these lines, each at its place in seconds."""
    lines = LineFile(path / JOURNAL)
    for when, event in enumerate(events):
        lines.append({"time": when, **event})
    journal = Journal(path)
    journal.read()
    return journal


def test_a_training_that_begins_ends_what_ran_and_leaves_what_had_ended(tmp_path):
    begun = [{"op": "start", "step": step, "tags": {}, **FIELDS} for step in ("sweep", "validate")]
    end = {"op": "end", "step": "sweep"}
    steps = journal_of(tmp_path, *begun, end, {"op": "open"}).steps
    assert (steps["sweep"].status, steps["sweep"].ended) == ("FINISHED", 2000)
    assert (steps["validate"].status, steps["validate"].ended) == ("KILLED", 3000)
    again = {"op": "start", "step": "sweep", "tags": {}, **FIELDS}
    steps = journal_of(tmp_path, again).steps
    assert (steps["sweep"].status, steps["sweep"].ended) == ("RUNNING", None)
    assert steps["sweep"].started == 0, "when it began first"


def test_what_a_step_follows_and_keeps_is_said_once_and_by_trial(tmp_path):
    follow = {"op": "follow", "step": "sweep", "file": "m.jsonl", "trial": None}
    files = {"op": "files", "step": "sweep", "files": ["a"], "folder": "f", "trial": "t0"}
    begin = {"op": "start", "step": "sweep", "tags": {"a": "1"}, **FIELDS}
    tags = {"op": "tags", "step": "sweep", "tags": {"a": "2"}}
    events = [begin, follow, follow, {**follow, "trial": "t0"}, files, tags, {**begin, "tags": {}}]
    unknown = {**follow, "step": "validate"}
    wanted = journal_of(tmp_path, unknown, *events).steps
    assert list(wanted) == ["sweep"]
    assert wanted["sweep"].lines == [("m.jsonl", None), ("m.jsonl", "t0")]
    assert wanted["sweep"].files == {("a", "t0"): "f"}
    assert wanted["sweep"].tags == {"a": "2"}


def test_a_line_of_the_journal_is_taken_in_when_it_is_whole(tmp_path):
    journal = journal_of(tmp_path, {"op": "start", "step": "sweep", "tags": {}, **FIELDS})
    with (tmp_path / JOURNAL).open("ab") as stream:
        stream.write(b'{"op": "end", "step": "sweep", "time": 7')
        stream.flush()
        journal.read()
        assert journal.steps["sweep"].status == "RUNNING"
        stream.write(b"}\n")
        stream.flush()
        journal.read()
    assert (journal.steps["sweep"].status, journal.steps["sweep"].ended) == ("FINISHED", 7000)


def test_a_step_that_begins_again_keeps_its_params_and_a_new_fingerprint_is_a_new_run(tmp_path):
    lines = LineFile(tmp_path / JOURNAL)
    fields = {"step": "sweep", "name": "n", "folder": None, "environment": {}, "datasets": []}

    def start(lr, mark):
        tags = {"mixopt.fingerprint": mark}
        lines.append({"op": "start", "time": 1, **fields, "params": {"lr": lr}, "tags": tags})

    journal = Journal(tmp_path)
    start("1", "a")
    lines.append({"op": "open", "time": 2})
    journal.read()
    assert journal.steps["sweep"].status == "KILLED"
    start("2", "a")
    journal.read()
    assert (journal.steps["sweep"].params, journal.steps["sweep"].status) == (
        {"lr": "1"},
        "RUNNING",
    )
    start("2", "b")
    journal.read()
    assert journal.steps["sweep"].params == {"lr": "2"}


def test_a_line_of_which_the_disk_takes_a_part_is_an_error_and_is_ended_by_the_next(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = MetricLines(file)
    lines.write({"loss": 1.0}, step=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 9, limits[1]))
        with pytest.raises(OSError, match=r"metrics.jsonl: the disk is full"):
            lines.write({"loss": 2.0}, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lines.write({"loss": 3.0}, step=3)
    points, _ = Position().new_points(file, 100)
    assert values(points) == [("loss", 1, 1.0), ("loss", 3, 3.0)]


def test_steps_that_do_not_ascend_are_sent_up_to_the_highest(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = MetricLines(file)
    for step in (4, 6, 5):
        lines.write({"loss": 1.0}, step)
    _, position = Position().new_points(file, 100)
    file.write_bytes(b"")
    for step in (5, 6, 7):
        lines.write({"loss": 1.0}, step)
    assert values(position.new_points(file, 100)[0]) == [("loss", 7, 1.0)]


def test_a_cut_is_noticed_though_the_file_begins_alike_and_is_longer_again(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = MetricLines(file)
    for step in range(30):
        lines.write({"loss": 1.125}, step)
    _, position = Position().new_points(file, 100)
    kept = file.read_bytes().splitlines(keepends=True)[:20]
    file.write_bytes(b"".join(kept))
    for step in range(20, 60):
        lines.write({"loss": 2.0}, step)
    assert values(position.new_points(file, 100)[0]) == [("loss", n, 2.0) for n in range(30, 60)]


def test_what_is_appended_to_a_short_file_is_no_cut(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = MetricLines(file)
    lines.write({"loss": 1.0}, 1)
    _, position = Position().new_points(file, 100)
    lines.write({"loss": 2.0}, 1)
    points, position = position.new_points(file, 100)
    assert values(points) == [("loss", 1, 2.0)], "MLflow keeps both"
    assert position.sent == {}


def test_times_are_in_milliseconds_and_flags_are_no_numbers():
    (point,) = points_of(b'{"step": 1, "time": 2.5, "loss": 3, "flag": true}\n')
    assert (point.key, point.time) == ("loss", 2500)


def test_a_name_that_mlflow_takes_is_its_key_and_needs_no_tag():
    longest = "a" * LONGEST
    assert key_of(longest) == longest
    assert len(key_of(longest + "a")) == LONGEST
    assert name_tags(["web", "loss/web", longest]) == {}


def test_the_journal_is_read_on_from_where_it_was(tmp_path):
    begin = {"op": "start", "step": "sweep", "tags": {}, **FIELDS}
    journal = journal_of(tmp_path, begin, {"op": "end", "step": "sweep"}, begin)
    assert journal._offset == (tmp_path / JOURNAL).stat().st_size


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_a_database_is_made_so_that_writers_do_not_block_readers(tmp_path):
    path = tmp_path / "all" / "mlflow.db"
    with first_use(f"sqlite:///{path}"), closing(sqlite3.connect(path)) as database:
        assert database.execute("pragma journal_mode").fetchone() == ("wal",)
    with first_use("http://127.0.0.1:9"):
        pass


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[]", "line 2: should be a valid dictionary"),
        ('{"op": "start", "step": "sweep", "time": 1}', "line 2: name: is missing"),
        ('{"op": "end", "time": 1}', "line 2: step: is missing"),
        ('{"op": "end", "step": "sweep", "time": -1}', "line 2: time: -1 is no time"),
        ('{"op": "end", "step": "sweep", "time": 1e99}', "line 2: time: 1e+99 is no time"),
        ('{"op": "end", "step": "sweep", "time": NaN}', "line 2: cannot be read: NaN"),
        ('{"op": "end", "step": "sweep", "time": "1"}', "line 2: time: should be a number"),
        ('{"op": "files", "step": "sweep", "files": "a"}', "line 2: files: "),
        ('{"op": "tags", "step": "sweep", "tags": {"a": 1}}', "line 2: tags.a: "),
        ("[" * 100_000, "line 2: is nested too deeply"),
        ("\x00", "line 2: cannot be read"),
    ],
)
def test_a_damaged_line_of_the_journal_is_skipped_and_said(tmp_path, line, said):
    begin = {"op": "start", "step": "sweep", "tags": {}, **FIELDS}
    journal = journal_of(tmp_path, begin)
    with (tmp_path / JOURNAL).open("a") as stream:
        stream.write(f"{line}\n")
    LineFile(tmp_path / JOURNAL).append({"op": "tags", "step": "sweep", "tags": {"b": "2"}})
    journal.read()
    assert journal.steps["sweep"].tags == {"b": "2"}
    assert journal.steps["sweep"].status == "RUNNING"
    (fault,) = journal.faults
    assert said in fault
    assert fault.endswith("; the line is skipped")


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1e400, "time": 1, "x": 1}',
        '{"step": 1, "time": 1e308, "x": 1}',
        '{"step": 1, "time": -1, "x": 1}',
        f'{{"step": {1 << 70}, "time": 1, "x": 1}}',
        '{"step": true, "time": 1, "x": 1}',
        '{"step": 1, "time": 1, "x": [1], "y": {"a": [1]}, "z": null, "w": "infinite"}',
        '{"step": 1, "time": 1, "x": Infinity}',
        "{" * 100_000,
    ],
)
def test_a_damaged_line_of_metrics_has_no_points(line):
    assert list(points_of(line.encode() + b"\n")) == []
