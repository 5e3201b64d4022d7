"""What a worker says is believed where it has the right shape, and is one line where not."""

import pytest

from mixopt.errors import ConfigError, RunError
from mixopt.sweeps.messages import Answer, Beat, read_message
from mixopt.sweeps.worker import failure, is_of_memory


def test_a_heartbeat_says_what_the_worker_does():
    line = b'{"beat": {"doing": "training", "done": 4, "total": 10, "moves": 7, "cpu": 3.5}}\n'
    assert read_message(line) == Beat(doing="training", done=4, total=10, moves=7, cpu=3.5)


def test_an_answer_is_one_thing():
    assert read_message(b'{"tuned": 8}') == Answer(tuned=8)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "cannot be read: Expecting value"),
        (b"\xff\xfe\n", "cannot be read: 'utf-8' codec"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"7\n", "Answer"),
        (b"{}\n", "expected exactly one of tuned, results and error"),
        (b'{"tuned": 8, "error": "x"}', "expected exactly one of tuned, results and error"),
        (b'{"tuned": 0}', "tuned: should be greater than or equal to 1, got 0"),
        (b'{"tuned": 9223372036854775808}', "tuned: should be less than or equal to 1000000"),
        (b'{"results": 7}', "results: should be a valid list, got 7"),
        (b'{"results": [7]}', "results.0: should be a valid dictionary, got 7"),
        (b'{"results": [{"loss": NaN}]}', "NaN is not a number here"),
        (
            b'{"error": "x", "fault": "bored"}',
            "fault: should be 'died', 'memory' or 'lost', got 'bored'",
        ),
        (b'{"tune": 8}', "tune: unknown field"),
        (b'{"beat": {"doing": "dancing"}}', "beat.doing: should be 'starting', 'compiling'"),
        (b'{"beat": {"done": -1}}', "beat.done: should be greater than or equal to 0, got -1"),
        (b'{"beat": {"cpu": 1e999}}', "1e999 is not a finite number"),
    ],
)
def test_anything_else_is_one_line(line, reason):
    with pytest.raises(RunError) as caught:
        read_message(line)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


def raised_from(cause: BaseException) -> Exception:
    error = ValueError("no result")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA"),
        RuntimeError("CUDA error: out of memory"),
        raised_from(MemoryError()),
    ],
)
def test_what_says_that_memory_is_short_is_of_memory(error):
    assert is_of_memory(error)
    assert failure(error)["fault"] == "memory"


@pytest.mark.parametrize("error", [ValueError("out of memory"), RuntimeError("no"), KeyError("x")])
def test_what_does_not_is_not(error):
    assert not is_of_memory(error)
    assert "fault" not in failure(error)


def test_our_own_errors_keep_their_words():
    assert failure(ConfigError("proxy.size: 3")) == {"error": "proxy.size: 3"}
