"""What a run wants recorded, a line for each wish: `tracking.jsonl` in the run directory.

The training process appends; the process that sends reads, and compares with what it has sent
(mixopt.tracking.record). So nothing that was said is lost when the server is down, when either
process is killed, or where MLflow is not even installed.

    {op: open}                                      a training process begins
    {op: start, step, name, folder, params, tags, environment, datasets}
    {op: follow, step, file, trial}                 a file of metrics (mixopt.tracking.lines)
    {op: files, step, files, folder, trial, records: {<file>: {bytes, sha256}}}
    {op: tags, step, tags}
    {op: end, step}

each with its time. Names of files are relative to the run directory where they are in it; which of
them are sent is decided by who sends (mixopt.tracking.sent_files). A line of another shape is
skipped, and `Journal.faults` lists them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError, RunError
from mixopt.system import FileRecord, check_name, checked_as, parse_json

JOURNAL = "tracking.jsonl"
MARK = "mixopt.fingerprint"

LATEST = 1e11  # seconds; MLflow keeps milliseconds in 64 bits

Followed = tuple[str, str | None]  # a file, and the trial that it belongs to


@dataclass
class _Start:
    step: str
    name: str
    folder: str | None
    params: dict[str, str]
    tags: dict[str, str]
    environment: dict[str, str]
    datasets: list[dict[str, Any]]


@dataclass
class _Follow:
    step: str
    file: str
    trial: str | None = None


@dataclass
class _Files:
    step: str
    files: list[str]
    folder: str | None = None
    trial: str | None = None
    records: dict[str, FileRecord] = field(default_factory=dict)


@dataclass
class _Tags:
    step: str
    tags: dict[str, str]


@dataclass
class _End:
    step: str


_SHAPES: dict[str, Any] = {
    "start": _Start,
    "follow": _Follow,
    "files": _Files,
    "tags": _Tags,
    "end": _End,
}


@dataclass
class Wanted:
    """What a parent run shall be.

    Attributes:
        name: What it is called.
        folder: Where the files of its trials are, in the run directory.
        params: Settings; those of its first start, since MLflow's cannot change.
        tags: Further facts.
        environment: Versions of packages, and the machine in words.
        datasets: What it reads (mixopt.tracking.datasets).
        started: Milliseconds.
        status: RUNNING, FINISHED, or KILLED where a training process came to no end.
        ended: Milliseconds, once it has ended.
        lines: Files of metrics to follow.
        files: Files to keep, and the folder that each is shown in.
        records: What files were when they were given, of those of which that is known.
    """

    name: str
    folder: str | None
    params: dict[str, str]
    tags: dict[str, str]
    environment: dict[str, str]
    datasets: list[dict[str, Any]]
    started: int
    status: str = "RUNNING"
    ended: int | None = None
    lines: list[Followed] = field(default_factory=list)
    files: dict[Followed, str | None] = field(default_factory=dict)
    records: dict[str, FileRecord] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """What results depend on; another one is another run."""
        return self.tags.get(MARK, "")


class Journal:
    """The wishes of a run directory, by step, in the order in which steps began."""

    def __init__(self, path: Path) -> None:
        """Name the run directory."""
        self._file = path / JOURNAL
        self._offset = self._number = 0
        self.steps: dict[str, Wanted] = {}
        self.faults: list[str] = []

    def read(self) -> None:
        """Take in the lines that are new."""
        if not self._file.is_file():
            return
        with self._file.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._number += 1
                self._read(line)

    def kill(self, when: int) -> None:
        """Hold that the training process is gone: what has no end now has none to come."""
        for wanted in self.steps.values():
            if wanted.status == "RUNNING":
                wanted.status, wanted.ended = "KILLED", when

    def _read(self, line: bytes) -> None:
        try:
            self._take(parse_json(line, f"{JOURNAL}: line {self._number}"))
        except MixoptError as error:
            self.faults.append(f"{error}; the line is skipped")

    def _take(self, event: Any) -> None:
        where = f"{JOURNAL}: line {self._number}"
        content = checked_as(dict[str, Any], event, where)
        op, when = content.pop("op", None), _milliseconds(content.pop("time", 0), where)
        if op == "open":
            self.kill(when)
        if op not in _SHAPES:
            return
        said = checked_as(_SHAPES[op], content, where)
        if isinstance(said, _Start):
            self._start(said, when)
        elif said.step in self.steps:
            _add(self.steps[said.step], said, when)

    def _start(self, said: _Start, when: int) -> None:
        step = check_name(said.step, "step", RunError)
        values = {name: value for name, value in vars(said).items() if name != "step"}
        fresh = Wanted(started=when, **values)
        known = self.steps.get(step)
        if known is None or known.mark != fresh.mark:
            self.steps[step] = fresh
        else:
            known.tags |= fresh.tags
            known.status, known.ended = "RUNNING", None


def _add(wanted: Wanted, said: _Follow | _Files | _Tags | _End, when: int) -> None:
    if isinstance(said, _Follow):
        if (said.file, said.trial) not in wanted.lines:
            wanted.lines.append((said.file, said.trial))
    elif isinstance(said, _Files):
        wanted.files |= {(name, said.trial): said.folder for name in said.files}
        wanted.records |= said.records
    elif isinstance(said, _Tags):
        wanted.tags |= said.tags
    else:
        wanted.status, wanted.ended = "FINISHED", when


def _milliseconds(seconds: Any, where: str) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise RunError(f"{where}: time: should be a number of seconds")
    if not 0 <= seconds < LATEST:
        raise RunError(f"{where}: time: {seconds} is no time")
    return int(seconds * 1000)
