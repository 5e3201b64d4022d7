"""A process between a worker and its command: when either ends, it ends the whole command.

It runs as a standalone script without packages, since it must start fast and outlive the command.
It reads a pipe from the worker. When the pipe closes, because the worker was killed or stops the
command, all processes of the command get SIGTERM and, a few seconds later, SIGKILL; so do processes
left over after the command exits. Orphans are reparented to this process (PR_SET_CHILD_SUBREAPER),
so that it also finds those with a session of their own, such as torchrun's workers; and the command
dies with this process (PR_SET_PDEATHSIG).

    python -I supervisor.py GRACE PROGRAM ARGUMENT ...

Output: two lines of JSON, {"pid": number} and {"code": number}, or {"fault": text}. The worker's
side, `run_supervised`, is in this file too.
"""

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

GRACE = 5.0  # seconds between SIGTERM and SIGKILL
HEARTBEAT = 0.2  # seconds between two signs of life of the worker
_PDEATHSIG, _SUBREAPER = 1, 36  # of Linux's prctl
_POLL = 0.05  # seconds
_KILL_TIMEOUT = 10.0  # seconds to wait for killed processes


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
        One of `code`, the exit code, negative for a signal; `fault`, the reason that it could not
        start; `late`, True if it was stopped after `timeout` seconds; and `killed`, the signal that
        killed its supervisor.
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
                process.wait(HEARTBEAT)
    finally:  # the supervisor ends the remaining processes
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
    """Run a command, and end all its processes when it or the worker ends."""
    libc = ctypes.CDLL(None)
    libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # only the worker stops the command
    try:
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True,
            preexec_fn=_child_setup(libc),  # noqa: PLW1509 (this process has one thread)
        )  # fmt: skip
    except (OSError, ValueError) as error:
        fault = getattr(error, "strerror", None) or str(error)
        _write({"fault": f"{fault}: {words[0]!r}"})
        return
    _write({"pid": child.pid})
    code = _wait(child.pid)
    _kill_all(grace)
    _write({"code": code})


def _child_setup(libc: ctypes.CDLL) -> Callable[[], None]:
    parent = os.getpid()

    def set_up() -> None:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before prctl
            os._exit(1)

    return set_up


def _wait(child: int) -> int | None:
    """Wait for the command; return its exit code, or None if the worker closes the pipe."""
    while True:
        code = _reap().get(child)
        if code is not None:
            return code
        ready, _, _ = select.select([0], [], [], _POLL)
        if ready:  # the worker never writes: the pipe was closed
            return None


def _reap() -> dict[int, int]:
    """Return the exit codes of children that have ended, by pid."""
    ended = {}
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def _kill_all(grace: float) -> None:
    """End all processes of the command, first by SIGTERM, then by SIGKILL."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, _KILL_TIMEOUT)):
        until = time.monotonic() + seconds
        _send(number)
        while _descendants() and time.monotonic() < until:
            if number == signal.SIGKILL:  # new processes may have started meanwhile
                _send(number)
            time.sleep(_POLL)
            _reap()


def _send(number: int) -> None:
    for pid in _descendants():
        with suppress(OSError):
            os.kill(pid, number)


def _descendants() -> list[int]:
    """Return the running descendants of this process."""
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


def _write(message: dict[str, object]) -> None:
    with suppress(OSError):  # the worker has ended
        os.write(1, (json.dumps(message) + "\n").encode())


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
