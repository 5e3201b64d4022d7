"""The record of a run: lines of JSON in its directory, appended by training and read by the sender.

A line of `tracking.jsonl` is all that MLflow shall have of a parent run (`WantedRun`); the last one
of each step counts. A line of metrics, in any file that is followed, is
`{step, time, <key>: number, <key>: {<name>: number}}`. Half a line, left by a killed process, is
ended by whoever writes next, and left out by readers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mixopt.errors import RunError
from mixopt.system import checked_as

JOURNAL = "tracking.jsonl"
FINGERPRINT = "mixopt.fingerprint"  # the tag of what results depend on; another is another run
MAX_INTEGER = 1 << 63  # of MLflow's steps and times
TAIL_BYTES = 256  # before a position; they tell whether the file is still the one that was read


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Append a line in one piece; half a line, left by a killed process, is ended first."""
    line = json.dumps(content, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags, 0o644), "r+b", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        is_torn = size > 0 and os.pread(stream.fileno(), 1, size - 1) != b"\n"
        if (stream.write(b"\n" + line if is_torn else line) or 0) < len(line):
            raise OSError(f"{path}: the disk is full")


class MetricPoint(NamedTuple):
    """A value of a metric; `time` is in milliseconds."""

    key: str
    value: float
    time: int
    step: int


@dataclass
class Position:
    """How much of a file of metrics has been sent.

    A training run that resumes from a checkpoint cuts what it wrote after it and writes those steps
    again: they are not new.
    """

    offset: int = 0
    tail: str = ""  # hash of the bytes before it; others there mean that the file was cut
    last: dict[str, int] = field(default_factory=dict)  # step of each metric

    def take(self, file: Path, limit: int) -> list[MetricPoint]:
        """Return points after this position, about `limit` of them, and move behind them."""
        points: list[MetricPoint] = []
        with file.open("rb") as stream:
            if _tail(stream, self.offset) != self.tail:
                self.offset = 0
            stream.seek(self.offset)
            for line in stream:
                if not line.endswith(b"\n") or len(points) >= limit:
                    break
                self.offset += len(line)
                for point in points_of(line):
                    if point.step > self.last.get(point.key, point.step - 1):
                        points.append(point)
                        self.last[point.key] = point.step
            self.tail = _tail(stream, self.offset)
        return points


def points_of(line: bytes) -> Iterator[MetricPoint]:
    """Yield the points of a line; none where it is not a line of metrics."""
    content = parsed(line)
    step, seconds = content.pop("step", None), content.pop("time", None)
    if not (_is_number(step) and isinstance(step, int) and abs(step) < MAX_INTEGER):
        return
    if not (_is_number(seconds) and 0 <= seconds * 1000 < MAX_INTEGER):
        return
    for key, value in content.items():
        for name, number in value.items() if isinstance(value, Mapping) else [("", value)]:
            if _is_number(number):
                full = f"{key}/{name}" if name else key
                yield MetricPoint(full, float(number), int(seconds * 1000), step)


def parsed(line: bytes) -> dict[str, Any]:
    """Return the object of a line; an empty one where it is torn or something else."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass
class WantedRun:
    """What a parent run shall be in MLflow; times are in milliseconds."""

    step: str
    server: str | None  # without a secret; None is the directory's own database
    experiment: str
    name: str
    started: int
    folder: str | None = None  # of its trials' files, in the run directory
    objective: dict[str, Any] | None = None  # of its trials, as `Objective.to_json`
    params: dict[str, str] = field(default_factory=dict)  # of its first start: they cannot change
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)  # of the whole run
    status: str = "RUNNING"  # FINISHED, or KILLED where a training process came to no end
    ended: int | None = None
    lines: list[str] = field(default_factory=list)  # files of metrics to follow
    files: dict[str, str | None] = field(default_factory=dict)  # to keep; the folder to show it in

    @property
    def fingerprint(self) -> str:
        """What its results depend on."""
        return self.tags.get(FINGERPRINT, "")


def wanted_runs(path: Path) -> dict[str, WantedRun]:
    """Return what a run directory wants recorded, by step; a line that is not one is skipped."""
    runs: dict[str, WantedRun] = {}
    if (path / JOURNAL).is_file():
        for line in (path / JOURNAL).read_bytes().split(b"\n"):
            with suppress(RunError):
                wanted = checked_as(WantedRun, parsed(line), JOURNAL)
                if 0 <= wanted.started < MAX_INTEGER and 0 <= (wanted.ended or 0) < MAX_INTEGER:
                    runs[wanted.step] = wanted
    return runs


def _is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) < 1e300


def _tail(stream: Any, offset: int) -> str:
    """Return the hash of the bytes before a position; of none at the beginning of a file."""
    if offset == 0:
        return ""
    stream.seek(max(offset - TAIL_BYTES, 0))
    return hashlib.sha256(stream.read(min(offset, TAIL_BYTES))).hexdigest()[:16]
