"""A process between a worker and its command: when either ends, it ends the whole command.

It runs as a standalone script without packages, since it must start fast and outlive the command.
It reads a pipe from the worker. When the pipe closes, because the worker was killed or stops the
command, all processes of the command get SIGTERM and, a few seconds later, SIGKILL; so do processes
left over after the command exits. Orphans are reparented to this process (PR_SET_CHILD_SUBREAPER),
so that it also finds those with a session of their own, such as torchrun's workers; and the command
dies with this process (PR_SET_PDEATHSIG).

    python -I supervisor.py GRACE PROGRAM ARGUMENT ...

Output: two lines of JSON, {"pid": number} and {"code": number}, or {"fault": text}. The worker's
side is `run_supervised` in command_proxy.py.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_PDEATHSIG = 1  # of Linux's prctl
_SUBREAPER = 36  # of Linux's prctl
_POLL = 0.05  # seconds
_KILL_TIMEOUT = 10.0  # seconds to wait for killed processes


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
    # The worker never writes: if the pipe can be read, it was closed.
    while child.poll() is None and not select.select([0], [], [], _POLL)[0]:
        pass
    code = child.returncode
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


def _kill_all(grace: float) -> None:
    """End all processes of the command, first by SIGTERM, then by SIGKILL."""
    _send(signal.SIGTERM)
    until = time.monotonic() + grace
    while _descendants() and time.monotonic() < until:
        time.sleep(_POLL)
    until = time.monotonic() + _KILL_TIMEOUT
    while _descendants() and time.monotonic() < until:
        _send(signal.SIGKILL)  # again and again: new processes may have started
        time.sleep(_POLL)


def _send(number: int) -> None:
    for pid in _descendants():
        with suppress(OSError):
            os.kill(pid, number)


def _descendants() -> list[int]:
    """Return the running descendants of this process."""
    below = defaultdict(list)
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            state, parent, *_ = file.read().rpartition(b")")[2].split()
            if state not in (b"Z", b"X"):
                below[int(parent)].append(int(name))
    descendants = [os.getpid()]
    for pid in descendants:  # which grows
        descendants += below[pid]
    return descendants[1:]


def _write(message: dict[str, object]) -> None:
    with suppress(OSError):  # the worker has ended
        os.write(1, (json.dumps(message) + "\n").encode())


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
