"""What is left of trials: one file a finished trial, and the logs of the workers.

    <folder>/<trial>.json      the trial and its result, with the fingerprint of what trained it
    <folder>/logs/*            standard error of the workers

Each file carries its seal (mixopt.system.manifest). A worker's log has a line where a group begins
to train and where it ends; the part of a trial is from the last mark that names it to the next.

    mixopt: 2026-11-26T10:00:00Z begins ["t0007", "t0008"]
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any

from pydantic import Field

from mixopt.errors import MixoptError, MixtureError, RunError
from mixopt.mixture import Mixture
from mixopt.routing import Assignments, ExpertCounts
from mixopt.system import (
    Count,
    FileShape,
    check_name,
    checked_as,
    inside,
    read_sealed,
    write_sealed,
)
from mixopt.trials import Losses, Role, Status, Trial, TrialResult

# Which trials train together; which were chosen; how many a kind of device trains together.
GROUPS, ROUNDS, SIZES = "groups.json", "rounds.json", "group_sizes.json"
WORK = "work"  # folder of the groups that train
LOGS = "logs"  # folder of a folder of trials
MAX_LOGS = 10_000
MAX_LINE = 1 << 16  # bytes
_MARK = re.compile(rb"mixopt: (\S{20}) (begins|ends) (\[.*\])\s*$")


class TrialShape(FileShape):
    """A trial in a file."""

    name: str
    mixture: dict[str, float]
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    role: Role
    round: Annotated[int, Field(ge=0, lt=1 << 31)]


class ResultShape(FileShape):
    """A result in a file."""

    trial: str
    status: Status
    tokens: Count
    parameters: Count
    seconds: Annotated[float, Field(ge=0)]
    losses: Losses | None = None
    curve: tuple[Losses, ...] = ()
    reason: str | None = None
    experts: dict[str, Any] | None = None


class EntryShape(FileShape):
    """What a trial's file holds, and the fingerprint of what it was trained by and on."""

    made_by: str
    trial: TrialShape
    result: ResultShape


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """Return a trial as plain values."""
    return {**vars(trial), "mixture": dict(trial.mixture)}


def trial_from_json(content: object, where: str = "a trial") -> Trial:
    """Read what `trial_to_json` made."""
    return _trial(checked_as(TrialShape, content, where), where)


def result_to_json(result: TrialResult) -> dict[str, Any]:
    """Return a result as plain values; absent experts and tasks are left out."""
    content = asdict(replace(result, experts=None))
    del content["experts"]
    for losses in (content["losses"], *content["curve"]):
        if losses is not None and not losses["tasks"]:
            del losses["tasks"]
    if result.experts is not None:
        sides = {"train": result.experts.train, "held_out": result.experts.held_out}
        content["experts"] = {name: counts.to_json() for name, counts in sides.items()}
    return content


def result_from_json(content: object, where: str = "a result") -> TrialResult:
    """Read what `result_to_json` made."""
    return _result(checked_as(ResultShape, content, where), where)


def trial_paths(folder: Path) -> list[Path]:
    """Return the files of the trials of a folder that have ended."""
    return [path for path in folder.glob("[!.]*.json") if path.name not in (GROUPS, ROUNDS, SIZES)]


def read_entry(path: Path, made_by: str | None = None) -> tuple[Trial, TrialResult]:
    """Read a trial's file: the trial and what became of it."""
    content = read_sealed(path, EntryShape, hint="delete it to train the trial again")
    if made_by not in (None, content.made_by):
        raise RunError(
            f"{path}: was trained by another configuration or on another corpus; use another --out,"
            " or delete it to train the trial again"
        )
    return _trial(content.trial, str(path)), _result(content.result, str(path))


def trial_fingerprint(step: str, corpus: str) -> str:
    """Return the fingerprint that results carry: of their step's configuration and their corpus."""
    return hashlib.sha256(f"{step} {corpus}".encode()).hexdigest()[:16]


class TrialFolder:
    """One file for each finished, diverged or failed trial."""

    def __init__(self, path: Path, made_by: str = "") -> None:
        """Open a folder."""
        self.path, self._made_by = path, made_by

    def results(self, trials: Sequence[Trial]) -> dict[str, TrialResult]:
        """Return the existing results, by trial."""
        found = {}
        for trial in trials:
            path = self._file(trial.name)
            if path.exists():
                own, result = read_entry(path, self._made_by)
                if trial_to_json(own) != trial_to_json(trial):
                    raise RunError(
                        f"{path}: is for another mixture or seed; delete it to train again"
                    )
                found[trial.name] = result
        return found

    def write(self, trials: Sequence[Trial], results: Sequence[TrialResult]) -> None:
        """Keep the results of some trials."""
        for trial, result in zip(trials, results, strict=True):
            entry = {"trial": trial_to_json(trial), "result": result_to_json(result)}
            write_sealed(self._file(trial.name), {"made_by": self._made_by, **entry})

    def forget(self, trial: str) -> None:
        """Delete a trial's file, so that it is trained again."""
        self._file(trial).unlink(missing_ok=True)

    def _file(self, trial: str) -> Path:
        return inside(self.path, f"{check_name(trial, 'trial', RunError)}.json")


def _trial(shape: TrialShape, where: str) -> Trial:
    check_name(shape.name, f"{where}: trial", RunError)
    try:
        return Trial(**{**dict(shape), "mixture": Mixture(shape.mixture)})
    except MixtureError as error:
        raise RunError(f"{where}: trial {shape.name!r}: {error}") from error


def _result(shape: ResultShape, where: str) -> TrialResult:
    experts = None
    if shape.experts is not None:
        try:
            train, held_out = (
                Assignments.from_dict(shape.experts.get(name), f"{where}: experts.{name}")
                for name in ("train", "held_out")
            )
        except MixoptError as error:
            raise RunError(str(error)) from error
        experts = ExpertCounts(train, held_out)
    return TrialResult(**{**dict(shape), "experts": experts})


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

    def mark(what: str) -> None:
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with suppress(OSError, ValueError):  # a full disk ends no training
            stream.write(f"mixopt: {when} {what} {json.dumps(list(trials))}\n")
            stream.flush()

    mark("begins")
    try:
        yield
    finally:
        mark("ends")


def logs_in(folder: Path) -> list[Path]:
    """Return the logs of workers that are in a folder of trials."""
    try:
        return [path for path in sorted((folder / LOGS).iterdir())[:MAX_LOGS] if is_plain(path)]
    except OSError:
        return []


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
    part: LogPart | None = None
    with suppress(OSError), log.open("rb") as stream:
        while line := stream.readline(MAX_LINE):
            mark = _MARK.match(line)
            if mark is None:
                continue
            here = stream.tell()
            if part is not None:
                yield replace(part, stop=here if mark[2] == b"ends" else here - len(line))
                part = None
            if mark[2] == b"begins" and trial in _names(mark[3]):
                part = LogPart(log, here - len(line), None, mark[1].decode())
    if part is not None:
        yield part


def _names(text: bytes) -> list[Any]:
    try:
        return list(json.loads(text))
    except (ValueError, RecursionError):
        return []
