"""Each worker has a log, in which marks say which part is of which trial."""

import os

import pytest

from mixopt.sweeps import LogPart, logs_in, part_of
from mixopt.sweeps.trial_files import marked

TEN = "mixopt: 2026-11-26T10:00:00Z"
LATER = "mixopt: 2026-11-26T10:05:00Z"


def log(folder, text, name="worker-1.log"):
    path = folder / "logs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def read(part):
    with part.path.open() as stream:
        stream.seek(part.start)
        return stream.read() if part.stop is None else stream.read(part.stop - part.start)


def test_marks_say_where_a_group_begins_and_ends(tmp_path):
    path = tmp_path / "logs" / "worker-1.log"
    path.parent.mkdir()
    with path.open("w") as stream:
        for names in (["a", "b"], ["c"]):
            with marked(names, stream):
                stream.write(f"trains {names[0]}\n")
    found = read(part_of("b", logs_in(tmp_path)))
    assert found.splitlines()[1] == "trains a"
    assert len(found.splitlines()) == 3
    assert part_of("d", logs_in(tmp_path)) is None


def test_a_group_that_raises_is_ended_too(tmp_path):
    with (tmp_path / "log").open("w") as stream, pytest.raises(ValueError), marked(["a"], stream):
        raise ValueError
    assert (tmp_path / "log").read_text().splitlines()[-1].endswith(' ends ["a"]')


def test_the_last_part_counts_whichever_log_it_is_in(tmp_path):
    log(tmp_path, f'{LATER} begins ["a"]\nsecond\n{LATER} ends ["a"]\n', "worker-1.log")
    log(tmp_path, f'{TEN} begins ["a"]\nfirst\n{TEN} ends ["a"]\n', "worker-2.log")
    assert "second" in read(part_of("a", logs_in(tmp_path)))


def test_a_part_without_an_end_stops_where_the_next_group_begins(tmp_path):
    path = log(tmp_path, f'{TEN} begins ["a"]\nkilled\n{LATER} begins ["b"]\nmore\n')
    assert read(part_of("a", [path])) == f'{TEN} begins ["a"]\nkilled\n'
    running = part_of("b", [path])
    assert (running.stop, read(running)) == (None, f'{LATER} begins ["b"]\nmore\n')


@pytest.mark.parametrize("names", ['["a"', "{}", "[7]", "[" * 5000 + "]", '["A"]'])
def test_a_mark_that_names_no_trial_is_none(tmp_path, names):
    assert part_of("a", [log(tmp_path, f"{TEN} begins {names}\n")]) is None


def test_pipes_are_no_logs(tmp_path):
    path = log(tmp_path, f'{TEN} begins ["a"]\n')
    os.mkfifo(path.with_name("pipe"))
    assert logs_in(tmp_path) == [path]
    assert part_of("a", logs_in(tmp_path)) == LogPart(path, 0, None, "2026-11-26T10:00:00Z")
