"""Run a command below a supervisor, with a log, a time limit and signs of life.

The supervisor (mixopt_proxies.command.supervisor) ends the whole of the command when this process
asks it to, and when this process is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mixopt_proxies.command import supervisor

GRACE = 5.0  # seconds that a command has to end by itself once it was told to
TICK = 0.2  # seconds between two signs of life
_KILLED_FOR_MEMORY = (-signal.SIGKILL, 128 + signal.SIGKILL)
_LAST_LINE = 300  # characters


@dataclass(frozen=True)
class EndedCommand:
    """How a command ended.

    Attributes:
        code: Its exit code, negative for a signal; None where it had none.
        seconds: How long it ran.
        fault: What went wrong, in words; None where its exit code is 0.
    """

    code: int | None
    seconds: float
    fault: str | None


def run_supervised(
    words: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    timeout: float | None,
    alive: Callable[[], None],
) -> EndedCommand:
    """Run a command to its end."""
    begun = time.monotonic()
    process = _started(words, folder, environment, log)
    late = False
    try:
        while process.poll() is None:
            alive()
            late = timeout is not None and time.monotonic() - begun > timeout
            if late and process.stdin is not None:
                process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(TICK)
    finally:
        said = _let_go(process)
    seconds = time.monotonic() - begun
    code = said.get("code")
    fault = str(said["fault"]) if "fault" in said else _fault_of(code)
    if late and code is None:
        fault = f"took longer than proxy.timeout: {timeout:g} s, and was stopped"
    return EndedCommand(code if isinstance(code, int) else None, seconds, fault)


def last_line(log: Path) -> str:
    """Return the last line of a log that says something; empty where none does."""
    with suppress(OSError), log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 16_384))
        lines = stream.read().decode("utf-8", errors="replace").replace("\r", "\n").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:_LAST_LINE]
    return ""


def _started(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-I", str(supervisor.__file__), str(GRACE), *words],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            start_new_session=True,
        )


def _let_go(process: subprocess.Popen[bytes]) -> dict[str, object]:
    """Let the supervisor end what is left, and return what it said."""
    if process.stdin is not None:
        process.stdin.close()
    text = process.stdout.read() if process.stdout is not None else b""
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
    said: dict[str, object] = {}
    for line in text.splitlines():
        said |= json.loads(line)
    if process.returncode and isinstance(said.get("pid"), int):  # somebody killed it
        said["fault"] = f"its supervisor ended with {_name(process.returncode)}"
        with suppress(OSError):
            os.killpg(int(str(said["pid"])), signal.SIGKILL)
    return said


def _fault_of(code: object) -> str | None:
    """Say what an exit code other than 0 means."""
    if code == 0:
        return None
    if not isinstance(code, int):
        return "ended without an exit code"
    hint = "; out of memory?" if code in _KILLED_FOR_MEMORY else ""
    return f"ended with {_name(code)}{hint}"


def _name(code: int) -> str:
    with suppress(ValueError):
        if code < 0:
            return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
