"""Train groups of trials on an executor: what is the same wherever they train.

A group is handed out as a folder; results are taken from it, and the folder goes once they are
kept. A worker that makes no progress for too long is ended. What an owner that was killed has left
is found by the names of folders: a result is taken, and what still trains is followed where the
executor says that it outlives its owner.
"""

from __future__ import annotations

import glob
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mixopt.corpus import Corpus
from mixopt.errors import CorpusError, RunError
from mixopt.sweeps.contract import PATIENCE, Ended, Executor, Fault, Job, State
from mixopt.sweeps.group_folder import (
    HANDLE,
    Beat,
    GroupResult,
    corpus_marks,
    folder_name,
    has_result,
    last_words,
    pending,
    read_beat,
    read_result,
    write_group,
)
from mixopt.sweeps.trial_files import WORK, result_from_json
from mixopt.system import read_text, write_text
from mixopt.trials import Trial, TrialResult

MAX_TICK = 1.0  # more than this between two looks was spent suspended
LOOKS = 10  # until the end of a program that has left no result is believed
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
            one.beat = max(one.beat, read_beat(one.folder), key=lambda beat: beat.seconds)
            result = read_result(one.folder)
            if result is None:
                waiting.append(one)
            else:
                yield one, result
        report([one.beat for one in waiting if one.beat.seconds])
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
