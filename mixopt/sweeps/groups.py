"""Groups of trials: the folder of one, and how an executor has many of them trained.

    group.json    in: the trials and the job
    beat.json     while it trains: what it does, how far it is, where
    result.json   out: results, or the size that was asked for, or the reason why there are none
    handle        what the executor calls it, where that outlives its owner

The name of a folder says which trials they are, of which job, on which files of the corpus, and
which attempt it is: what an owner that was killed has left is found by it. A result is taken, and
what still trains is followed where the executor says that it outlives its owner; the folder goes
once its results are kept. What the program prints is in `logs/<name of the folder>.log` of the
sweep. A worker that makes no progress for too long is ended.
"""

from __future__ import annotations

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
from typing import Annotated, Any, Literal

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
MAX_LINE, MAX_TAIL = 300, 16_384  # characters of the last line of a log, bytes that are read
MAX_TICK = 1.0  # more than this between two looks was spent suspended
LOOKS = 10  # until the end of a program that has left no result is believed
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
    `corpus` ends the sweep: the worker sees another corpus than its owner, or none.
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


Report = Callable[[Sequence[Beat]], None]  # what trains now


@dataclass(frozen=True)
class GroupOutcome:
    """What became of a group.

    Attributes:
        trials: The group; how many trials go together was asked where there are none.
        results: One a trial, in their order; none where there is a reason.
        tuned: How many trials go together, where that was asked.
        reason: Why there is neither.
        fault: What may be different another time. None where the proxy itself gave the reason.
        beat: The last sign of life: where it was, and for how long.
    """

    trials: Sequence[Trial]
    results: Sequence[TrialResult] = ()
    tuned: int | None = None
    reason: str | None = None
    fault: Fault | None = None
    beat: Beat = field(default_factory=Beat)


class Watch:
    """How long a worker has made no progress.

    Nothing reports from within an import or a compiler, which are given ten minutes at least. Time
    counts while the watcher itself runs: one that was suspended kills nobody.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock = patience, clock
        self.begun = self._seen = clock()
        self._still, self._moves = 0.0, 0

    def overdue(self, beat: Beat) -> str | None:
        """Return why the worker is to be ended; None while there is hope."""
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
    """A group that was handed out; watched from when it was first seen to train."""

    trials: Sequence[Trial]
    folder: Path
    handle: str = ""
    watch: Watch | None = None
    beat: Beat = field(default_factory=Beat)
    ended: float | None = None  # when it was first seen to have


class GroupRunner:
    """Trains groups on an executor; use as a context manager, which ends what it started."""

    def __init__(
        self, job: Job, folder: Path, executor: Executor, patience: float = PATIENCE
    ) -> None:
        """Note what there is; nothing is started yet."""
        self._job, self._executor, self._patience = job, executor, patience
        self._work, self._marks = folder / WORK, corpus_marks(job.corpus)
        self._running: list[_Attempt] = []
        self._mine: set[Path] = set()

    def __enter__(self) -> GroupRunner:
        """Begin; nothing is started yet, and what a killed owner's workers left half done goes."""
        for folder in () if self._executor.outlives_owner else self._work.glob("*.*"):
            _remove_unfinished(folder)  # a worker that is still there ends then
        return self

    def __exit__(self, *_: object) -> None:
        """End what trains, and what another owner has left; results that are there stay."""
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
        """How many groups train at once."""
        return self._executor.slots

    def run(
        self, groups: Sequence[Sequence[Trial]], report: Report = lambda _: None
    ) -> Iterator[GroupOutcome]:
        """Train groups, to which more may be added; as many at once as there is room for."""
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
        """Check that a group was trained on the files that the sweep began with."""
        now, before = corpus_marks(self._job.corpus), self._marks
        if now != before:
            Corpus.open(self._job.corpus)
            name = min(n for n in now.keys() | before.keys() if now.get(n) != before.get(n))
            raise CorpusError(
                f"{self._job.corpus / name}: changed while trials trained on it; the trials that"
                " ended since are not kept: run the same command again"
            )

    def _begin(self, groups: Sequence[Sequence[Trial]]) -> None:
        """Hand out groups, or follow what another owner has handed out."""
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
        """Return the last attempt of an earlier owner, where that is of use."""
        name = glob.escape(folder_name(self._job, trials, self._marks))
        left = sorted(set(self._work.glob(f"{name}.*")) - self._mine)
        result = read_result(left[-1]) if left else None
        if result is not None:
            failed = result.error or any(one.get("status") == "failed" for one in result.results)
            if not failed:  # else it is tried again: that may be what was asked for
                return _Attempt(trials, left[-1])
        elif left and self._executor.outlives_owner and (left[-1] / HANDLE).exists():
            return _Attempt(trials, left[-1], read_text(left[-1] / HANDLE))
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def _made(self, trials: Sequence[Trial]) -> _Attempt:
        # Never a name again: a worker that was given up may still write to its folder.
        name = folder_name(self._job, trials, self._marks)
        folder = self._work / f"{name}.{time.time_ns()}"
        folder.mkdir(parents=True)
        self._mine.add(folder)
        write_group(folder, self._job, trials, min(1.0, self._patience / 10))
        return _Attempt(trials, folder)

    def _ended(self, report: Report) -> Iterator[tuple[_Attempt, GroupResult]]:
        """Wait a moment, and yield the groups that have ended by then."""
        time.sleep(self._executor.poll)
        waiting = []
        for one in self._running:
            result = read_result(one.folder)  # before the beat, of which the last comes first
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
        """Return how a group has ended without a result; None while it may have one."""
        if one.watch is None and (one.beat.seconds or state == "running"):
            one.watch = Watch(self._patience)
        if isinstance(state, Ended):
            now = time.monotonic()
            one.ended = one.ended or now
            if one.watch is not None and not one.beat.seconds:  # it has cost something too
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
