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
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.errors import MixoptError, RunError
from mixopt.system import inside
from mixopt.tracking.journal import Journal, Wanted
from mixopt.tracking.lines import MetricPoint, Position
from mixopt.tracking.record import RunRecord, SentChange, TrackingRecord, digest
from mixopt.tracking.sent_files import check_lines, check_sendable, check_trials
from mixopt.tracking.sent_trials import SentTrial, read_sent_trial
from mixopt.trials import trial_paths

if TYPE_CHECKING:
    from mixopt.tracking.mlflow_store import MlflowStore

# MLflow's limit is 1000 for one call; a server too slow for so many gets fewer at a time.
MOST_POINTS, LEAST_POINTS = 900, 50
MOST_TRIALS = 200  # that are written and noted together


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
    """Of the run of a step, or of a trial of it: what to send, by its name in the record."""

    step: str
    trial: str | None
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
        self._refused: dict[str, bool] = {}  # lines, and whether they were returned
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

    @property
    def can_send_less(self) -> bool:
        """Whether the next call sends fewer points at a time than MLflow takes."""
        return LEAST_POINTS < self._batch < MOST_POINTS

    def refused(self) -> list[str]:
        """Return what will not be sent, a line each; every line is returned once."""
        fresh = [line for line in self.journal.faults if line not in self._refused]
        fresh += [line for line, said in self._refused.items() if not said]
        self._refused |= dict.fromkeys(fresh, True)
        return fresh

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
            for record, content in self._parts(step, entry, wanted):
                found = self._points(record, content, sys.maxsize)
                tally.points += sum(len(points) for _, points, _ in found)
                tally.files += sum(1 for _ in self._files(record, content, wanted))
            tally.trials += sum(1 for _ in self._trials(step, entry, wanted))
        return tally

    def _send_step(self, store: MlflowStore, step: str, wanted: Wanted) -> None:
        entry = self._opened(store, step, wanted)
        assert entry.run is not None, "a run was opened"
        self._send_trials(store, step, entry, wanted)
        for record, content in self._parts(step, entry, wanted):
            self._send_content(store, record, content, wanted)
        if entry.status != wanted.status:
            store.status(entry.run, wanted.status, wanted.ended)
            self._note("runs", SentChange(step, status=wanted.status), 0)

    def _opened(self, store: MlflowStore, step: str, wanted: Wanted) -> RunRecord:
        """Return the record of a step whose run is there; a process asks once for each."""
        entry, tags = self._record.steps.get(step), _hash(wanted.tags)
        if entry is None or entry.mark != wanted.mark:
            entry = self._record.note(SentChange(step, begins=True, mark=wanted.mark))
            self._checked.discard(step)
        if step not in self._checked and not (entry.run and store.has(entry.run)):
            run = store.parent(self._record.key, step, wanted)
            change = SentChange(step, begins=True, run=run, mark=wanted.mark, tags=tags)
            entry = self._note("runs", change)
        self._checked.add(step)
        assert entry.run is not None, "its id was noted"
        if entry.tags != tags:
            store.tags(entry.run, wanted.tags)
            self._record.note(SentChange(step, tags=tags))
        if entry.status != wanted.status == "RUNNING":
            store.status(entry.run, wanted.status, None)
            self._note("runs", SentChange(step, status=wanted.status), 0)
        return entry

    def _send_trials(self, store: MlflowStore, step: str, entry: RunRecord, wanted: Wanted) -> None:
        assert entry.run is not None, "a run was opened"
        waiting = self._trials(step, entry, wanted)
        while several := list(islice(waiting, MOST_TRIALS)):
            for one, run in store.trials(self._record.key, entry.run, several):
                self._note(
                    "trials", SentChange(step, one.name, begins=True, run=run, mark=one.mark)
                )

    def _send_content(
        self, store: MlflowStore, record: RunRecord, content: _Content, wanted: Wanted
    ) -> None:
        assert record.run is not None, "a run was opened"
        step, trial = content.step, content.trial
        for name, points, position in self._points(record, content, self._batch):
            store.points(record.run, points)
            self._note("points", SentChange(step, trial, lines={name: position}), len(points))
        for name, file, folder in self._files(record, content, wanted):
            mark = self._digest(file)
            try:
                store.artifact(record.run, file, folder)
            except MixoptError as error:
                self._refuse(error)
                continue
            self._note("files", SentChange(step, trial, files={name: mark}))

    def _parts(
        self, step: str, entry: RunRecord, wanted: Wanted
    ) -> Iterator[tuple[RunRecord, _Content]]:
        """Yield the parent and those of its trials that are there, with what they shall hold."""
        found: dict[str | None, _Content] = {}
        for file, trial in wanted.lines:
            found.setdefault(trial, _Content(step, trial)).lines.append(file)
        for (file, trial), folder in wanted.files.items():
            found.setdefault(trial, _Content(step, trial)).files[file] = folder
        for trial, content in found.items():
            record = entry if trial is None else entry.trials.get(trial)
            if record is not None:
                yield record, content

    def _trials(self, step: str, entry: RunRecord, wanted: Wanted) -> Iterator[SentTrial]:
        """Yield the trials that are not sent yet; one whose file is damaged is refused."""
        try:
            folder = check_trials(self._path, step, wanted.folder)
        except MixoptError as error:
            self._refuse(error)
            return
        for file in sorted(trial_paths(folder)) if folder else []:
            try:
                known = entry.trials.get(file.stem)
                if known is None or known.mark != self._digest(file):
                    yield read_sent_trial(self._path, file)
            except MixoptError as error:
                self._refuse(error)

    def _points(
        self, record: RunRecord, content: _Content, limit: int
    ) -> Iterator[tuple[str, list[MetricPoint], Position]]:
        for name in content.lines:
            try:
                file = check_lines(self._path, name)
            except MixoptError as error:
                self._refuse(error)
                continue
            if file is None:
                continue
            position = record.lines.get(name, Position())
            points, position = position.new_points(file, limit)
            while points:
                yield name, points, position
                points, position = position.new_points(file, limit)

    def _files(
        self, record: RunRecord, content: _Content, wanted: Wanted
    ) -> Iterator[tuple[str, Path, str | None]]:
        """Yield the files that are not sent yet; one that must not be is refused."""
        for name, folder in content.files.items():
            try:
                file = check_sendable(self._path, content.step, name, wanted.records.get(name))
                if file is not None and self._digest(file) != record.files.get(name):
                    yield name, file, folder
            except MixoptError as error:
                self._refuse(error)

    def _digest(self, file: Path) -> str:
        """Return the hash of a file, which is read again when it has changed."""
        if not inside(self._path, file.relative_to(self._path)).is_file():
            raise RunError(f"{file}: is not a file; delete it")
        found = file.stat()
        stamp = (found.st_mtime_ns, found.st_size)
        if self._hashes.get(file, (None, ""))[0] != stamp:
            self._hashes[file] = (stamp, digest(file.read_bytes()))
        return self._hashes[file][1]

    def _refuse(self, error: MixoptError) -> None:
        self._refused.setdefault(str(error), False)

    def _note(self, what: str, change: SentChange, count: int = 1) -> RunRecord:
        setattr(self.sent, what, getattr(self.sent, what) + count)
        found = self._record.note(change)
        self._noted()
        return found


def _hash(tags: dict[str, str]) -> str:
    return digest(json.dumps(tags, sort_keys=True).encode())
