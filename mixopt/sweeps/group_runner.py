"""Train groups of trials on an executor: what is the same wherever they train.

A group is handed out as a folder; results are taken from it, and the folder goes once they are
kept. A worker without a beat or without progress for too long is ended. What an owner that was
killed has left is found by the names of folders: a result is taken, and what still trains is
followed where the executor says that it outlives its owner.
"""

from __future__ import annotations

import glob
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mixopt.corpus import Corpus
from mixopt.errors import CorpusError, MixoptError, RunError
from mixopt.sweeps.contract import (
    NOWHERE,
    PATIENCE,
    Ended,
    Executor,
    Fault,
    Job,
    Place,
    State,
)
from mixopt.sweeps.group_folder import (
    HANDLE,
    RESULT,
    Beat,
    Group,
    GroupResult,
    corpus_marks,
    folder_name,
    pending,
    read_beat,
    read_result,
)
from mixopt.sweeps.trial_files import SIZES, WORK, result_from_json
from mixopt.system import read_json, read_text, write_json, write_text
from mixopt.trials import Trial, TrialResult

STARTING = 15.0  # seconds; an import of a large library lets no other thread run
STEPS = 5
MAX_TICK = 1.0  # more than this between two looks was spent suspended
BUSY = 0.1  # of a core: a heart alone takes a hundredth of it
LOOKS = 10  # until the end of a program that has left no result is believed
_STEPPING = ("training", "evaluating")
_Sizes = dict[str, Annotated[int, Field(ge=1, le=1_000_000)]]
Report = Callable[[Sequence[Trial], Beat], None]


@dataclass(frozen=True)
class GroupOutcome:
    """What became of a group.

    Attributes:
        trials: Those that were trained together.
        left: Those that its place took no more of at once.
        results: One a trial, in their order; none where there is a reason.
        reason: Why there are no results.
        fault: What may be different another time. None where the proxy itself gave the reason.
        place: Where it was.
        seconds: How long it was there.
        cpu: Seconds that its processes have computed for.
    """

    trials: Sequence[Trial]
    left: Sequence[Trial] = ()
    results: Sequence[TrialResult] = ()
    reason: str | None = None
    fault: Fault | None = None
    place: Place = NOWHERE
    seconds: float = 0.0
    cpu: float = 0.0


class Watch:
    """How long one worker has been silent, and how long it has stood still.

    A beat comes from a thread of the worker's own, so that a long step does not look like a death;
    it says how often the worker has moved on, so that a main thread that waits forever does not
    look alive. The patience is that of the sweep, or five times the slowest step so far. While a
    worker starts or compiles it may stand still for ten minutes: nothing reports from within an
    import or a compiler. A proxy that has reported nothing yet is given the time in which it
    computes. Time counts while the watcher itself runs: one that was suspended kills nobody.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._given, self._clock = patience, clock
        self._seen = self.begun = clock()
        self._silent = self._still = self._slowest = 0.0
        self._beat = Beat()

    @property
    def patience(self) -> float:
        """How long it may be silent, in seconds."""
        return max(self._given, STEPS * self._slowest)

    def hear(self, beat: Beat) -> None:
        """Note a beat."""
        self._tick()
        if beat.moves != self._beat.moves:
            if self._beat.doing in _STEPPING and self._beat.total:
                self._slowest = max(self._slowest, self._still)
            self._still = 0.0
        elif not beat.total and beat.cpu - self._beat.cpu > BUSY * self._silent:
            self._still = 0.0
        self._silent, self._beat = 0.0, beat

    def overdue(self) -> str | None:
        """Return why the worker is to be ended; None while there is hope."""
        self._tick()
        doing, patience = self._beat.doing, self.patience
        silence = max(patience, STARTING) if doing == "starting" else patience
        stillness = patience if doing in _STEPPING else max(patience, PATIENCE)
        if self._silent > silence:
            what, waited, limit, hint = "sent no heartbeat", self._silent, silence, ""
        elif self._still > stillness:
            what, waited, limit = "made no progress", self._still, stillness
            hint = "; raise sweep.patience if a step takes so long"
        else:
            return None
        return (
            f"the worker {what} for {waited:.1f} s while {doing}, longer than its patience of"
            f" {limit:.1f} s, and was killed{hint}"
        )

    def _tick(self) -> None:
        now = self._clock()
        passed = min(now - self._seen, MAX_TICK)
        self._seen = now
        self._silent += passed
        self._still += passed


@dataclass
class _Attempt:
    """A group that was handed out; `ended` is when its program was first seen to be gone."""

    trials: Sequence[Trial]
    folder: Path
    handle: str = ""
    watch: Watch | None = None
    beat: Beat = field(default_factory=Beat)
    ended: float | None = None


class GroupRunner:
    """Trains groups on an executor; use as a context manager, which ends what it started."""

    def __init__(
        self, job: Job, folder: Path, executor: Executor, patience: float = PATIENCE
    ) -> None:
        """Note what there is; nothing is started yet."""
        self._job, self._executor, self._patience = job, executor, patience
        self._work, self._sizes_file = folder / WORK, folder / SIZES
        self._marks = corpus_marks(job.corpus)
        self._sizes: dict[str, int] = {}
        with suppress(RunError):
            self._sizes = read_json(self._sizes_file, _Sizes) if self._sizes_file.exists() else {}
        self._short: dict[str, int] = {}
        self._running: list[_Attempt] = []
        self._mine: set[Path] = set()

    def __enter__(self) -> GroupRunner:
        """Begin; nothing is started yet, and what a killed owner's workers left half done goes."""
        for folder in () if self._executor.outlives_owner else self._work.glob("*.*"):
            if not (folder / RESULT).exists():  # a worker that is still there ends then
                shutil.rmtree(folder, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        """End what trains, and what another owner has left; results that are there stay."""
        left = {one.folder: one.handle for one in self._running}
        if self._executor.outlives_owner:
            left = pending(self._work) | left
        try:
            self._executor.cancel([handle for handle in left.values() if handle])
            for folder in left:
                if not (folder / RESULT).exists():
                    shutil.rmtree(folder, ignore_errors=True)
        finally:
            self._executor.close()

    @property
    def slots(self) -> int:
        """How many groups train at once."""
        return self._executor.slots

    def group_size(self, report: Report = lambda *_: None) -> int:
        """Return how many trials go together, measured once; where they train, not here."""
        for last in (False, True):
            if self._sizes:
                break
            self._begin([()])
            ended: list[tuple[_Attempt, GroupResult]] = []
            while not ended:
                ended = list(self._ended(report))
            ((attempt, result),) = ended
            self._running.clear()
            shutil.rmtree(attempt.folder, ignore_errors=True)
            if result.tuned is not None:
                self._sizes[result.place.kind] = result.tuned
                write_json(self._sizes_file, self._sizes)
            elif last or result.fault is None:
                raise MixoptError(result.error or "the worker's answer cannot be used: no size")
        return max(self._sizes.values())

    def run(
        self, groups: Sequence[Sequence[Trial]], report: Report = lambda *_: None
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
                self._check_corpus(result)
                self._running.remove(attempt)
                yield self._outcome(attempt, result)
                shutil.rmtree(attempt.folder, ignore_errors=True)

    def _check_corpus(self, result: GroupResult) -> None:
        """Check that a group was trained on the files that the sweep began with."""
        if result.refuses_corpus:
            raise CorpusError(result.error or "")
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
        attempts = [self._adopted(trials) or self._made(trials) for trials in groups]
        self._running += attempts
        fresh = [one for one in attempts if not one.handle and not (one.folder / RESULT).exists()]
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
        Group(self._job, trials, self._sizes, min(1.0, self._patience / 10)).write(folder)
        return _Attempt(trials, folder)

    def _ended(self, report: Report) -> Iterator[tuple[_Attempt, GroupResult]]:
        """Wait a moment, and yield the groups that have ended by then."""
        time.sleep(self._executor.poll)
        waiting = []
        for one in self._running:
            result = read_result(one.folder)
            if result is not None:
                yield one, result
            else:
                waiting.append(one)
        states = self._executor.states([one.handle for one in waiting]) if waiting else {}
        for one in waiting:
            ended = self._seen(one, states[one.handle], report)
            if ended is not None:
                yield one, read_result(one.folder) or self._without(one, ended)

    def _seen(self, one: _Attempt, state: State, report: Report) -> Ended | None:
        """Return how a group has ended without a result; None while it may have one."""
        beat = read_beat(one.folder)
        if one.watch is None and (beat is not None or state == "running"):
            one.watch = Watch(self._patience)
        if one.watch is not None and beat is not None and beat.number != one.beat.number:
            one.beat = beat
            one.watch.hear(beat)
            report(one.trials, beat)
        if isinstance(state, Ended):
            one.ended = one.ended or time.monotonic()
            waited = time.monotonic() - one.ended
            return None if waited < LOOKS * self._executor.poll else state
        reason = one.watch.overdue() if one.watch is not None else None
        if reason is None:
            return None
        self._executor.cancel([one.handle])
        return Ended(reason)

    def _without(self, one: _Attempt, ended: Ended) -> GroupResult:
        place, members = one.beat.place, len(one.trials)
        until = one.ended or time.monotonic()
        return GroupResult(
            error=ended.reason,
            fault=ended.fault,
            trained=min(members, self._sizes.get(place.kind, members)),
            seconds=one.beat.seconds or (until - one.watch.begun if one.watch else 0.0),
            place=place,
        )

    def _outcome(self, one: _Attempt, result: GroupResult) -> GroupOutcome:
        count = result.trained or len(one.trials)
        members, results, reason = one.trials[:count], list[TrialResult](), result.error
        if result.fault == "memory":
            self._short_of_memory(result.place.kind, len(members))
        if reason is None:
            try:
                results = [result_from_json(entry) for entry in result.results]
                if [one.trial for one in results] != [trial.name for trial in members]:
                    raise RunError("it has results of other trials than it was given")
            except RunError as error:
                results, reason = [], f"the worker's answer cannot be used: {error}"
        place = result.place if result.place.node else replace(result.place, node="unknown")
        return GroupOutcome(
            members,
            one.trials[count:],
            results,
            reason,
            result.fault,
            place,
            seconds=max(result.seconds, one.beat.seconds),
            cpu=max(result.cpu, one.beat.cpu),
        )

    def _short_of_memory(self, kind: str, trials: int) -> None:
        """Note that memory was short: twice on a kind of device, and it takes half as many."""
        before = self._short.get(kind)
        self._short[kind] = trials if before is None else min(trials, before)
        if before is not None and kind in self._sizes:
            self._sizes[kind] = max(1, min(self._sizes[kind], max(trials, before) // 2))
            write_json(self._sizes_file, self._sizes)
