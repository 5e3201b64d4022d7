"""What runs in a child comes back in order, and a child that dies is told in words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from mixopt.errors import CorpusError, RunError, ShardError
from mixopt.system import close_children, in_child, in_children

FUNCTIONS = """
import os, signal, sys, time
from mixopt.errors import ShardError

def numbers(count, size=1):
    for k in range(count):
        yield str(k).encode() * size

def killed(after, number):
    yield from numbers(after)
    os.kill(os.getpid(), number)

def refused():
    yield b"first"
    raise ShardError("a shard of two\\nlines")

def failed():
    yield b"first"
    raise KeyError("column")

def prints():
    print("a library says something")
    yield b"answer"

def ends():
    sys.stderr.write("memory allocation of 99 bytes failed\\n")
    sys.stderr.flush()
    os.abort()
    yield b""

def process():
    yield str(os.getpid()).encode()

def folder():
    yield os.getcwd().encode()

def late(name, seconds):
    if seconds < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(seconds)
    yield f"{name} {os.getpid()}".encode()

def endless():
    while True:
        yield b"x" * 100_000
"""


@pytest.fixture(autouse=True)
def functions(tmp_path, monkeypatch):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "functions_for_children.py").write_text(FUNCTIONS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    close_children()
    yield
    close_children()


def call(name, **arguments):
    return in_child(f"functions_for_children:{name}", arguments, died=CorpusError)


@pytest.mark.parametrize(("count", "size"), [(0, 1), (1, 1), (5_000, 1), (7, 400_000)])
def test_what_a_child_gives_arrives_whole_and_in_order(count, size):
    assert list(call("numbers", count=count, size=size)) == [
        str(k).encode() * size for k in range(count)
    ]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL", "SIGBUS"])
def test_a_child_that_dies_is_told_by_its_signal(name):
    with pytest.raises(CorpusError, match=f"^died with {name}$"):
        list(call("killed", after=3, number=int(getattr(signal, name))))


def test_the_last_words_of_a_library_are_kept():
    with pytest.raises(CorpusError, match=r"died with SIGABRT \(memory allocation of 99 bytes"):
        list(call("ends"))


def test_whole_messages_before_a_death_are_given_first():
    seen = []
    with pytest.raises(CorpusError, match="died with SIGSEGV"):
        seen.extend(call("killed", after=256, number=int(signal.SIGSEGV)))
    assert len(seen) == 256


def test_an_error_of_ours_arrives_as_itself_in_one_line_after_what_came_before():
    answers = call("refused")
    assert next(answers) == b"first"
    with pytest.raises(ShardError, match="^a shard of two lines$"):
        next(answers)


def test_an_error_of_a_library_is_the_callers_to_name():
    answers = call("failed")
    assert next(answers) == b"first"
    with pytest.raises(CorpusError, match="^failed: KeyError: 'column'$"):
        next(answers)


def test_what_is_printed_is_no_answer():
    assert list(call("prints")) == [b"answer"]


def test_one_child_answers_call_after_call_and_after_an_error():
    first = list(call("process"))
    with pytest.raises(ShardError):
        list(call("refused"))
    assert list(call("process")) == first


def test_a_child_that_died_is_replaced():
    first = list(call("process"))
    with pytest.raises(CorpusError):
        list(call("killed", after=0, number=int(signal.SIGSEGV)))
    assert list(call("process")) != first


def test_a_child_that_died_while_it_waited_is_replaced():
    first = int(b"".join(call("process")))
    os.kill(first, signal.SIGKILL)
    time.sleep(0.2)
    assert list(call("process")) != [str(first).encode()]


def test_calls_at_the_same_time_have_children_of_their_own():
    one, other = call("numbers", count=600), call("numbers", count=600)
    assert list(zip(one, other, strict=True)) == [(str(k).encode(),) * 2 for k in range(600)]


def test_a_caller_that_stops_early_ends_the_child():
    answers = call("endless")
    next(answers)
    answers.close()
    assert list(call("numbers", count=1)) == [b"0"]


def test_a_child_works_where_its_caller_does(tmp_path, monkeypatch):
    list(call("folder"))
    monkeypatch.chdir(tmp_path)
    assert list(call("folder")) == [str(tmp_path).encode()]


def test_a_child_ends_with_its_parent(tmp_path):
    code = (
        "from mixopt.system import in_child\n"
        "from mixopt.errors import RunError\n"
        "answers = in_child('functions_for_children:process', {}, died=RunError)\n"
        "print(next(answers).decode(), flush=True)\n"
        "import os; os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    child = int(ended.stdout)
    for _ in range(100):
        if not is_running(child):
            return
        time.sleep(0.05)
    pytest.fail("the child is still there")


def is_running(process):
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_that_cannot_be_started_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RunError, match="a process that reads files cannot be started: .*No such"):
        list(call("process"))


def first_of_several(place, how):
    return CorpusError(f"call {place}: the process {how}")


def test_calls_of_several_processes_are_answered_in_their_order():
    calls = [{"name": str(k), "seconds": s} for k, s in enumerate((0.4, 0.0, 0.2, 0.0, 0.0))]
    found = in_children("functions_for_children:late", calls, 3, died=first_of_several)
    answers = [answer.decode().split() for answer in found]
    assert [name for name, _ in answers] == ["0", "1", "2", "3", "4"]
    assert len({pid for _, pid in answers}) in (2, 3)


def test_the_first_call_that_fails_is_told_whichever_is_ready_first():
    calls = [{"name": str(k), "seconds": s} for k, s in enumerate((0.1, 0.4, -2.0, -1.0))]
    found = in_children("functions_for_children:late", calls, 4, died=first_of_several)
    assert [next(found)[:1], next(found)[:1]] == [b"0", b"1"]
    with pytest.raises(CorpusError, match="call 2: the process died with SIGKILL"):
        next(found)
