"""The folder of a group: what the owner of a sweep and the program that trains it tell each other.

    group.json    in: the trials and the job
    beat.json     while it trains: what it does, how far it is, where
    result.json   out: results, or the size that was asked for, or the reason why there are none
    handle        what the executor calls it, where that outlives its owner

The name says which trials they are, of which job, on which files of the corpus, and which attempt
it is, so that another owner takes results of this sweep and no others. What the program prints is
in `logs/<name of the folder>.log` of the sweep.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mixopt.errors import MixoptError, ShardError
from mixopt.sweeps.contract import Fault, Job
from mixopt.sweeps.trial_files import LOGS, TrialShape, trial_to_json
from mixopt.system import (
    Count,
    FileShape,
    file_mark,
    read_json,
    read_sealed,
    read_text,
    visible_files,
    write_json,
    write_sealed,
)
from mixopt.trials import Doing, Trial

GROUP, BEAT, RESULT, HANDLE = "group.json", "beat.json", "result.json", "handle"
MAX_LINE, MAX_TAIL = 300, 16_384  # characters of the last line of a log, bytes that are read
Amount = Annotated[float, Field(ge=0)]


class Beat(FileShape):
    """What a worker does, as its last sign of life says; without trials it finds a group's size.

    One of 0 seconds was written by the owner, before the worker's first.
    """

    doing: Doing = "starting"
    trials: list[str] = Field(default_factory=list)
    done: Count = 0  # training tokens of the group so far
    total: Count = 0  # 0 until the proxy reports
    moves: Count = 0  # how often the worker has moved on
    seconds: Amount = 0.0  # that it has had the folder
    cpu: Amount = 0.0  # seconds that its processes have computed since
    node: str = ""
    kind: str = "cpu"
    gpus: Amount = 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """How fast it trains; None before it does."""
        return self.done / self.seconds if self.done and self.seconds else None

    def to_json(self) -> dict[str, Any]:
        """Return what people read of it."""
        content = self.model_dump(exclude={"moves"})
        return {**content, "tokens_per_second": self.tokens_per_second}


class GroupResult(FileShape):
    """What became of a folder: results, a size that was asked for, or the reason for neither.

    A fault may be different another time; a reason without one is the proxy's own. The fault
    `corpus` ends the sweep: the worker sees another corpus than its owner, a damaged one, or none.
    """

    results: list[dict[str, Any]] = Field(default_factory=list)
    tuned: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    error: str | None = None
    fault: Fault | Literal["corpus"] | None = None


class Group(FileShape):
    """What a worker is asked for; how many trials go together where there are none."""

    job: Job
    trials: list[TrialShape]
    beat_every: float


def write_group(folder: Path, job: Job, trials: Sequence[Trial], beat_every: float) -> None:
    """Ask for a group to be trained, of which nobody has heard yet."""
    write_beat(folder, Beat(trials=[trial.name for trial in trials]))
    content = {"job": job_to_json(job), "trials": [trial_to_json(trial) for trial in trials]}
    write_json(folder / GROUP, {**content, "beat_every": beat_every})


def job_to_json(job: Job) -> dict[str, Any]:
    """Return a job as plain values."""
    return {**asdict(job), "corpus": str(job.corpus)}


def folder_name(job: Job, trials: Sequence[Trial], marks: Mapping[str, Sequence[int]]) -> str:
    """Return the name of a group's folder, without the attempt."""
    content = [job_to_json(job), [trial_to_json(trial) for trial in trials], dict(marks)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return f"{trials[0].name[:40] if trials else 'tune'}-{digest}"


def log_of(folder: Path) -> Path:
    """Return the log of what trains a folder."""
    return folder.parents[1] / LOGS / f"{folder.name}.log"


def last_words(folder: Path) -> str:
    """Return where the log of a folder is, and how it ends."""
    path = log_of(folder)
    if not path.exists():
        return "it left no log: do all nodes see the run directory?"
    line = last_line(path)
    return f"{path.name} ends with {line!r}" if line else f"see {path}"


def last_line(log: Path) -> str:
    """Return the last line of a log that says something; empty without one."""
    with suppress(OSError), log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - MAX_TAIL))
        lines = stream.read().decode("utf-8", "replace").replace("\r", "\n").split("\n")
        return next((line.strip()[:MAX_LINE] for line in reversed(lines) if line.strip()), "")
    return ""


def read_beat(folder: Path) -> Beat:
    """Return the last sign of life, of 0 seconds before there is one."""
    beat = Beat()
    with suppress(MixoptError):
        beat = read_json(folder / BEAT, Beat)
    return beat


def write_beat(folder: Path, beat: Beat) -> None:
    """Write a sign of life; a disk that cannot be written to ends no training."""
    temporary = folder / f"{BEAT}.tmp"
    with suppress(OSError):  # and nobody waits for the disk: after a crash nobody needs it
        temporary.write_text(beat.model_dump_json(), encoding="utf-8")
        temporary.replace(folder / BEAT)


def has_result(folder: Path) -> bool:
    """Tell whether a folder has a result."""
    # A listed folder is asked for anew, where a file that is absent may be believed.
    with suppress(OSError):
        return RESULT in os.listdir(folder)
    return False


def read_result(folder: Path) -> GroupResult | None:
    """Return what became of a folder; None where it has no result yet."""
    if not has_result(folder):
        return None
    try:
        result: GroupResult = read_sealed(folder / RESULT, GroupResult, hint="run it again")
    except MixoptError as error:
        return GroupResult(error=f"the worker's answer cannot be used: {error}")
    return result


def write_result(folder: Path, result: GroupResult) -> None:
    """Write what became of a folder, whole."""
    write_sealed(folder / RESULT, result.model_dump(mode="json"))


def pending(work: Path) -> dict[Path, str]:
    """Return the handles of the folders without a result, where they outlive their owner."""
    handles = {}
    for path in sorted(work.glob(f"*/{HANDLE}")):
        if not has_result(path.parent):
            with suppress(MixoptError):
                handles[path.parent] = read_text(path)
    return handles


def corpus_marks(corpus: Path) -> dict[str, list[int]]:
    """Return what changes when a file of a corpus is written or replaced, by its name."""
    marks = {}
    for path in visible_files(corpus):
        try:
            size, written, _, inode = file_mark(path.stat())
        except OSError as error:
            raise ShardError(f"{path}: cannot be read: {error.strerror}") from error
        marks[path.relative_to(corpus).as_posix()] = [size, written, inode]
    return marks
