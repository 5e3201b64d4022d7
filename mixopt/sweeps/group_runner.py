"""Train groups of trials on an executor: what is the same wherever they train.

A group is handed out as a folder; results are taken from it, and the folder goes once they are
kept. A worker without a beat or without progress for too long is ended. What an owner that was
killed has left is found by the names of folders: a result is taken, and what still trains is
followed where the executor says that it outlives its owner.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mixopt.errors import CorpusError, MixoptError, RunError
from mixopt.sweeps.contract import (
    NOWHERE,
    PATIENCE,
    Ended,
    Executor,
    Fault,
    Job,
    Place,
    Site,
    State,
)
from mixopt.sweeps.group_folder import (
    HANDLE,
    RESULT,
    Beat,
    Group,
    GroupResult,
    check_marks,
    corpus_marks,
    folder_name,
    read_beat,
    read_result,
)
from mixopt.sweeps.result_files import SIZES, WORK, result_from_json
from mixopt.system import read_json, read_text, write_json, write_text
from mixopt.trials import Progress, Trial, TrialResult

STARTING = 15.0  # seconds; an import of a large library lets no other thread run
STEPS = 5
MAX_TICK = 1.0  # more than this between two looks was spent suspended
BUSY = 0.1  # of a core: a heart alone takes a hundredth of it
LOOKS = 10  # until the end of a program that has left no result is believed
_STEPPING = ("training", "evaluating")
_Sizes = dict[str, Annotated[int, Field(ge=1, le=1_000_000)]]
Report = Callable[[int, Progress, Place], None]


@dataclass(frozen=True)
class GroupOutcome:
    """What became of a group.

    Attributes:
        group: Its number.
        results: Those of its trials that have one, in the order of the group.
        reason: Why the others have none; None where the place takes no more of them at once.
        fault: What may be different another time. None where the proxy itself gave the reason.
        place: Where it was.
        seconds: How long it was there.
        trained: How many trials were trained together; all of them when None.
    """

    group: int
    results: Sequence[TrialResult] = ()
    reason: str | None = None
    fault: Fault | None = None
    place: Place = NOWHERE
    seconds: float = 0.0
    trained: int | None = None


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
        self._seen = clock()
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
        doing = self._beat.doing
        silence = max(self.patience, STARTING) if doing == "starting" else self.patience
        stillness = self.patience if doing in _STEPPING else max(self.patience, PATIENCE)
        if self._silent > silence:
            return _overdue("sent no heartbeat", self._silent, doing, silence)
        if self._still > stillness:
            reason = _overdue("made no progress", self._still, doing, stillness)
            return f"{reason}; raise sweep.patience if a step takes so long"
        return None

    def _tick(self) -> None:
        now = self._clock()
        passed = min(now - self._seen, MAX_TICK)
        self._seen = now
        self._silent += passed
        self._still += passed


def _overdue(lacking: str, waited: float, doing: str, limit: float) -> str:
    return (
        f"the worker {lacking} for {waited:.1f} s while {doing}, longer than its patience of"
        f" {limit:.1f} s, and was killed"
    )


@dataclass
class _Attempt:
    """A group that was handed out.

    Attributes:
        trials: Its members.
        folder: Where it trains.
        handle: What the executor calls it.
        watch: Of its worker, once that has begun.
        beat: The last one.
        ended: When its program was first seen to be gone.
    """

    trials: Sequence[Trial]
    folder: Path
    handle: str = ""
    watch: Watch | None = None
    beat: Beat = field(default_factory=Beat)
    ended: float | None = None


class GroupRunner:
    """Trains groups on an executor; use as a context manager, which ends what it started."""

    def __init__(
        self, job: Job, site: Site, executor: Executor, patience: float = PATIENCE
    ) -> None:
        """Note what there is; nothing is started yet."""
        self._job, self._executor, self._patience = job, executor, patience
        self._work, self._sizes_file = site.folder / WORK, site.folder / SIZES
        self._marks = corpus_marks(job.corpus)
        self._sizes: dict[str, int] = {}
        with suppress(RunError):
            self._sizes = read_json(self._sizes_file, _Sizes) if self._sizes_file.exists() else {}
        self._short: dict[str, int] = {}
        self._running: dict[int, _Attempt] = {}
        self._begun: set[Path] = set()

    def __enter__(self) -> GroupRunner:
        """Begin; nothing is started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End what trains, and what another owner has left; results that are there stay."""
        left = {one.folder: one.handle for one in self._running.values()}
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

    def group_size(self) -> int:
        """Return how many trials go together, measured once; where they train, not here."""
        if not self._sizes:
            answer = self._asked()
            if answer.fault is not None:
                answer = self._asked()
            if answer.tuned is None:
                raise MixoptError(answer.error or "the worker's answer cannot be used: no size")
            self._sizes[answer.place.kind] = answer.tuned
            write_json(self._sizes_file, self._sizes)
        return max(self._sizes.values())

    def run(self, groups: Mapping[int, Sequence[Trial]], report: Report) -> Iterator[GroupOutcome]:
        """Train the groups, as many at once as there is room for."""
        handed: set[int] = set()
        while True:
            waiting = [number for number in groups if number not in handed]
            room = len(waiting)
            if not self._executor.queues:
                room = max(0, self.slots - len(self._running))
            handed |= set(waiting[:room])
            self._begin({number: groups[number] for number in waiting[:room]})
            if not self._running:
                return
            for number, one, result in list(self._ended(report)):
                self._marks = check_marks(self._job.corpus, self._marks)
                if result.refuses_corpus:
                    raise CorpusError(result.error or "")
                del self._running[number]
                yield self._outcome(number, one, result)
                shutil.rmtree(one.folder, ignore_errors=True)

    def _asked(self) -> GroupResult:
        """Return how many trials go together, or why that is not known."""
        self._begin({-1: ()})
        ended: list[tuple[int, _Attempt, GroupResult]] = []
        while not ended:
            ended = list(self._ended(lambda *_: None))
        _, one, result = ended[0]
        self._running.clear()
        shutil.rmtree(one.folder, ignore_errors=True)
        return result

    def _begin(self, groups: Mapping[int, Sequence[Trial]]) -> None:
        """Hand out groups, or follow what another owner has handed out."""
        fresh: list[_Attempt] = []
        for number, trials in groups.items():
            one = self._running[number] = self._adopted(trials) or self._made(trials)
            if not one.handle and not (one.folder / RESULT).exists():
                fresh.append(one)
        handles = self._executor.start([one.folder for one in fresh]) if fresh else []
        for one, handle in zip(fresh, handles, strict=True):
            one.handle = handle
            if self._executor.outlives_owner:
                write_text(one.folder / HANDLE, handle)

    def _adopted(self, trials: Sequence[Trial]) -> _Attempt | None:
        """Return the last attempt of an earlier owner, where that is of use."""
        left = self._attempts(trials)
        if not left or left[-1] in self._begun:
            return None
        handle = left[-1] / HANDLE
        if (left[-1] / RESULT).exists():
            return _Attempt(trials, left[-1])
        if self._executor.outlives_owner and handle.exists():
            return _Attempt(trials, left[-1], read_text(handle))
        for folder in left:  # what trains there sees that its folder is gone, and ends
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def _made(self, trials: Sequence[Trial]) -> _Attempt:
        last = self._attempts(trials)[-1:]
        # Never a number again: a worker that was given up may still write to its folder.
        number = int(last[0].suffix[1:]) + 1 if last else len(self._begun)
        name = folder_name(self._job, trials, self._marks)
        folder = self._work / f"{name}.{number}"
        folder.mkdir(parents=True)
        self._begun.add(folder)
        beat_every = min(1.0, self._patience / 10)
        Group(self._job, trials, self._sizes, beat_every).write(folder)
        return _Attempt(trials, folder)

    def _attempts(self, trials: Sequence[Trial]) -> list[Path]:
        """Return the folders of a group, the last attempt's last."""
        name = folder_name(self._job, trials, self._marks)
        found = [path for path in self._work.glob(f"{name}.*") if path.suffix[1:].isdecimal()]
        return sorted(found, key=lambda path: int(path.suffix[1:]))

    def _ended(self, report: Report) -> Iterator[tuple[int, _Attempt, GroupResult]]:
        """Wait a moment, and yield the groups that have ended by then."""
        time.sleep(self._executor.poll)
        waiting = {}
        for number, one in self._running.items():
            result = read_result(one.folder)
            if result is not None:
                yield number, one, result
            else:
                waiting[number] = one
        states = self._executor.states([one.handle for one in waiting.values()]) if waiting else {}
        for number, one in waiting.items():
            ended = self._looked_at(number, one, states[one.handle], report)
            if ended is not None:
                yield number, one, read_result(one.folder) or ended

    def _looked_at(
        self, number: int, one: _Attempt, state: State, report: Report
    ) -> GroupResult | None:
        """Return that a group has ended without a result; None while it may have one."""
        beat = read_beat(one.folder)
        if one.watch is None and (beat is not None or state == "running"):
            one.watch = Watch(self._patience)
        if beat is not None and beat.number != one.beat.number and one.watch is not None:
            one.beat = beat
            one.watch.hear(beat)
            report(number, Progress(beat.done, beat.total, beat.doing), beat.place)
        if isinstance(state, Ended):
            one.ended = one.ended or time.monotonic()
            if time.monotonic() - one.ended < LOOKS * self._executor.poll:
                return None
            return self._without(one, state.reason, state.fault)
        reason = one.watch.overdue() if one.watch is not None else None
        if reason is None:
            return None
        self._executor.cancel([one.handle])
        return self._without(one, reason, "died")

    def _without(self, one: _Attempt, reason: str, fault: Fault) -> GroupResult:
        trained = min(len(one.trials), self._sizes.get(one.beat.place.kind, len(one.trials)))
        return GroupResult(
            error=reason,
            fault=fault,
            trained=trained,
            seconds=one.beat.seconds,
            place=one.beat.place,
        )

    def _outcome(self, number: int, one: _Attempt, found: GroupResult) -> GroupOutcome:
        members = one.trials[: found.trained or len(one.trials)]
        results, reason = list[TrialResult](), found.error
        if found.fault == "memory":
            self._short_of_memory(found.place.kind, len(members))
        if reason is None:
            try:
                results = [result_from_json(entry) for entry in found.results]
                if [result.trial for result in results] != [trial.name for trial in members]:
                    raise RunError("it has results of other trials than it was given")
            except RunError as error:
                results, reason = [], f"the worker's answer cannot be used: {error}"
        place = found.place if found.place.node else replace(found.place, node="unknown")
        seconds = max(found.seconds, one.beat.seconds)
        return GroupOutcome(
            number, results, reason, found.fault, place, seconds, max(1, len(members))
        )

    def _short_of_memory(self, kind: str, trials: int) -> None:
        """Note that memory was short: twice on a kind of device, and it takes half as many."""
        before = self._short.get(kind)
        self._short[kind] = trials if before is None else min(trials, before)
        if before is not None and kind in self._sizes:
            self._sizes[kind] = max(1, min(self._sizes[kind], max(trials, before) // 2))
            write_json(self._sizes_file, self._sizes)


def pending(work: Path) -> dict[Path, str]:
    """Return the handles of the folders without a result, where they outlive their owner."""
    found = {}
    for path in sorted(work.glob(f"*/{HANDLE}")):
        if not (path.parent / RESULT).exists():
            with suppress(MixoptError):
                found[path.parent] = read_text(path)
    return found
