"""Processes: whether one is there, what this one may use, and a limit on calls to others."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from mixopt.errors import RunError

Answer = TypeVar("Answer")

ANSWER_SECONDS = 30.0  # that a server, a cluster or a scheduler has for an answer


def host_name() -> str:
    """Return the name of this host."""
    return socket.gethostname()


def usable_cores() -> int:
    """Count the cores that this process may use, a container's limit included."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores or 1, max(1, int(quota) // int(period)))
    return cores or 1


def process_space() -> str:
    """Return what tells containers of one host name apart; empty where the system has none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def start_of(pid: int) -> str | None:
    """Return when a process began, as the system counts; None where it is not there, or unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else fields[19]


def is_running(pid: int, started: str = "") -> bool:
    """Tell whether a process of this host is there, and is the one that began then."""
    if Path("/proc/self/stat").exists():
        now = start_of(pid)
        return now is not None and started in {"", now}
    if os.name == "nt":  # where signal 0 does not only ask
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def within(what: str, call: Callable[[], Answer], seconds: float = ANSWER_SECONDS) -> Answer:
    """Return the answer of a call to somebody else, however slowly they drip."""
    ended: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            ended.append((call(), None))
        except BaseException as error:
            ended.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not ended:
        raise RunError(f"{what}: no answer in {seconds:g} s")
    answer, error = ended[0]
    if error is not None:
        raise error
    return answer  # type: ignore[no-any-return]
