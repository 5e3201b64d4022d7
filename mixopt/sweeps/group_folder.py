"""The folder of a group: what the owner of a sweep and the program that trains it tell each other.

    group.json    in: the trials, the job, how many each kind of device trains together
    beat.json     while it trains: what it does, how far it is, where
    result.json   out: results, or the size that was asked for, or the reason why there are none
    handle        what the executor calls it, where that outlives its owner

The name says which trials they are, of which job, on which files of the corpus, and which attempt
it is, so that another owner takes results of this sweep and no others.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mixopt.errors import MixoptError, ShardError
from mixopt.sweeps.contract import NOWHERE, Fault, Job, Place
from mixopt.sweeps.trial_files import trial_from_json, trial_to_json
from mixopt.system import (
    FileShape,
    file_mark,
    read_json,
    read_sealed,
    read_text,
    visible_files,
    write_json,
    write_sealed,
)
from mixopt.trials import Doing, Training, Trial

GROUP, BEAT, RESULT, HANDLE = "group.json", "beat.json", "result.json", "handle"
Tokens = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0)]


class Beat(FileShape):
    """A sign of life.

    Attributes:
        doing: What the worker does.
        done: Training tokens of the group so far.
        total: Of all that it will train on; 0 until the proxy reports.
        number: How many beats there were.
        moves: How often the worker has moved on since it started.
        cpu: Seconds that its processes have computed for since.
        seconds: How long it has had the folder.
        place: Where.
    """

    doing: Doing = "starting"
    done: Tokens = 0
    total: Tokens = 0
    number: Tokens = 0
    moves: Tokens = 0
    cpu: Amount = 0.0
    seconds: Amount = 0.0
    place: Place = NOWHERE


class GroupResult(FileShape):
    """What became of a folder: one of results, tuned and error.

    Attributes:
        results: A result a trial that was trained.
        tuned: How many trials go together.
        error: Why there are no results.
        fault: What may be different another time; None where the proxy itself gave the reason.
        refuses_corpus: Whether the worker sees another corpus than the owner.
        trained: How many trials were trained together.
        seconds: How long it took.
        cpu: Seconds that its processes have computed for.
        place: Where.
    """

    results: list[dict[str, Any]] = []  # noqa: RUF012 (pydantic copies it)
    tuned: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    error: str | None = None
    fault: Fault | None = None
    refuses_corpus: bool = False
    trained: Tokens = 0
    seconds: Amount = 0.0
    cpu: Amount = 0.0
    place: Place = NOWHERE


@dataclass(frozen=True)
class Group:
    """What a worker is asked for.

    Attributes:
        job: What all groups share.
        trials: What is trained; how many go together is asked where there are none.
        sizes: How many trials each kind of device trains together, where it was measured.
        beat_every: Seconds between two beats.
    """

    job: Job
    trials: Sequence[Trial]
    sizes: Mapping[str, int]
    beat_every: float

    def write(self, folder: Path) -> None:
        """Write it."""
        content = {
            "job": job_to_json(self.job),
            "trials": [trial_to_json(trial) for trial in self.trials],
            "sizes": dict(self.sizes),
            "beat_every": self.beat_every,
        }
        write_json(folder / GROUP, content)

    @classmethod
    def read(cls, folder: Path) -> Group:
        """Read what `write` wrote."""
        content = read_json(folder / GROUP, dict[str, Any])
        job = dict(content["job"])
        training = Training(**job.pop("training"))
        trials = [trial_from_json(entry) for entry in content["trials"]]
        made = Job(**{**job, "corpus": Path(job["corpus"]), "training": training})
        return cls(made, trials, content["sizes"], content["beat_every"])


def job_to_json(job: Job) -> dict[str, Any]:
    """Return a job as plain values."""
    return {**asdict(job), "corpus": str(job.corpus)}


def folder_name(job: Job, trials: Sequence[Trial], marks: Mapping[str, Sequence[int]]) -> str:
    """Return the name of a group's folder, without the attempt."""
    content = [job_to_json(job), [trial_to_json(trial) for trial in trials], dict(marks)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return f"{trials[0].name[:40] if trials else 'tune'}-{digest}"


def read_beat(folder: Path) -> Beat | None:
    """Return the last sign of life; None where there is none."""
    with suppress(MixoptError):
        if (folder / BEAT).is_file():
            beat: Beat = read_json(folder / BEAT, Beat)
            return beat
    return None


def write_beat(folder: Path, beat: Beat) -> None:
    """Write a sign of life; a disk that cannot be written to ends no training."""
    temporary = folder / f"{BEAT}.tmp"
    with suppress(OSError):  # and nobody waits for the disk: after a crash nobody needs it
        temporary.write_text(beat.model_dump_json(), encoding="utf-8")
        temporary.replace(folder / BEAT)


def read_result(folder: Path) -> GroupResult | None:
    """Return what became of a folder; None where it has no result yet."""
    # A listed folder is asked for anew, where a file that is absent may be believed.
    with suppress(OSError):
        if RESULT not in os.listdir(folder):
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
        if not (path.parent / RESULT).exists():
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
