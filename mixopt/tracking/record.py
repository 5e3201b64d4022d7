"""What of a run is in MLflow already: `tracking.json` in the run directory.

    {format, key, servers: {<uri>: {<step>: {run, mark, status, tags, trials, files, lines}}}}

`key` is made once and tagged on every run, so that a run that was created but not noted
before a kill is found again. Trials and files are noted with the hash of what was sent, files of
metrics with the position up to which they were.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from mixopt.system import read_json, write_json
from mixopt.tracking.lines import Position

RECORD = "tracking.json"
FORMAT = "mixopt-tracking/2"


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

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `asdict` made."""
        lines = {name: Position(**entry) for name, entry in content["lines"].items()}
        trials = {name: cls.from_json(entry) for name, entry in content["trials"].items()}
        return cls(**{**content, "lines": lines, "trials": trials})


class TrackingRecord:
    """The record of one run directory at one server."""

    def __init__(self, path: Path, uri: str) -> None:
        """Read it, or begin one.

        Args:
            path: The run directory.
            uri: The server or database; each has a record of its own.
        """
        self._path = path / RECORD
        content = read_json(self._path) if self._path.exists() else {}
        known = content.get("servers", {}) if content.get("format") == FORMAT else {}
        self.key: str = content.get("key") or uuid.uuid4().hex
        self._others = {name: entry for name, entry in known.items() if name != uri}
        self._uri = uri
        self.steps = {step: RunRecord.from_json(e) for step, e in known.get(uri, {}).items()}

    def write(self) -> None:
        """Write the record at once."""
        steps = {name: asdict(entry) for name, entry in self.steps.items()}
        servers = {**self._others, self._uri: steps}
        write_json(self._path, {"format": FORMAT, "key": self.key, "servers": servers})


def digest(content: bytes) -> str:
    """Return the hash of a content."""
    return hashlib.sha256(content).hexdigest()[:32]
