"""What a run wants recorded, a line for each wish: `tracking.jsonl` in the run directory.

The training process appends; the process that sends reads, and compares with what it has sent
(mixopt.tracking.record). So nothing that was said is lost when the server is down, when either
process is killed, or where MLflow is not even installed.

    {op: open}                                      a training process begins
    {op: start, step, name, folder, params, tags, environment, datasets}
    {op: follow, step, file, trial}                 a file of metrics (mixopt.tracking.lines)
    {op: files, step, files, folder, trial}
    {op: tags, step, tags}
    {op: end, step}

each with its time. Names of files are relative to the run directory where they are in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixopt.tracking.lines import parsed

JOURNAL = "tracking.jsonl"
MARK = "mixopt.fingerprint"

Followed = tuple[str, str | None]  # a file, and the trial that it belongs to


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

    @property
    def mark(self) -> str:
        """What results depend on; another one is another run."""
        return self.tags.get(MARK, "")


class Journal:
    """The wishes of a run directory, by step, in the order in which steps began."""

    def __init__(self, path: Path) -> None:
        """Name the run directory."""
        self._file = path / JOURNAL
        self._offset = 0
        self.steps: dict[str, Wanted] = {}

    def read(self) -> None:
        """Take in the lines that are new."""
        if not self._file.exists():
            return
        with self._file.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._take(parsed(line))

    def kill(self, when: int) -> None:
        """Hold that the training process is gone: what has no end now has none to come."""
        for wanted in self.steps.values():
            if wanted.status == "RUNNING":
                wanted.status, wanted.ended = "KILLED", when

    def _take(self, event: dict[str, Any]) -> None:
        op, when = event.get("op"), int(event.get("time", 0) * 1000)
        if op == "open":
            self.kill(when)
        elif op == "start":
            self._start(event, when)
        elif event.get("step") not in self.steps:
            return
        elif op == "end":
            wanted = self.steps[event["step"]]
            wanted.status, wanted.ended = "FINISHED", when
        else:
            _add(self.steps[event["step"]], event)

    def _start(self, event: dict[str, Any], when: int) -> None:
        step, names = event["step"], ("name", "folder", "params", "tags", "environment", "datasets")
        fresh = Wanted(started=when, **{name: event[name] for name in names})
        known = self.steps.get(step)
        if known is None or known.mark != fresh.mark:
            self.steps[step] = fresh
        else:
            known.tags |= fresh.tags
            known.status, known.ended = "RUNNING", None


def _add(wanted: Wanted, event: dict[str, Any]) -> None:
    if event["op"] == "follow":
        followed = (event["file"], event["trial"])
        if followed not in wanted.lines:
            wanted.lines.append(followed)
    elif event["op"] == "files":
        for name in event["files"]:
            wanted.files[name, event["trial"]] = event["folder"]
    elif event["op"] == "tags":
        wanted.tags |= event["tags"]
