"""What of a run is in MLflow already: `tracking_sent.jsonl` in the run directory.

    {key}                                         the first line
    {server, step, trial, begins, run, mark, status, tags, files: {<name>: <hash>},
     lines: {<file>: <position>}}

A line has what changed, and is appended; the file is rewritten when most of it is outdated. A
server is named without its user information. `key` is made once and tagged on every run, so that a
run that was created but not noted before a kill is found again. Trials and files are noted with the
hash of what was sent, files of metrics with the position up to which they were. A line that cannot
be read counts as none: what it noted is sent again, and MLflow keeps it once.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError
from mixopt.system import checked_as, parse_json, replacing
from mixopt.tracking.lines import PRIVATE, LineFile, Position

RECORD, BEFORE = "tracking_sent.jsonl", "tracking.json"  # the second is of older versions
SMALL = 1 << 20  # bytes that are never rewritten
_KEY = re.compile(r"[0-9a-f]{32}")


@dataclass
class RunRecord:
    """A run of MLflow, and what of it has been sent.

    Attributes:
        run: MLflow's id, once there is one.
        mark: What it was made of: a fingerprint, or the hash of a trial's file.
        status: The last that was sent.
        tags: Hash of the tags that were sent.
        files: Hash of what was sent, by name.
        lines: How much was sent, by file of metrics.
        trials: The same of its children.
    """

    run: str | None = None
    mark: str = ""
    status: str = ""
    tags: str = ""
    files: dict[str, str] = field(default_factory=dict)
    lines: dict[str, Position] = field(default_factory=dict)
    trials: dict[str, RunRecord] = field(default_factory=dict)

    def take(self, change: SentChange) -> None:
        """Take in what changed."""
        for name in ("run", "mark", "status", "tags"):
            value = getattr(change, name)
            if value is not None:
                setattr(self, name, value)
        self.files |= change.files
        self.lines |= change.lines


@dataclass
class SentChange:
    """What was sent of a parent run, or of the child of a trial; None is as it was.

    Attributes:
        step: The step.
        trial: The trial, if it is not of the step as a whole.
        begins: Whether nothing that was sent before counts.
    """

    step: str
    trial: str | None = None
    begins: bool = False
    run: str | None = None
    mark: str | None = None
    status: str | None = None
    tags: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    lines: dict[str, Position] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what is not as it was."""
        return {name: value for name, value in asdict(self).items() if value}


class TrackingRecord:
    """The record of one run directory at one server."""

    def __init__(self, path: Path, server: str) -> None:
        """Read it, or begin one.

        Args:
            path: The run directory.
            server: Name of the server or database; each has a record of its own.
        """
        self._path, self._server = path / RECORD, server
        self._lines = LineFile(self._path, PRIVATE)
        self._servers: dict[str, dict[str, RunRecord]] = {}
        self._grown = self._compact = 0
        known = self._read()
        self.key = known or _key_before(path / BEFORE) or uuid.uuid4().hex
        self._named = known is not None

    @property
    def steps(self) -> dict[str, RunRecord]:
        """What this server has, by step."""
        return self._servers.setdefault(self._server, {})

    def note(self, change: SentChange) -> RunRecord:
        """Take in what was sent, and append it to the file.

        Raises:
            OSError: The file cannot be written.
        """
        found = self._take(self._server, change)
        if not self._named:
            self._lines.append({"key": self.key})
            self._named = True
        self._grown += self._lines.append({"server": self._server, **change.to_json()})
        if self._grown > max(SMALL, 4 * self._compact):
            self._rewrite()
        return found

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _take(self, server: str, change: SentChange) -> RunRecord:
        steps = self._servers.setdefault(server, {})
        if change.trial is None:
            if change.begins or change.step not in steps:
                steps[change.step] = RunRecord()
            found = steps[change.step]
        else:
            trials = steps.setdefault(change.step, RunRecord()).trials
            if change.begins or change.trial not in trials:
                trials[change.trial] = RunRecord()
            found = trials[change.trial]
        found.take(change)
        return found

    def _read(self) -> str | None:
        """Take in the file; return its key."""
        if not self._path.is_file():
            return None
        key = None
        for line in self._path.read_bytes().splitlines(keepends=True):
            self._grown += len(line)
            try:
                content = checked_as(dict[str, Any], parse_json(line, RECORD), RECORD)
                if "key" in content:
                    key = _valid_key(content["key"])
                else:
                    self._take(str(content.pop("server", "")), _change(content))
            except MixoptError:
                continue
        return key

    def _rewrite(self) -> None:
        """Rewrite the file, with a line for each run that is."""
        self._lines.close()
        with replacing(self._path) as temporary:
            content = [{"key": self.key}, *self._all()]
            temporary.write_text("".join(f"{json.dumps(line)}\n" for line in content))
        self._path.chmod(PRIVATE)
        self._grown, self._compact = 0, self._path.stat().st_size

    def _all(self) -> Iterator[dict[str, Any]]:
        for server, steps in self._servers.items():
            for step, record in steps.items():
                yield {"server": server, **_whole(step, None, record).to_json()}
                for trial, child in record.trials.items():
                    yield {"server": server, **_whole(step, trial, child).to_json()}


def _whole(step: str, trial: str | None, record: RunRecord) -> SentChange:
    fields = {name: value for name, value in vars(record).items() if name != "trials"}
    return SentChange(step, trial, begins=True, **fields)


def _change(content: Any) -> SentChange:
    change = checked_as(SentChange, content, RECORD)
    for position in change.lines.values():
        if not 0 <= position.offset < 1 << 62:
            raise MixoptError(f"{RECORD}: offset {position.offset} is no position in a file")
    return change


def _valid_key(key: object) -> str | None:
    return key if isinstance(key, str) and _KEY.fullmatch(key) else None


def _key_before(path: Path) -> str | None:
    """Return the key of a record of an older version, so that its runs are found again."""
    try:
        content = parse_json(path.read_bytes(), path.name) if path.is_file() else {}
    except (MixoptError, OSError):
        return None
    return _valid_key(content.get("key")) if isinstance(content, Mapping) else None


def digest(content: bytes) -> str:
    """Return the hash of a content."""
    return hashlib.sha256(content).hexdigest()[:32]
