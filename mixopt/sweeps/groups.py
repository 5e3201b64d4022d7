"""Files of a group of trials, through which a sweep and its workers talk.

    group.json    in: the trials and the job
    beat.json     while it trains: activity, progress, node
    result.json   out: results, or the group size that was requested, or the error
    handle        the executor's handle, if training outlives its owner

The program's output goes to `logs/<name of the folder>.log` of the sweep.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator

from mixopt.errors import MixoptError
from mixopt.sweeps.contract import Fault, Job
from mixopt.sweeps.proxy import Doing
from mixopt.sweeps.trial_files import LOGS, TrialShape, result_to_json, trial_to_json, valid_result
from mixopt.system import (
    Count,
    FileShape,
    read_json,
    read_sealed,
    read_text,
    write_json,
    write_sealed,
)
from mixopt.trials import Trial, TrialResult

GROUP = "group.json"
BEAT = "beat.json"
RESULT = "result.json"
HANDLE = "handle"
MAX_LINE = 300  # characters of a log's last line
MAX_TAIL = 16_384  # bytes read to find it
Amount = Annotated[float, Field(ge=0)]
_Result = Annotated[Any, PlainValidator(valid_result), PlainSerializer(result_to_json)]


class Beat(FileShape):
    """Heartbeat of a worker; without trials it measures the group size.

    A beat of 0 seconds was written by the owner, before the worker started.
    """

    doing: Doing = "starting"
    trials: list[str] = Field(default_factory=list)
    done: Count = 0  # training tokens of the group so far
    total: Count = 0  # 0 until the proxy reports
    moves: Count = 0  # number of progress reports
    seconds: Amount = 0.0  # since the worker took the folder
    cpu: Amount = 0.0  # CPU seconds of the worker and its children since then
    node: str = ""
    kind: str = "cpu"
    gpus: Amount = 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """Training speed; None before training starts."""
        if self.done and self.seconds:
            return self.done / self.seconds
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the fields that `status --json` shows."""
        content = self.model_dump(exclude={"moves"})
        return {**content, "tokens_per_second": self.tokens_per_second}


class GroupResult(FileShape):
    """Outcome of a folder: results, the group size that was requested, or an error.

    A fault says that a retry may succeed; an error without one was raised by the proxy.
    """

    results: list[_Result] = Field(default_factory=list)
    tuned: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    error: str | None = None
    fault: Fault | None = None


class Group(FileShape):
    """Input of a worker; without trials it measures the group size."""

    job: Job
    trials: list[TrialShape]


def group_to_json(job: Job, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the input of a worker as JSON values."""
    job_fields = {**asdict(job), "corpus": str(job.corpus)}
    return {"job": job_fields, "trials": [trial_to_json(trial) for trial in trials]}


def write_group(folder: Path, job: Job, trials: Sequence[Trial]) -> None:
    """Write the input of a worker, and a first beat."""
    write_json(folder / GROUP, group_to_json(job, trials))
    write_beat(folder, Beat(trials=[trial.name for trial in trials]))


def log_of(folder: Path) -> Path:
    """Return the path of a folder's log."""
    return folder.parents[1] / LOGS / f"{folder.name}.log"


def log_hint(folder: Path) -> str:
    """Return the name and the last line of a folder's log, for an error message."""
    path = log_of(folder)
    if not path.exists():
        return "it left no log: do all nodes see the run directory?"
    line = last_line(path)
    if not line:
        return f"see {path}"
    return f"{path.name} ends with {line!r}"


def last_line(log: Path) -> str:
    """Return the last line of a log that is not blank; empty if there is none."""
    tail = b""
    with suppress(OSError), log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - MAX_TAIL))
        tail = stream.read()
    for line in reversed(re.split(rb"[\r\n]", tail)):
        text = line.strip().decode("utf-8", "replace")
        if text:
            return text[:MAX_LINE]
    return ""


def read_beat(folder: Path) -> Beat:
    """Return the last heartbeat, of 0 seconds if there is none."""
    try:
        beat: Beat = read_json(folder / BEAT, Beat)
    except MixoptError:
        return Beat()
    return beat


def write_beat(folder: Path, beat: Beat) -> None:
    """Write a heartbeat without fsync; a failing disk does not stop training."""
    temporary = folder / f"{BEAT}.tmp"
    with suppress(OSError):
        temporary.write_text(beat.model_dump_json(), encoding="utf-8")
        temporary.replace(folder / BEAT)


def has_result(folder: Path) -> bool:
    """Return whether a folder has a result."""
    # NFS may cache that a file is absent; listing the directory asks the server again.
    with suppress(OSError):
        return RESULT in os.listdir(folder)
    return False


def read_result(folder: Path) -> GroupResult | None:
    """Return the outcome of a folder; None if it has none yet."""
    if not has_result(folder):
        return None
    try:
        result: GroupResult = read_sealed(folder / RESULT, GroupResult, hint="run it again")
    except MixoptError as error:
        return GroupResult(error=f"the worker's answer cannot be used: {error}")
    return result


def write_result(folder: Path, result: GroupResult) -> None:
    """Write the outcome of a folder atomically."""
    write_sealed(folder / RESULT, result.model_dump(mode="json"))


def unfinished_handles(work: Path) -> dict[Path, str]:
    """Return the saved handles of the folders without a result, by folder.

    A handle is saved only if training outlives its owner.
    """
    handles = {}
    for path in sorted(work.glob(f"*/{HANDLE}")):
        if not has_result(path.parent):
            with suppress(MixoptError):
                handles[path.parent] = read_text(path)
    return handles


@dataclass(frozen=True)
class GroupOutcome:
    """Outcome of a group.

    Attributes:
        trials: The group; empty if the group size was requested.
        results: One for each trial, in their order; empty after an error.
        tuned: The group size, if requested.
        reason: The error.
        fault: The kind of failure that a retry may avoid; None if the proxy raised the error.
        beat: The last heartbeat.
    """

    trials: Sequence[Trial]
    results: Sequence[TrialResult] = ()
    tuned: int | None = None
    reason: str | None = None
    fault: Fault | None = None
    beat: Beat = field(default_factory=Beat)
