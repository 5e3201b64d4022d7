"""Brings MLflow to what a run directory wants: the difference is sent, in order and once.

What is wanted is in the journal, in the files of trials and in the files of metrics; what was sent
is in the record. Sending may fail anywhere: what was sent before is noted, and the next call goes
on. A point whose acknowledgement was lost is sent again with its own time, which MLflow keeps once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.tracking.journal import Journal, Wanted
from mixopt.tracking.lines import MetricPoint, Position
from mixopt.tracking.record import RunRecord, TrackingRecord, digest
from mixopt.trials import trial_paths

if TYPE_CHECKING:
    from mixopt.tracking.mlflow_store import MlflowStore

# MLflow's limit is 1000 for one call; a server too slow for so many gets fewer at a time.
MOST_POINTS, LEAST_POINTS = 900, 50


@dataclass
class Tally:
    """How much of a run was sent, or is left: points of metrics, trials, files and runs."""

    points: int = 0
    trials: int = 0
    files: int = 0
    runs: int = 0

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return any(vars(self).values())


@dataclass
class _Content:
    """Of a run: what to send, by its name in the record."""

    lines: list[str] = field(default_factory=list)
    files: dict[str, str | None] = field(default_factory=dict)


class Recorder:
    """Sends what one run directory wants to one server."""

    def __init__(
        self, path: Path, uri: str, connect: Callable[[], MlflowStore], noted: Callable[[], None]
    ) -> None:
        """Read the journal and the record.

        Args:
            path: The run directory.
            uri: What the server is called in the record.
            connect: Returns the store; raises where it cannot be reached.
            noted: Called when something was sent.
        """
        self._path, self._connect, self._noted = path, connect, noted
        self._record = TrackingRecord(path, uri)
        self._store: MlflowStore | None = None
        self._checked: set[str] = set()
        self._hashes: dict[Path, tuple[tuple[int, int], str]] = {}
        self._batch = MOST_POINTS
        self.journal = Journal(path)
        self.sent = Tally()

    def send(self) -> None:
        """Send all that is not sent yet; raises what MLflow raises."""
        self.journal.read()
        try:
            for step, wanted in self.journal.steps.items():
                if self._store is None:
                    self._store = self._connect()
                self._send_step(self._store, step, wanted)
        except Exception:
            self._store, self._batch = None, max(self._batch // 2, LEAST_POINTS)
            self._checked.clear()  # it may be another server that comes back
            raise
        self._batch = min(2 * self._batch, MOST_POINTS)

    def kill(self) -> None:
        """Hold that the training process is gone."""
        self.journal.read()
        self.journal.kill(int(time.time() * 1000))

    def left(self) -> Tally:
        """Return what is not sent yet."""
        self.journal.read()
        tally = Tally()
        for step, wanted in self.journal.steps.items():
            entry = self._record.steps.get(step)
            entry = entry if entry is not None and entry.mark == wanted.mark else RunRecord()
            tally.runs += entry.status != wanted.status
            for record, content in self._parts(entry, wanted):
                found = self._points(record, content, sys.maxsize)
                tally.points += sum(len(points) for _, points, _ in found)
                tally.files += sum(1 for _ in self._files(record, content))
            tally.trials += sum(1 for _ in self._trials(entry, wanted))
        return tally

    def _send_step(self, store: MlflowStore, step: str, wanted: Wanted) -> None:
        entry = self._opened(store, step, wanted)
        assert entry.run is not None, "a run was opened"
        for file, mark in self._trials(entry, wanted):
            run = store.trial(self._record.key, entry.run, file, mark)
            entry.trials[file.stem] = RunRecord(run, mark)
            self._note("trials")
        for record, content in self._parts(entry, wanted):
            self._send_content(store, record, content)
        if entry.status != wanted.status:
            store.status(entry.run, wanted.status, wanted.ended)
            entry.status = wanted.status
            self._note("runs", 0)

    def _opened(self, store: MlflowStore, step: str, wanted: Wanted) -> RunRecord:
        """Return the record of a step whose run is there; a process asks once for each."""
        entry = self._record.steps.get(step)
        if entry is None or entry.mark != wanted.mark:
            entry = self._record.steps[step] = RunRecord(mark=wanted.mark)
            self._checked.discard(step)
        if step not in self._checked and not (entry.run and store.has(entry.run)):
            self._record.steps[step] = entry = RunRecord(mark=wanted.mark)
            entry.run = store.parent(self._record.key, step, wanted)
            entry.tags = _hash(wanted.tags)
            self._note("runs")
        self._checked.add(step)
        assert entry.run is not None, "its id was noted"
        if entry.tags != _hash(wanted.tags):
            store.tags(entry.run, wanted.tags)
            entry.tags = _hash(wanted.tags)
        if entry.status != wanted.status == "RUNNING":
            store.status(entry.run, wanted.status, None)
            entry.status = wanted.status
            self._note("runs", 0)
        return entry

    def _send_content(self, store: MlflowStore, record: RunRecord, content: _Content) -> None:
        assert record.run is not None, "a run was opened"
        for name, points, position in self._points(record, content, self._batch):
            store.points(record.run, points)
            record.lines[name] = position
            self._note("points", len(points))
        for name, folder in self._files(record, content):
            store.artifact(record.run, self._path / name, folder)
            record.files[name] = self._digest(self._path / name)
            self._note("files")

    def _parts(self, entry: RunRecord, wanted: Wanted) -> Iterator[tuple[RunRecord, _Content]]:
        """Yield the parent and those of its trials that are there, with what they shall hold."""
        found: dict[str | None, _Content] = {}
        for file, trial in wanted.lines:
            found.setdefault(trial, _Content()).lines.append(file)
        for (file, trial), folder in wanted.files.items():
            found.setdefault(trial, _Content()).files[file] = folder
        for trial, content in found.items():
            record = entry if trial is None else entry.trials.get(trial)
            if record is not None:
                yield record, content

    def _trials(self, entry: RunRecord, wanted: Wanted) -> Iterator[tuple[Path, str]]:
        folder = None if wanted.folder is None else self._path / wanted.folder
        for file in sorted(trial_paths(folder)) if folder else []:
            known, mark = entry.trials.get(file.stem), self._digest(file)
            if known is None or known.mark != mark:
                yield file, mark

    def _points(
        self, record: RunRecord, content: _Content, limit: int
    ) -> Iterator[tuple[str, list[MetricPoint], Position]]:
        for name in content.lines:
            position = record.lines.get(name, Position())
            points, position = position.new_points(self._path / name, limit)
            while points:
                yield name, points, position
                points, position = position.new_points(self._path / name, limit)

    def _files(self, record: RunRecord, content: _Content) -> Iterator[tuple[str, str | None]]:
        for name, folder in content.files.items():
            file = self._path / name
            if file.is_file() and self._digest(file) != record.files.get(name):
                yield name, folder

    def _digest(self, file: Path) -> str:
        """Return the hash of a file, which is read again when it has changed."""
        found = file.stat()
        stamp = (found.st_mtime_ns, found.st_size)
        if self._hashes.get(file, (None, ""))[0] != stamp:
            self._hashes[file] = (stamp, digest(file.read_bytes()))
        return self._hashes[file][1]

    def _note(self, what: str, count: int = 1) -> None:
        setattr(self.sent, what, getattr(self.sent, what) + count)
        self._record.write()
        self._noted()


def _hash(tags: dict[str, str]) -> str:
    return digest(json.dumps(tags, sort_keys=True).encode())
