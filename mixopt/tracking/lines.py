"""Lines of JSON that are only appended to, and the points of MLflow's charts in them.

A line is one write to a file that stays open, so a killed process loses none of those written; the
system's next sync (seconds) is what a power cut can lose. Half a line, from a full disk or a power
cut, is ended by whoever writes next, and left out by readers.

A line of metrics is `{step, time, <key>: number, <key>: {<name>: number}}`: time in seconds, keys
of the second kind become `<key>/<name>`. JSON has no NaN: "nan", "inf" and "-inf" stand for them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError
from mixopt.system import parse_json

_NOT_FINITE = {"nan", "inf", "-inf"}
_LARGEST = 1 << 63  # of MLflow's steps and times
PRIVATE = 0o600  # mode of files that could hold what a server is called
_TAIL = 256  # bytes before a position that tell whether the file is still the one that was read


class LineFile:
    """Appends lines to a file, which stays open; made with the first line."""

    def __init__(self, path: Path, mode: int = 0o644) -> None:
        self._path, self._mode = path, mode
        self._descriptor: int | None = None
        self._torn = False

    def append(self, content: Mapping[str, Any]) -> int:
        """Write a line, in one piece; return its bytes.

        Raises:
            OSError: The file cannot be written.
        """
        line = json.dumps(content, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        if self._descriptor is None:
            self._descriptor = self._opened()
        data = b"\n" + line if self._torn else line
        self._torn = True
        self._torn = os.write(self._descriptor, data) < len(data)
        if self._torn:
            raise OSError(f"{self._path}: the disk is full")
        return len(data)

    def close(self) -> None:
        """Close the file; what was written is on the disk then."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int:
        descriptor = open_to_append(self._path, self._mode)
        size = os.fstat(descriptor).st_size
        self._torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        return descriptor


def open_to_append(path: Path, mode: int) -> int:
    """Return the descriptor of a file to append to; a private one is no link to another file.

    Raises:
        OSError: It cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    if mode != PRIVATE:
        return os.open(path, flags, mode)
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), mode)
    if os.fstat(descriptor).st_nlink > 1:  # by another name it is somewhere else
        os.close(descriptor)
        raise OSError(f"{path}: is a hard link")
    with suppress(AttributeError, OSError):  # made by others, or by older versions
        os.fchmod(descriptor, mode)
    return descriptor


class MetricLines:
    """Lines of metrics in a file, for `Tracker.follow` to send."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is made with the first line."""
        self._lines = LineFile(path)

    def write(self, metrics: Mapping[str, Any], step: int) -> None:
        """Write the metrics of a step.

        Args:
            metrics: Numbers, or numbers by name, by key; NaN and infinities too.
            step: Of training, or whatever the charts shall have below.

        Raises:
            OSError: The file cannot be written.
        """
        values = {key: _spelled(value) for key, value in metrics.items()}
        self._lines.append({"step": int(step), "time": round(time.time(), 3), **values})

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


@dataclass(frozen=True)
class MetricPoint:
    """A value of a metric.

    Attributes:
        key: Its name.
        value: Its value; NaN and infinities too.
        time: In milliseconds.
        step: Of training.
    """

    key: str
    value: float
    time: int
    step: int


@dataclass
class Position:
    """How much of a file of metrics has been sent.

    Attributes:
        offset: Bytes.
        tail: Hash of the bytes before it; others there mean that the file was cut.
        last: The last step of each metric.
        sent: Of a file that was cut: the steps up to which each metric was sent before.
    """

    offset: int = 0
    tail: str = ""
    last: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)

    def new_points(self, file: Path, limit: int) -> tuple[list[MetricPoint], Position]:
        """Return points after this position, and the position after them.

        A training run that resumes from a checkpoint cuts what it wrote after it, and writes those
        steps again; they are not new.

        Args:
            file: The file; one that is not there is empty.
            limit: About how many points; whole lines are taken.
        """
        found, here = (
            list[MetricPoint](),
            Position(self.offset, self.tail, {**self.last}, self.sent),
        )
        if not file.is_file():
            return found, here
        with file.open("rb") as stream:
            if _tail(stream, self.offset) != self.tail:
                here.offset, here.sent = 0, {**self.sent, **self.last}
            stream.seek(here.offset)
            for line in stream:
                if not line.endswith(b"\n") or len(found) >= limit:
                    break
                here.offset += len(line)
                found += here._unsent(line)
            here.tail = _tail(stream, here.offset)
        return found, here

    def _unsent(self, line: bytes) -> list[MetricPoint]:
        points = [p for p in points_of(line) if p.step > self.sent.get(p.key, p.step - 1)]
        for point in points:
            self.last[point.key] = max(point.step, self.last.get(point.key, point.step))
        return points


def points_of(line: bytes) -> Iterator[MetricPoint]:
    """Return the points of a line; none where it is no line of metrics."""
    content = parsed(line)
    step, seconds = content.pop("step", None), content.pop("time", None)
    if not (isinstance(step, int) and _is_number(step) and abs(step) < _LARGEST):
        return
    if not (_is_number(seconds) and 0 <= seconds * 1000 < _LARGEST):
        return
    when = int(seconds * 1000)
    for key, value in content.items():
        members = value.items() if isinstance(value, Mapping) else [("", value)]
        for name, number in members:
            if _is_value(number):
                yield MetricPoint(f"{key}/{name}" if name else key, float(number), when, step)


def parsed(line: bytes) -> dict[str, Any]:
    """Return the object of a line; an empty one where it is torn."""
    try:
        content = parse_json(line, "line")
    except MixoptError:
        return {}
    return content if isinstance(content, dict) else {}


def _spelled(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _spelled(member) for name, member in value.items()}
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_value(value: Any) -> bool:
    if isinstance(value, str):
        return value in _NOT_FINITE
    return _is_number(value) and abs(value) < 1e300


def _tail(stream: Any, offset: int) -> str:
    """Return the hash of the bytes before a position; of none at the beginning of a file."""
    if offset == 0:
        return ""
    stream.seek(max(offset - _TAIL, 0))
    return hashlib.sha256(stream.read(min(offset, _TAIL))).hexdigest()[:16]
