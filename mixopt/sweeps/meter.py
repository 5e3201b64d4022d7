"""Add up what the groups of a sweep report, for the progress bar and `mixopt status`."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mixopt.sweeps.attempts import Attempts
from mixopt.sweeps.contract import Place
from mixopt.sweeps.ledger import AttemptRecord
from mixopt.sweeps.progress_file import GroupState, SweepState, this_process
from mixopt.sweeps.totals import sweep_totals
from mixopt.system import Update
from mixopt.trials import Progress, TrialResult

TUNING = -1  # the number of no group: a worker finds out how large groups should be


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
        """Begin with what is there.

        Args:
            trials: How many there will be in all.
            tokens: Training tokens of one.
            results: Of those that have ended.
            update: Called with the tokens so far and a note.
            records: The attempts that have ended.
        """
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
            process=this_process(),
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
        return GroupState(
            doing=entry.progress.doing,
            trials=self._names(group),
            node=entry.place.node,
            kind=entry.place.kind,
            gpus=entry.place.gpus,
            seconds=seconds,
            done=done,
            total=entry.progress.total,
            tokens_per_second=done / seconds if done and seconds > 0 else None,
        )

    def _names(self, group: int) -> list[str]:
        waiting = {} if self._attempts is None else self._attempts.waiting
        return [trial.name for trial in waiting.get(group, ())]

    def _done(self) -> int:
        running = sum(entry.progress.done for entry in self._running.values())
        return self._ended * self._tokens + running

    def _rate(self) -> float | None:
        moved = self._done() - self._before
        if self._start is None or moved <= 0:
            return None
        return moved / max(time.monotonic() - self._start, 1e-3)

    def _show(self) -> None:
        self._update(self._done(), f"{self._ended}/{self._trials} trials, {self._pace()}")

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
