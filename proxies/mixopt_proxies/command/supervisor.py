"""A process between a worker and its command: when either ends, it ends the whole command.

Started as a file of its own, without any package, since it must start at once and outlive what
it watches. It holds the end of a pipe from the worker. When that closes, because the worker was
killed or wants the command ended, all processes of the command get SIGTERM and, a few seconds
later, SIGKILL; so do those that the command left behind when it ended by itself. Orphans come
to this process (PR_SET_CHILD_SUBREAPER), so that it finds also those that made a session of
their own, as torchrun's workers do; and the command dies with this process (PR_SET_PDEATHSIG).

    python -I supervisor.py GRACE PROGRAM ARGUMENT ...

Out: two lines of JSON, {"pid": number} and {"code": number}, or {"fault": text}. What the worker
does of this (`run_supervised`) stands here too.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

GRACE = 5.0  # seconds that a command has to end by itself once it was told to
SIGN_OF_LIFE = 0.2  # seconds between two of the worker
_PDEATHSIG, _SUBREAPER = 1, 36  # of Linux's prctl
_TICK = 0.05  # seconds between two looks
_DYING = 10.0  # seconds until a killed process is left to the kernel


def run_supervised(
    words: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    timeout: float | None,
    alive: Callable[[], None],
) -> dict[str, Any]:
    """Run a command to its end.

    Returns:
        One of `code`, its exit code, negative for a signal; `fault`, why it could not be started;
        `late`, that it was ended after `timeout` seconds; and `killed`, what its supervisor was
        killed by.
    """
    begun, late = time.monotonic(), False
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(GRACE), *words],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        while process.poll() is None:
            alive()
            late = timeout is not None and time.monotonic() - begun > timeout
            if late:
                process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(SIGN_OF_LIFE)
    finally:  # the supervisor ends what is left
        process.stdin.close()
        lines = process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()
    ended: dict[str, Any] = {}
    for line in lines:
        ended |= json.loads(line)
    if process.returncode and "pid" in ended:
        with suppress(OSError):
            os.killpg(ended["pid"], signal.SIGKILL)
        return {"killed": process.returncode}
    return {"late": True} if late and ended.get("code") is None else ended


def main(grace: float, words: list[str]) -> None:
    """Run a command, and end all of it when it or the worker ends."""
    libc = ctypes.CDLL(None)
    libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the worker decides
    try:
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True,
            preexec_fn=_prepared(libc),  # noqa: PLW1509 (this process has one thread)
        )  # fmt: skip
    except (OSError, ValueError) as error:
        fault = getattr(error, "strerror", None) or str(error)
        _say({"fault": f"{fault}: {words[0]!r}"})
        return
    _say({"pid": child.pid})
    code = _watched(child.pid)
    _end_all(grace)
    _say({"code": code})


def _prepared(libc: ctypes.CDLL) -> Callable[[], None]:
    parent = os.getpid()

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before that
            os._exit(1)

    return prepare


def _watched(child: int) -> int | None:
    """Return the command's exit code, or None where the worker ended it or is gone."""
    while True:
        code = _reaped().get(child)
        if code is not None:
            return code
        ready, _, _ = select.select([0], [], [], _TICK)
        if ready:  # nothing is ever written: the pipe has closed
            return None


def _reaped() -> dict[int, int]:
    """Return the exit codes of the children that have ended, by process."""
    ended = {}
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def _end_all(grace: float) -> None:
    """End the processes of the command, politely at first."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, _DYING)):
        until = time.monotonic() + seconds
        _send(number)
        while _descendants() and time.monotonic() < until:
            if number == signal.SIGKILL:  # some may have been born meanwhile
                _send(number)
            time.sleep(_TICK)
            _reaped()


def _send(number: int) -> None:
    for pid in _descendants():
        with suppress(OSError):
            os.kill(pid, number)


def _descendants() -> list[int]:
    """Return the processes below this one that have not ended."""
    below: dict[int, list[int]] = {}
    with suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                if fields[0] not in (b"Z", b"X"):
                    below.setdefault(int(fields[1]), []).append(int(name))
    descendants, waiting = [], [os.getpid()]
    while waiting:
        children = below.get(waiting.pop(), [])
        descendants += children
        waiting += children
    return descendants


def _say(message: dict[str, object]) -> None:
    with suppress(OSError):  # the worker is gone
        os.write(1, (json.dumps(message) + "\n").encode())


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
