"""Groups of trials: the files of a group's folder, and a runner that trains groups on an executor.

    group.json    in: the trials and the job
    beat.json     while it trains: activity, progress, node
    result.json   out: results, or the group size that was requested, or the error
    handle        the executor's handle, if training outlives its owner

The name of a folder is a hash of its trials, job and corpus files, and the attempt: a resumed
sweep finds by it the folders of a killed owner. It takes their results, and follows those that
still train if the executor outlives its owner. A folder is deleted once its results are saved. The
program's output goes to `logs/<name of the folder>.log` of the sweep. A worker without progress is
killed after `sweep.patience`.
"""

import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from mixopt.corpus import Corpus
from mixopt.errors import CorpusError, MixoptError, RunError, ShardError
from mixopt.sweeps.contract import PATIENCE, Ended, Executor, Fault, Job, State
from mixopt.sweeps.trial_files import LOGS, WORK, TrialShape, result_from_json, trial_to_json
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
    write_text,
)
from mixopt.trials import Doing, Trial, TrialResult

GROUP, BEAT, RESULT, HANDLE = "group.json", "beat.json", "result.json", "handle"
MAX_LINE, MAX_TAIL = 300, 16_384  # characters of a log's last line, bytes read to find it
MAX_TICK = 1.0  # seconds; a longer time between two polls was spent suspended
LOOKS = 10  # polls after a program's end that its result may take to appear
Amount = Annotated[float, Field(ge=0)]


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
        return self.done / self.seconds if self.done and self.seconds else None

    def to_json(self) -> dict[str, Any]:
        """Return the fields that `status --json` shows."""
        content = self.model_dump(exclude={"moves"})
        return {**content, "tokens_per_second": self.tokens_per_second}


class GroupResult(FileShape):
    """Outcome of a folder: results, the group size that was requested, or an error.

    A fault says that a retry may succeed; an error without one was raised by the proxy. The fault
    `corpus` ends the sweep: the worker sees no corpus or another one than its owner.
    """

    results: list[dict[str, Any]] = Field(default_factory=list)
    tuned: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    error: str | None = None
    fault: Fault | Literal["corpus"] | None = None


class Group(FileShape):
    """Input of a worker; without trials it measures the group size."""

    job: Job
    trials: list[TrialShape]
    beat_every: float


def write_group(folder: Path, job: Job, trials: Sequence[Trial], beat_every: float) -> None:
    """Write the input of a worker, and a first beat."""
    write_beat(folder, Beat(trials=[trial.name for trial in trials]))
    content = {"job": job_to_json(job), "trials": [trial_to_json(trial) for trial in trials]}
    write_json(folder / GROUP, {**content, "beat_every": beat_every})


def job_to_json(job: Job) -> dict[str, Any]:
    """Return a job as JSON values."""
    return {**asdict(job), "corpus": str(job.corpus)}


def folder_name(job: Job, trials: Sequence[Trial], marks: Mapping[str, Sequence[int]]) -> str:
    """Return the name of a group's folder, without the attempt's suffix."""
    content = [job_to_json(job), [trial_to_json(trial) for trial in trials], dict(marks)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return f"{trials[0].name[:40] if trials else 'tune'}-{digest}"


def log_of(folder: Path) -> Path:
    """Return the path of a folder's log."""
    return folder.parents[1] / LOGS / f"{folder.name}.log"


def last_words(folder: Path) -> str:
    """Return the name and the last line of a folder's log."""
    path = log_of(folder)
    if not path.exists():
        return "it left no log: do all nodes see the run directory?"
    line = last_line(path)
    return f"{path.name} ends with {line!r}" if line else f"see {path}"


def last_line(log: Path) -> str:
    """Return the last line of a log that is not blank; empty if there is none."""
    with suppress(OSError), log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - MAX_TAIL))
        lines = stream.read().decode("utf-8", "replace").replace("\r", "\n").split("\n")
        return next((line.strip()[:MAX_LINE] for line in reversed(lines) if line.strip()), "")
    return ""


def read_beat(folder: Path) -> Beat:
    """Return the last heartbeat, of 0 seconds if there is none."""
    beat = Beat()
    with suppress(MixoptError):
        beat = read_json(folder / BEAT, Beat)
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


def pending(work: Path) -> dict[Path, str]:
    """Return the handles of the folders without a result; none unless they outlive their owner."""
    handles = {}
    for path in sorted(work.glob(f"*/{HANDLE}")):
        if not has_result(path.parent):
            with suppress(MixoptError):
                handles[path.parent] = read_text(path)
    return handles


def corpus_marks(corpus: Path) -> dict[str, list[int]]:
    """Return size, time and inode of each file of a corpus, by name, to notice changes."""
    marks = {}
    for path in visible_files(corpus):
        try:
            size, written, _, inode = file_mark(path.stat())
        except OSError as error:
            raise ShardError(f"{path}: cannot be read: {error.strerror}") from error
        marks[path.relative_to(corpus).as_posix()] = [size, written, inode]
    return marks


Report = Callable[[Sequence[Beat]], None]  # gets the beats of all running groups


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


class Watch:
    """Measures for how long a worker has made no progress.

    Imports and compilers report nothing, and get ten minutes at least. Time while the owner itself
    was suspended does not count.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock = patience, clock
        self.begun = self._seen = clock()
        self._still, self._moves = 0.0, 0

    def overdue(self, beat: Beat) -> str | None:
        """Return why the worker should be killed; None while its patience lasts."""
        now = self._clock()
        passed, self._seen = min(now - self._seen, MAX_TICK), now
        self._still = 0.0 if beat.moves != self._moves else self._still + passed
        self._moves = beat.moves
        is_stepping = beat.doing in ("training", "evaluating")
        limit = self._patience if is_stepping else max(self._patience, PATIENCE)
        if self._still <= limit:
            return None
        return (
            f"the worker made no progress for {self._still:.1f} s while {beat.doing}, longer than"
            f" its patience of {limit:.1f} s, and was killed; raise sweep.patience if a step takes"
            " so long"
        )


@dataclass
class _Attempt:
    """A started group; watched from the moment it is first seen training."""

    trials: Sequence[Trial]
    folder: Path
    handle: str = ""
    watch: Watch | None = None
    beat: Beat = field(default_factory=Beat)
    ended: float | None = None  # when its end was first seen


class GroupRunner:
    """Trains groups on an executor; as a context manager, stops everything on exit."""

    def __init__(
        self, job: Job, folder: Path, executor: Executor, patience: float = PATIENCE
    ) -> None:
        """Record the state of the corpus; starts nothing."""
        self._job, self._executor, self._patience = job, executor, patience
        self._work, self._marks = folder / WORK, corpus_marks(job.corpus)
        self._running: list[_Attempt] = []
        self._mine: set[Path] = set()

    def __enter__(self) -> Self:
        """Delete the unfinished folders of a killed owner; starts nothing."""
        for folder in () if self._executor.outlives_owner else self._work.glob("*.*"):
            _remove_unfinished(folder)  # its worker, if still alive, exits
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all groups, those of a previous owner included; results stay."""
        left = {one.folder: one.handle for one in self._running}
        if self._executor.outlives_owner:
            left = pending(self._work) | left
        try:
            self._executor.cancel([handle for handle in left.values() if handle])
            for folder in left:
                _remove_unfinished(folder)
        finally:
            self._executor.close()

    @property
    def slots(self) -> int:
        """Number of groups that train at once."""
        return self._executor.slots

    def run(
        self, groups: Sequence[Sequence[Trial]], report: Report = lambda _: None
    ) -> Iterator[GroupOutcome]:
        """Train groups as slots become free; the caller may append to `groups` meanwhile."""
        begun = 0
        while True:
            room = len(groups) - begun
            if not self._executor.queues:
                room = min(room, max(0, self.slots - len(self._running)))
            self._begin(groups[begun : begun + room])
            begun += room
            if not self._running:
                return
            for attempt, result in list(self._ended(report)):
                if result.fault == "corpus":
                    raise CorpusError(result.error or "")
                self._check_corpus()
                self._running.remove(attempt)
                yield _outcome(attempt, result)
                shutil.rmtree(attempt.folder, ignore_errors=True)

    def _check_corpus(self) -> None:
        """Raise CorpusError if files of the corpus changed since the sweep began."""
        now, before = corpus_marks(self._job.corpus), self._marks
        if now != before:
            Corpus.open(self._job.corpus)
            name = min(n for n in now.keys() | before.keys() if now.get(n) != before.get(n))
            raise CorpusError(
                f"{self._job.corpus / name}: changed while trials trained on it; the trials that"
                " ended since are not kept: run the same command again"
            )

    def _begin(self, groups: Sequence[Sequence[Trial]]) -> None:
        """Start groups, or follow the attempt that a previous owner started."""
        fresh = []
        for trials in groups:
            attempt = self._adopted(trials)
            if attempt is None:
                attempt = self._made(trials)
                fresh.append(attempt)
            self._running.append(attempt)
        handles = self._executor.start([one.folder for one in fresh]) if fresh else []
        for one, handle in zip(fresh, handles, strict=True):
            one.handle = handle
            if self._executor.outlives_owner:
                write_text(one.folder / HANDLE, handle)

    def _adopted(self, trials: Sequence[Trial]) -> _Attempt | None:
        """Return the last attempt of a previous owner if it has a result or still trains."""
        name = glob.escape(folder_name(self._job, trials, self._marks))
        left = sorted(set(self._work.glob(f"{name}.*")) - self._mine)
        result = read_result(left[-1]) if left else None
        if result is not None:
            failed = result.error or any(one.get("status") == "failed" for one in result.results)
            if not failed:  # a failed one is trained again: --retry-failed may be the reason
                return _Attempt(trials, left[-1])
        elif left and self._executor.outlives_owner and (left[-1] / HANDLE).exists():
            return _Attempt(trials, left[-1], read_text(left[-1] / HANDLE))
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def _made(self, trials: Sequence[Trial]) -> _Attempt:
        # Names are unique: an abandoned worker may still write to its folder.
        name = folder_name(self._job, trials, self._marks)
        folder = self._work / f"{name}.{time.time_ns()}"
        folder.mkdir(parents=True)
        self._mine.add(folder)
        write_group(folder, self._job, trials, min(1.0, self._patience / 10))
        return _Attempt(trials, folder)

    def _ended(self, report: Report) -> Iterator[tuple[_Attempt, GroupResult]]:
        """Wait for one poll, and yield the groups that have ended."""
        time.sleep(self._executor.poll)
        waiting = []
        for one in self._running:
            result = read_result(one.folder)  # before the beat: the last beat precedes the result
            one.beat = max(one.beat, read_beat(one.folder), key=lambda beat: beat.seconds)
            if result is None:
                waiting.append(one)
            else:
                yield one, result
        report([one.beat for one in self._running if one.beat.seconds])
        states = self._executor.states([one.handle for one in waiting]) if waiting else {}
        for one in waiting:
            ended = self._seen(one, states[one.handle])
            if ended is not None:
                result = read_result(one.folder)
                yield one, result or GroupResult(error=ended.reason, fault=ended.fault)

    def _seen(self, one: _Attempt, state: State) -> Ended | None:
        """Return how a group ended without a result; None while a result may still appear."""
        if one.watch is None and (one.beat.seconds or state == "running"):
            one.watch = Watch(self._patience)
        if isinstance(state, Ended):
            now = time.monotonic()
            one.ended = one.ended or now
            if one.watch is not None and not one.beat.seconds:  # killed before its first beat
                one.beat = one.beat.model_copy(update={"seconds": one.ended - one.watch.begun})
            if now - one.ended < LOOKS * self._executor.poll:
                return None
            return Ended(f"{state.reason}; {last_words(one.folder)}", state.fault)
        reason = one.watch.overdue(one.beat) if one.watch is not None else None
        if reason is None:
            return None
        self._executor.cancel([one.handle])
        return Ended(reason)


def _outcome(one: _Attempt, result: GroupResult) -> GroupOutcome:
    results, reason = list[TrialResult](), result.error
    if reason is None:
        try:
            results = [result_from_json(entry) for entry in result.results]
            if [one.trial for one in results] != [trial.name for trial in one.trials]:
                raise RunError("it has results of other trials than it was given")
        except RunError as error:
            results, reason = [], f"the worker's answer cannot be used: {error}"
    fault = None if result.fault == "corpus" else result.fault
    return GroupOutcome(one.trials, results, result.tuned, reason, fault, one.beat)


def _remove_unfinished(folder: Path) -> None:
    if not has_result(folder):
        shutil.rmtree(folder, ignore_errors=True)
