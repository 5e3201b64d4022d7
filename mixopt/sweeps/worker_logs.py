"""Logs of workers, and the part that belongs to one trial.

A worker's standard error goes to a log of its own. A line marks where a group begins to train and
where it ends; the part of a trial is from the last mark that names it to the next mark.

    mixopt: 2026-11-26T10:00:00Z begins ["t0007", "t0008"]
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

LOGS = "logs"  # folder of a folder of trials
OLD_LOG = "workers.log"  # of all workers together, in earlier versions
PLACES = (LOGS, "work/logs")
MOST_FILES = 10_000
LONGEST_LINE = 1 << 16  # bytes
_MARK = re.compile(rb"mixopt: (\S{20}) (begins|ends) (\[.*\])\s*$")


@dataclass(frozen=True)
class LogPart:
    """A part of a log.

    Attributes:
        path: The file.
        start: Where it starts, in bytes.
        stop: Where it ends; None where it continues to the end of the file.
        begun: When it began, as the mark has it; empty for a whole file.
    """

    path: Path
    start: int = 0
    stop: int | None = None
    begun: str = ""


@contextmanager
def marked(trials: Sequence[str], stream: IO[str]) -> Iterator[None]:
    """Mark where trials begin and end to train."""
    _write(stream, "begins", trials)
    try:
        yield
    finally:
        _write(stream, "ends", trials)


def logs_in(folder: Path) -> list[Path]:
    """Return the logs of workers that are in a folder of trials."""
    found = [folder / OLD_LOG]
    for place in PLACES:
        with suppress(OSError):
            found += sorted(path for path in (folder / place).iterdir())[:MOST_FILES]
    return [path for path in found if is_plain(path)]


def part_of(trial: str, logs: Sequence[Path]) -> LogPart | None:
    """Return the last part of logs that is of a trial; None where no mark names it."""
    parts = [part for log in logs for part in _parts(trial, log)]
    return max(parts, key=lambda part: part.begun, default=None)


def is_plain(path: Path) -> bool:
    """Tell whether a path is a file: a pipe would be waited for."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _parts(trial: str, log: Path) -> Iterator[LogPart]:
    open_part: LogPart | None = None
    with suppress(OSError), log.open("rb") as stream:
        while line := stream.readline(LONGEST_LINE):
            mark = _MARK.match(line)
            if mark is None:
                continue
            here, names = stream.tell(), _names(mark[3])
            if open_part is not None:
                stop = here if mark[2] == b"ends" else here - len(line)
                yield LogPart(log, open_part.start, stop, open_part.begun)
                open_part = None
            if mark[2] == b"begins" and trial in names:
                open_part = LogPart(log, here - len(line), None, mark[1].decode())
    if open_part is not None:
        yield open_part


def _names(text: bytes) -> list[str]:
    with suppress(ValueError, RecursionError):
        names = json.loads(text)
        return [name for name in names if isinstance(name, str)]
    return []


def _write(stream: IO[str], what: str, trials: Sequence[str]) -> None:
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with suppress(OSError, ValueError):  # a full disk ends no training
        stream.write(f"mixopt: {when} {what} {json.dumps(list(trials))}\n")
        stream.flush()
