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
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PlainSerializer, PlainValidator

from mixopt.corpus import Corpus
from mixopt.errors import CorpusError, MixoptError, ShardError
from mixopt.sweeps.contract import PATIENCE, Ended, Executor, Fault, Job, State
from mixopt.sweeps.proxy import Doing
from mixopt.sweeps.trial_files import (
    LOGS,
    WORK,
    TrialShape,
    result_to_json,
    trial_to_json,
    valid_result,
)
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
from mixopt.trials import Trial, TrialResult

GROUP, BEAT, RESULT, HANDLE = "group.json", "beat.json", "result.json", "handle"
MAX_LINE, MAX_TAIL = 300, 16_384  # characters of a log's last line, bytes read to find it
MAX_TICK = 1.0  # seconds; a longer time between two polls was spent suspended
LOOKS = 10  # polls after a program's end that its result may take to appear
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
        return self.done / self.seconds if self.done and self.seconds else None

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
    about = {**asdict(job), "corpus": str(job.corpus)}
    return {"job": about, "trials": [trial_to_json(trial) for trial in trials]}


def write_group(folder: Path, job: Job, trials: Sequence[Trial]) -> None:
    """Write the input of a worker, and a first beat."""
    write_json(folder / GROUP, group_to_json(job, trials))
    write_beat(folder, Beat(trials=[trial.name for trial in trials]))


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
    lines = [b""]
    with suppress(OSError), log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - MAX_TAIL))
        lines += filter(None, map(bytes.strip, re.split(rb"[\r\n]", stream.read())))
    return lines[-1].decode("utf-8", "replace")[:MAX_LINE]


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


def pending(work: Path) -> dict[Path, str]:
    """Return the handles of the folders without a result; none unless they outlive their owner."""
    handles = {}
    for path in sorted(work.glob(f"*/{HANDLE}")):
        if not has_result(path.parent):
            with suppress(MixoptError):
                handles[path.parent] = read_text(path)
    return handles


def take_back(executor: Executor, groups: Mapping[Path, str]) -> None:
    """Stop folders, by their handles, which are empty if nothing of ours trains; results stay."""
    executor.cancel(list(filter(None, groups.values())))
    for folder in groups:
        if not has_result(folder):
            shutil.rmtree(folder, ignore_errors=True)


def corpus_marks(corpus: Path) -> dict[str, tuple[int, int, int]]:
    """Return size, time and inode of each file of a corpus, by name, to notice changes."""
    marks = {}
    for path in visible_files(corpus):
        try:
            size, written, _, inode = file_mark(path.stat())
        except OSError as error:
            raise ShardError(f"{path}: cannot be read: {error.strerror}") from error
        marks[path.relative_to(corpus).as_posix()] = (size, written, inode)
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
        self.begun = self._last_poll = clock()
        self._still, self._moves = 0.0, 0

    def overdue(self, beat: Beat) -> str | None:
        """Return why the worker should be killed; None while its patience lasts."""
        now = self._clock()
        passed, self._last_poll = min(now - self._last_poll, MAX_TICK), now
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
    """A group in its folder; watched from the moment it is first seen training."""

    trials: Sequence[Trial]
    folder: Path
    handle: str = ""
    watch: Watch | None = None
    beat: Beat = field(default_factory=Beat)
    ended: float | None = None  # when its end was first seen


class GroupRunner:
    """Trains groups on an executor; as a context manager, stops everything on exit."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        executor: Executor,
        patience: float = PATIENCE,
        report: Report = lambda _: None,
    ) -> None:
        """Record the state of the corpus; starts nothing."""
        self._job, self.executor, self._patience, self._report = job, executor, patience, report
        self._work, self._marks = folder / WORK, corpus_marks(job.corpus)
        self._running: list[_Attempt] = []

    def __enter__(self) -> Self:
        """Delete the unfinished folders of a killed owner; starts nothing."""
        if not self.executor.outlives_owner:  # workers that still live exit without their folders
            take_back(self.executor, dict.fromkeys(self._work.glob("*.*"), ""))
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all groups, those of a previous owner included; results stay."""
        unfinished = {attempt.folder: attempt.handle for attempt in self._running}
        try:
            take_back(self.executor, pending(self._work) | unfinished)
        finally:
            self.executor.close()

    def run(self, groups: Sequence[Sequence[Trial]]) -> Iterator[GroupOutcome]:
        """Train groups as slots become free; the caller may append to `groups` meanwhile."""
        started = 0
        while True:
            room = len(groups) - started
            if not self.executor.queues:
                room = min(room, max(0, self.executor.slots - len(self._running)))
            self._begin(groups[started : started + room])
            started += room
            if not self._running:
                return
            for attempt, result in list(self._ended()):
                self._check_corpus()
                self._running.remove(attempt)
                yield GroupOutcome(
                    attempt.trials,
                    result.results,
                    result.tuned,
                    result.error,
                    result.fault,
                    attempt.beat,
                )
                shutil.rmtree(attempt.folder, ignore_errors=True)

    def _check_corpus(self) -> None:
        """Raise CorpusError if files of the corpus changed since the sweep began."""
        changed = corpus_marks(self._job.corpus).items() ^ self._marks.items()
        if changed:
            Corpus.open(self._job.corpus)
            raise CorpusError(
                f"{self._job.corpus / min(changed)[0]}: changed while trials trained on it; the"
                " trials that ended since are not kept: run the same command again"
            )

    def _begin(self, groups: Sequence[Sequence[Trial]]) -> None:
        """Start groups, or follow the attempt that a previous owner started."""
        fresh = []
        for trials in groups:
            content = [*group_to_json(self._job, trials).values(), self._marks]
            digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
            name = f"{trials[0].name[:40] if trials else 'tune'}-{digest}"
            attempt = self._adopted(name, trials)
            if attempt is None:
                # Names are unique: an abandoned worker may still write to its folder.
                attempt = _Attempt(trials, self._work / f"{name}.{time.time_ns()}")
                write_group(attempt.folder, self._job, trials)
                fresh.append(attempt)
            self._running.append(attempt)
        handles = self.executor.start([attempt.folder for attempt in fresh])
        for attempt, handle in zip(fresh, handles, strict=True):
            attempt.handle = handle
            if self.executor.outlives_owner:
                write_text(attempt.folder / HANDLE, handle)

    def _adopted(self, name: str, trials: Sequence[Trial]) -> _Attempt | None:
        """Return the attempt of a previous owner if it has results or still trains."""
        for folder in self._work.glob(f"{glob.escape(name)}.*"):
            result, handle = read_result(folder), folder / HANDLE
            if result is None:
                if self.executor.outlives_owner and handle.exists():
                    return _Attempt(trials, folder, read_text(handle))
            elif not result.error and all(entry.status != "failed" for entry in result.results):
                return _Attempt(trials, folder)
            # A failed one is trained again: --retry-failed may be the reason.
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def _ended(self) -> Iterator[tuple[_Attempt, GroupResult]]:
        """Wait for one poll, and yield the groups that have ended."""
        time.sleep(self.executor.poll)
        waiting = []
        for attempt in self._running:
            # The result before the beat: the last beat precedes the result.
            result, beat = read_result(attempt.folder), read_beat(attempt.folder)
            attempt.beat = max(attempt.beat, beat, key=lambda beat: beat.seconds)
            if result is None:
                waiting.append(attempt)
            else:
                yield attempt, result
        self._report([attempt.beat for attempt in self._running if attempt.beat.seconds])
        states = self.executor.states([attempt.handle for attempt in waiting]) if waiting else {}
        for attempt in waiting:
            end = self._end_of(attempt, states[attempt.handle])
            if end is not None:
                result = read_result(attempt.folder)
                yield attempt, result or GroupResult(error=end.reason, fault=end.fault)

    def _end_of(self, attempt: _Attempt, state: State) -> Ended | None:
        """Return how a group ended without a result; None while a result may still appear."""
        if attempt.watch is None and (attempt.beat.seconds or state == "running"):
            attempt.watch = Watch(self._patience)
        if isinstance(state, Ended):
            now = time.monotonic()
            attempt.ended = attempt.ended or now
            if attempt.watch is not None and not attempt.beat.seconds:
                # It was killed before its first beat.
                seconds = attempt.ended - attempt.watch.begun
                attempt.beat = attempt.beat.model_copy(update={"seconds": seconds})
            if now - attempt.ended < LOOKS * self.executor.poll:
                return None
            return Ended(f"{state.reason}; {last_words(attempt.folder)}", state.fault)
        reason = attempt.watch.overdue(attempt.beat) if attempt.watch is not None else None
        if reason is None:
            return None
        self.executor.cancel([attempt.handle])
        return Ended(reason)
