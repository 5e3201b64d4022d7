"""What of a run is in MLflow already: `tracking.json` in the run directory.

    {format, key, uri, steps: {<step>: {run, folder, params, tags, trials, files}}}

`key` is made once and tagged on every run, so that a run that was created but not noted
before a kill is found again. Trials and files are noted with the hash of what was sent.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mixopt.files import read_json, write_json

FORMAT = "mixopt-tracking/1"


@dataclass
class StepRecord:
    """A parent run: its identity, and what of it has been sent.

    Attributes:
        folder: Where the files of its trials are, in the run directory.
        params: Settings to show.
        tags: Further facts.
        run: MLflow's id, once there is one.
        trials: Hash of the file that was sent, by trial.
        files: Hash of what was sent, or None for what waits, by name in the run directory.
        metrics: The step of the last line of `metrics.jsonl` that was sent.
    """

    folder: str
    params: dict[str, str]
    tags: dict[str, str]
    run: str | None = None
    trials: dict[str, str] = field(default_factory=dict)
    files: dict[str, str | None] = field(default_factory=dict)
    metrics: int = 0

    def forget(self) -> None:
        """Hold that nothing has been sent."""
        self.run, self.trials, self.metrics = None, {}, 0
        self.files = dict.fromkeys(self.files)


class TrackingRecord:
    """The record of one run directory at one server."""

    def __init__(self, path: Path, uri: str | None, key: str, steps: dict[str, StepRecord]) -> None:
        self.path, self.uri, self.key, self.steps = path, uri, key, steps

    @classmethod
    def read(cls, path: Path, uri: str | None) -> TrackingRecord:
        """Read the record; start one where there is none or it is of another server."""
        content: dict[str, Any] = read_json(path) if path.exists() else {}
        if content.get("format") != FORMAT or content["uri"] != uri:
            return cls(path, uri, uuid.uuid4().hex, {})
        steps = {name: StepRecord(**entry) for name, entry in content["steps"].items()}
        return cls(path, uri, content["key"], steps)

    def start(self, step: str, folder: str, params: dict[str, str], tags: dict[str, str]) -> None:
        """Go on with a step, or begin it again where its fingerprint is another."""
        known = self.steps.get(step)
        mark = "mixopt.fingerprint"
        if known is None or known.tags.get(mark) != tags.get(mark):
            self.steps[step] = StepRecord(folder, params, tags)
        self.write()

    def want(self, step: str, files: Iterable[str]) -> None:
        """Note files that are to be sent."""
        for name in files:
            self.steps[step].files.setdefault(name, None)
        self.write()

    def write(self) -> None:
        """Write the record at once."""
        steps = {name: asdict(entry) for name, entry in self.steps.items()}
        content = {"format": FORMAT, "key": self.key, "uri": self.uri, "steps": steps}
        write_json(self.path, content)


def digest(file: Path) -> str:
    """Return the hash of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:32]
