"""How far a sweep is: for its bar, for other terminals (`.progress.json`), over time for MLflow.

The first file is written each second by a thread of its own and removed at the end. It is for
onlookers alone: nothing is resumed from it, and one that is damaged, or whose process is gone, is
as good as none. `metrics.jsonl` has a line every ten seconds at most, `{step, time, <key>: number,
...}`, which is what mixopt.tracking sends of any run; the step is the seconds since the first line.
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mixopt.errors import MixoptError
from mixopt.sweeps.attempts import Attempts
from mixopt.sweeps.contract import Place
from mixopt.sweeps.costs import (
    Amount,
    AttemptRecord,
    Count,
    Frozen,
    GroupState,
    sweep_totals,
)
from mixopt.sweeps.group_folder import write_quickly
from mixopt.system import Update, read_json
from mixopt.trials import Progress, TrialResult

FILE, METRICS = ".progress.json", "metrics.jsonl"
EVERY_SECONDS = 1.0
MAX_FILE = 4_000_000  # bytes
MIN_SECONDS, MAX_SECONDS = 1.0, 10.0  # between two lines of metrics, and
PART = 0.05  # of the time so far
TUNING = -1  # the number of no group: a worker finds out how large groups should be


class ProcessName(Frozen):
    """A process of some machine."""

    host: str
    pid: Annotated[int, Field(gt=0, lt=2**31)]


class SweepState(Frozen):
    """How far a sweep is; `failed` counts diverged trials too, and is part of `ended`.

    `lost` counts trials whose place went away, `retried` those that were handed out again, whatever
    the reason, since this owner began.
    """

    process: ProcessName
    updated: Amount
    trials: Count
    ended: Count
    failed: Count
    running: Count
    lost: Count = 0
    retried: Count = 0
    tokens_per_second: Amount | None
    left: Amount | None
    workers: list[GroupState]


@dataclass
class _Running:
    """A group that trains."""

    progress: Progress
    begun: float
    place: Place


class SweepMeter:
    """Trials done, running and failed; tokens a second; what each worker does."""

    def __init__(
        self,
        trials: int,
        tokens: int,
        results: Sequence[TrialResult],
        update: Update,
        records: Sequence[AttemptRecord] = (),
    ) -> None:
        """Begin with what is there."""
        self._records = list(records)
        self._trials, self._tokens, self._update = trials, tokens, update
        self._ended, self._failed = len(results), _unfinished(results)
        self._before = self._ended * tokens
        self._best = _lowest(results)
        self._start: float | None = None
        self._running: dict[int, _Running] = {}
        self._attempts: Attempts | None = None
        self._lock = threading.Lock()

    def tuning(self) -> None:
        """Note that a worker finds out how large groups should be."""
        self.report(TUNING, Progress(0, 0, "compiling"), Place())

    def tuned(self, attempts: Attempts) -> None:
        """Note that groups are formed; more may be added to them."""
        with self._lock:
            self._attempts = attempts
            self._running.pop(TUNING, None)

    def report(self, group: int, progress: Progress, place: Place) -> None:
        """Note the progress of a group that trains, and where."""
        now = time.monotonic()
        with self._lock:
            self._start = now if self._start is None and group != TUNING else self._start
            before = self._running.get(group)
            if before is None or (before.progress.total, before.place) != (progress.total, place):
                self._running[group] = _Running(progress, now, place)
            else:
                before.progress = progress
            self._show()

    def ended(self, group: int, results: Sequence[TrialResult]) -> None:
        """Note the end of a group, with the results that were not there before."""
        with self._lock:
            self._running.pop(group, None)
            self._ended += len(results)
            self._failed += _unfinished(results)
            self._best = min(self._best, _lowest(results))
            self._show()

    def noted(self, record: AttemptRecord) -> None:
        """Note an attempt that has ended."""
        with self._lock:
            self._records.append(record)

    def metrics(self) -> dict[str, float]:
        """Return what is shown over time: trials, tokens a second, hours."""
        state = self.state()
        with self._lock:
            records = [*self._records]
        totals = sweep_totals(records, state.workers, state.trials - state.ended)
        return {
            "trials/done": state.ended,
            "trials/running": state.running,
            "trials/failed": state.failed,
            "trials/lost": totals.lost,
            "trials/retried": totals.retried,
            "trials/tokens_per_second": state.tokens_per_second or 0.0,
            **({} if math.isinf(self._best) else {"trials/best_mean_loss": self._best}),
            **{f"trials/{name}": value for name, value in totals.hours.items()},
        }

    def state(self) -> SweepState:
        """Return all that is known now."""
        with self._lock:
            rate = self._rate()
            groups = [self._state_of(group, entry) for group, entry in self._running.items()]
            left = (self._trials * self._tokens - self._done()) / rate if rate else None
            attempts = self._attempts
        return SweepState(
            process=ProcessName(host=socket.gethostname(), pid=os.getpid()),
            updated=time.time(),
            trials=self._trials,
            ended=self._ended,
            failed=self._failed,
            running=sum(len(group.trials) for group in groups),
            lost=0 if attempts is None else attempts.lost,
            retried=0 if attempts is None else attempts.retried,
            tokens_per_second=rate,
            left=None if left is None else max(0.0, left),
            workers=groups,
        )

    def _state_of(self, group: int, entry: _Running) -> GroupState:
        seconds = time.monotonic() - entry.begun
        done = entry.progress.done
        waiting = {} if self._attempts is None else self._attempts.waiting
        return GroupState(
            doing=entry.progress.doing,
            trials=[trial.name for trial in waiting.get(group, ())],
            node=entry.place.node,
            kind=entry.place.kind,
            gpus=entry.place.gpus,
            seconds=seconds,
            done=done,
            total=entry.progress.total,
            tokens_per_second=done / seconds if done and seconds > 0 else None,
        )

    def _done(self) -> int:
        running = sum(entry.progress.done for entry in self._running.values())
        return self._ended * self._tokens + running

    def _rate(self) -> float | None:
        moved = self._done() - self._before
        if self._start is None or moved <= 0:
            return None
        return moved / max(time.monotonic() - self._start, 1e-3)

    def _show(self) -> None:
        failed = f", {self._failed} failed" if self._failed else ""
        note = f"{self._ended}/{self._trials} trials{failed}, {self._pace()}"
        self._update(self._done(), note)

    def _pace(self) -> str:
        """Return how fast trials train; before that, what the workers do."""
        rate = self._rate()
        if rate is not None:
            return f"{rate / 1000:,.0f}k tokens/s"
        doing = {entry.progress.doing for entry in self._running.values()}
        return "compiling" if "compiling" in doing else "starting"


def _lowest(results: Sequence[TrialResult]) -> float:
    """Return the lowest mean loss of all evaluation domains; infinity where no trial has one."""
    found = [one.losses.bits_per_byte or one.losses.nats_per_token for one in results if one.losses]
    return min((sum(each.values()) / len(each) for each in found if each), default=math.inf)


def _unfinished(results: Sequence[TrialResult]) -> int:
    return sum(result.status != "finished" for result in results)


@contextmanager
def shown_progress(folder: Path, meter: SweepMeter) -> Iterator[None]:
    """Keep the files of a folder of trials up to date while the block runs."""
    path, over, metrics = folder / FILE, threading.Event(), SweepMetrics(folder, meter.metrics)

    def write_on() -> None:
        ended = False
        while not ended:
            with suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
            write_quickly(path, meter.state().model_dump_json())
            metrics.note()
            ended = over.wait(EVERY_SECONDS)
        metrics.note(now=True)

    writer = threading.Thread(target=write_on, daemon=True)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()
        with suppress(OSError):
            path.unlink(missing_ok=True)


def read_progress(folder: Path) -> SweepState | None:
    """Return what a sweep that is running says; None where none runs, or the file is damaged."""
    path = folder / FILE
    with suppress(OSError, MixoptError):
        if path.is_file() and path.stat().st_size <= MAX_FILE:
            state: SweepState = read_json(path, SweepState)
            return state if _is_alive(state.process) else None
    return None


def _is_alive(process: ProcessName) -> bool:
    """Tell whether a process runs; of another machine, that cannot be told and is believed."""
    if process.host != socket.gethostname():
        return True
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


class SweepMetrics:
    """Appends lines of metrics; the first ones each second, later ones less often."""

    def __init__(
        self,
        folder: Path,
        values: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Continue the existing file."""
        self._path, self._values, self._clock = folder / METRICS, values, clock
        self._begun, self._last = _first_time(self._path), -1.0

    def note(self, *, now: bool = False) -> None:
        """Add a line, if the last one is old enough or `now`."""
        when = self._clock()
        if not now and 0 <= when - self._last < self._pause(when) and self._last >= 0:
            return
        self._begun = when if self._begun is None else self._begun
        self._last = when
        line = {"step": max(0, round(when - self._begun)), "time": round(when, 3)}
        with suppress(OSError), self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line | dict(self._values())) + "\n")

    def _pause(self, when: float) -> float:
        passed = 0.0 if self._begun is None else when - self._begun
        return min(max(MIN_SECONDS, PART * passed), MAX_SECONDS)


def _first_time(path: Path) -> float | None:
    """Return when the first line was written; None where there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError), path.open("rb") as stream:
        return float(json.loads(stream.readline(1 << 16))["time"])
    return None
