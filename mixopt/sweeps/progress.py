"""How far a sweep is and what it has cost: for its bar, for other terminals, over time for MLflow.

What each worker does is read from the beats of its groups' folders. `metrics.jsonl` has a line
every ten seconds at most, `{step, time, <key>: number, ...}`, which mixopt.tracking sends as it
does of any run; the step is the seconds since the first line. `attempts.jsonl` has a line for each
attempt that has ended:

    {"at": 1764151200.0, "trials": ["t0007"], "finished": 1, "outcome": "ended", "node": "n2",
     "kind": "cpu", "gpus": 0.0, "seconds": 12.3, "cpu": 11.9, "reason": null}

Nothing is resumed from them, so that a line that cannot be read is passed over. An hour of a GPU
counts for each GPU that a worker has; where it has none, the hours count for which its processes
have computed. Attempts that came to nothing count too.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mixopt.errors import MixoptError
from mixopt.sweeps.group_folder import RESULT, Beat, Group, read_beat
from mixopt.sweeps.group_runner import GroupOutcome
from mixopt.sweeps.trial_files import WORK
from mixopt.system import Update, checked_as, parse_json
from mixopt.trials import Doing, Trial, TrialResult

METRICS, ATTEMPTS = "metrics.jsonl", "attempts.jsonl"
HOUR = 3600.0
MIN_SECONDS, MAX_SECONDS = 1.0, 10.0  # between two lines of metrics, and
PART = 0.05  # of the time so far
MAX_LINE = 1 << 20  # bytes
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class GroupState:
    """What one worker does: with which trials, how far, how fast and where; none while it tunes."""

    doing: Doing
    trials: list[str]
    done: int
    total: int
    tokens_per_second: float | None
    node: str = ""
    kind: str = "cpu"
    gpus: float = 0.0
    seconds: float = 0.0
    cpu: float = 0.0


def group_state(folder: Path) -> GroupState:
    """Return what the folder of a group says."""
    beat = read_beat(folder) or Beat()
    return _state_of([trial.name for trial in Group.read(folder).trials], beat)


def read_progress(folder: Path) -> list[GroupState]:
    """Return what the workers of a sweep do, as their last beats say."""
    states = []
    for place in sorted((folder / WORK).glob("*.*")):
        with suppress(MixoptError, OSError, TypeError, KeyError):
            if not (place / RESULT).exists() and read_beat(place) is not None:
                states.append(group_state(place))
    return states


def _state_of(trials: list[str], beat: Beat) -> GroupState:
    rate = beat.done / beat.seconds if beat.done and beat.seconds else None
    place = beat.place
    return GroupState(
        beat.doing, trials, beat.done, beat.total, rate,
        place.node, place.kind, place.gpus, beat.seconds, beat.cpu,
    )  # fmt: skip


class AttemptRecord(BaseModel):
    """One attempt at a group.

    Attributes:
        at: When it ended, in seconds since 1970.
        trials: What was trained together.
        finished: How many of them have a result.
        outcome: `ended` with results; `failed` for a reason of the proxy's; or the fault.
        node: Where.
        kind: On which kind of device.
        gpus: How many of them.
        seconds: How long.
        cpu: Seconds that its processes have computed for.
        reason: Why there is no result.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    at: Amount
    trials: list[str]
    finished: Annotated[int, Field(ge=0)]
    outcome: Literal["ended", "failed", "died", "memory", "lost"]
    node: str
    kind: str
    gpus: Amount
    seconds: Amount
    cpu: Amount = 0.0
    reason: str | None = None


def note_attempt(folder: Path, outcome: GroupOutcome) -> AttemptRecord:
    """Add a line, and return it; a disk that cannot be written to ends no sweep."""
    record = AttemptRecord(
        at=time.time(),
        trials=[trial.name for trial in outcome.trials],
        finished=len(outcome.results),
        outcome=outcome.fault or ("failed" if outcome.reason else "ended"),
        node=outcome.place.node,
        kind=outcome.place.kind,
        gpus=outcome.place.gpus,
        seconds=outcome.seconds,
        cpu=outcome.cpu,
        reason=outcome.reason,
    )
    _append(folder / ATTEMPTS, record.model_dump_json())
    return record


def _append(path: Path, line: str) -> None:
    """Add a line to a file of the sweep's own: a link may lead to anybody's, and is left alone."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with suppress(OSError), open(path, "a", opener=lambda p, _: os.open(p, flags, 0o666)) as stream:
        if os.fstat(stream.fileno()).st_nlink == 1:
            stream.write(f"{line}\n")


def read_attempts(folder: Path) -> list[AttemptRecord]:
    """Return the attempts so far, in the order they ended; none where there is no file."""
    records: list[AttemptRecord] = []
    with suppress(OSError), (folder / ATTEMPTS).open("rb") as stream:
        while line := stream.readline(MAX_LINE):
            with suppress(MixoptError):
                records.append(checked_as(AttemptRecord, parse_json(line, ATTEMPTS), ATTEMPTS))
    return records


def sweep_totals(
    attempts: Sequence[AttemptRecord], running: Sequence[GroupState], left: int
) -> dict[str, Any]:
    """Add up what a sweep has cost, and may still cost where so many trials are left.

    Returns:
        `lost`, trials that were lost with the place where they trained; `retried`, attempts at
        trials that were not the first; `gpu_hours` and `cpu_hours` (of workers without a GPU) so
        far, of groups that train now too; `gpu_hours_to_go` and `cpu_hours_to_go` at the cost of a
        trial so far, None before one has ended; and `nodes`, a row for each kind of device of a
        node: its `workers` and their trials (`running`) now, trials `done` and `lost` there,
        `tokens_per_second` of what trains, hours.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    entries: list[AttemptRecord | GroupState] = [*attempts, *running]
    for entry in entries:
        place = {"node": entry.node, "kind": entry.kind}
        counts = dict.fromkeys(("workers", "running", "done", "lost"), 0)
        blank = {**place, **counts, "tokens_per_second": None, "gpu_hours": 0.0, "cpu_hours": 0.0}
        row = rows.setdefault((entry.node, entry.kind), blank)
        for unit, hours in _hours(entry).items():
            row[unit] += hours
        if isinstance(entry, AttemptRecord):
            row["done"] += entry.finished
            row["lost"] += len(entry.trials) * (entry.outcome == "lost")
            continue
        row["workers"] += 1
        row["running"] += len(entry.trials)
        if entry.tokens_per_second is not None:
            row["tokens_per_second"] = (row["tokens_per_second"] or 0.0) + entry.tokens_per_second
    # Trials that need no further attempt, as far as attempts tell.
    ended = sum(len(a.trials) if a.outcome == "failed" else a.finished for a in attempts)
    times = Counter(trial for attempt in attempts for trial in attempt.trials)
    so_far = {unit: sum(row[unit] for row in rows.values()) for unit in ("gpu_hours", "cpu_hours")}
    now = {unit: sum(_hours(group)[unit] for group in running) for unit in so_far}
    to_go = {unit: _to_go(so_far[unit], now[unit], ended, left) for unit in so_far}
    return {
        "lost": sum(row["lost"] for row in rows.values()),
        "retried": sum(count - 1 for count in times.values()),
        **so_far,
        **{f"{unit}_to_go": hours for unit, hours in to_go.items()},
        "nodes": [rows[key] for key in sorted(rows)],
    }


def _hours(entry: AttemptRecord | GroupState) -> dict[str, float]:
    """Return what a group has cost: an hour of each GPU, or of computing where it has none."""
    cpu = 0.0 if entry.gpus else entry.cpu / HOUR
    return {"gpu_hours": entry.seconds * entry.gpus / HOUR, "cpu_hours": cpu}


def _to_go(so_far: float, now: float, ended: int, left: int) -> float | None:
    """Return hours: a trial costs what one that has ended did, and some of it is spent."""
    return max(0.0, (so_far - now) / ended * left - now) if ended else None


def seconds_left(
    attempts: Sequence[AttemptRecord], running: Sequence[GroupState], left: int
) -> float | None:
    """Return how long so many trials take as those that have ended did, evaluation included."""
    spent = sum(attempt.seconds for attempt in attempts)
    ended = sum(attempt.finished for attempt in attempts)
    if not ended or not running:
        return None
    rest = spent / ended * left - sum(group.seconds for group in running)
    return max(0.0, rest / len(running))


class SweepMeter:
    """Shows how far a sweep is, and notes it over time; use as a context manager."""

    def __init__(
        self,
        folder: Path,
        trials: int,
        tokens: int,
        results: Mapping[str, TrialResult],
        update: Update,
    ) -> None:
        """Begin with what is there, and continue the existing files."""
        self._folder, self._trials, self._tokens, self._update = folder, trials, tokens, update
        self._records = read_attempts(folder)
        self._ended = self._failed = 0
        self._best = math.inf
        self._running: dict[str, GroupState] = {}
        self._trained_after: dict[str, float] = {}  # seconds until a group had seen all its tokens
        self._training = self._evaluating = 0.0  # seconds of groups that have ended
        self._count(list(results.values()))
        self._before = self._ended * tokens
        self._start: float | None = None
        self._metrics_begun, self._metrics_last = _first_time(folder / METRICS), -math.inf

    def __enter__(self) -> SweepMeter:
        """Note how it is at the beginning."""
        self.note_metrics()
        return self

    def __exit__(self, *_: object) -> None:
        """Note how it is at the end."""
        self.note_metrics(now=True)

    def report(self, trials: Sequence[Trial], beat: Beat) -> None:
        """Note the progress of a group that trains, and where; of no trials where it tunes."""
        names = [trial.name for trial in trials]
        if self._start is None and names:
            self._start = time.monotonic()
        self._running[names[0] if names else ""] = _state_of(names, beat)
        if names:
            self._running.pop("", None)
            if beat.done >= beat.total > 0:
                self._trained_after.setdefault(names[0], beat.seconds)
        self._show()

    def ended(self, outcome: GroupOutcome, results: Sequence[TrialResult]) -> None:
        """Note the end of an attempt, with the results that were not there before."""
        self._records.append(note_attempt(self._folder, outcome))
        name = outcome.trials[0].name
        self._running.pop(name, None)
        trained = self._trained_after.pop(name, outcome.seconds)
        if outcome.results:
            self._training += trained
            self._evaluating += max(0.0, outcome.seconds - trained)
        self._count(results)
        self._show()

    def metrics(self) -> dict[str, float]:
        """Return what is shown over time: trials, tokens a second, hours."""
        running = list(self._running.values())
        totals = sweep_totals(self._records, running, self._trials - self._ended)
        unit = "gpu" if totals["gpu_hours"] or not totals["cpu_hours"] else "cpu"
        hours = {name: totals[name] for name in (f"{unit}_hours", f"{unit}_hours_to_go")}
        return {
            "trials/done": self._ended,
            "trials/running": sum(len(state.trials) for state in running),
            "trials/failed": self._failed,
            "trials/lost": totals["lost"],
            "trials/retried": totals["retried"],
            "trials/tokens_per_second": self._rate() or 0.0,
            **({} if math.isinf(self._best) else {"trials/best_mean_loss": self._best}),
            **{f"trials/{name}": one for name, one in hours.items() if one is not None},
        }

    def note_metrics(self, *, now: bool = False) -> None:
        """Add a line of metrics, if the last one is old enough or `now`."""
        when = time.time()
        begun = self._metrics_begun = when if self._metrics_begun is None else self._metrics_begun
        pause = min(max(MIN_SECONDS, PART * (when - begun)), MAX_SECONDS)
        if not now and 0 <= when - self._metrics_last < pause:
            return
        self._metrics_last = when
        line = {"step": max(0, round(when - begun)), "time": round(when, 3), **self.metrics()}
        _append(self._folder / METRICS, json.dumps(line))

    def _count(self, results: Sequence[TrialResult]) -> None:
        self._ended += len(results)
        self._failed += sum(result.status != "finished" for result in results)
        losses = [
            one.losses.bits_per_byte or one.losses.nats_per_token for one in results if one.losses
        ]
        self._best = min([self._best, *(sum(by.values()) / len(by) for by in losses if by)])

    def _done(self) -> float:
        """Return the tokens so far; of a group that trains, less the part that evaluation takes."""
        spent = self._training + self._evaluating
        part = self._training / spent if spent else 1.0
        running = sum(state.done for state in self._running.values())
        return self._ended * self._tokens + part * running

    def _rate(self) -> float | None:
        """Return the tokens a second since the first beat; None before any has trained."""
        moved = self._done() - self._before
        if self._start is None or moved <= 0:
            return None
        return moved / max(time.monotonic() - self._start, 1e-3)

    def _show(self) -> None:
        failed = f", {self._failed} failed" if self._failed else ""
        rate, doing = self._rate(), {state.doing for state in self._running.values()}
        pace = "compiling" if "compiling" in doing else "starting"
        if rate is not None:
            pace = f"{rate / 1000:,.0f}k tokens/s"
        self._update(self._done(), f"{self._ended}/{self._trials} trials{failed}, {pace}")
        self.note_metrics()


def _first_time(path: Path) -> float | None:
    """Return when the first line was written; None where there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError), path.open("rb") as stream:
        return float(json.loads(stream.readline(1 << 16))["time"])
    return None
