"""Progress and cost of a sweep: for its progress bar, for `status`, for MLflow.

The activity of workers is read from the beats of their groups' folders. `attempts.jsonl` has a line
for each attempt that has ended (`AttemptRecord`); no resume depends on it, so that unreadable lines
are skipped. Cost is the wall-clock time of each GPU that a worker has; without GPUs it is the CPU
time of the worker's processes. Failed attempts count.
"""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mixopt.errors import MixoptError
from mixopt.sweeps.group_runner import Report
from mixopt.sweeps.groups import Beat, GroupOutcome, has_result, read_beat
from mixopt.sweeps.trial_files import WORK
from mixopt.system import Update, checked_as, parse_json
from mixopt.trials import TrialResult

ATTEMPTS = "attempts.jsonl"
HOUR = 3600.0  # seconds
MAX_LINE = 1 << 20  # bytes


class AttemptRecord(Beat):
    """One attempt at a group: its last beat, and when it ended in seconds since 1970."""

    at: Annotated[float, Field(ge=0)]
    finished: Annotated[int, Field(ge=0)]  # trials with a result
    outcome: Literal["ended", "failed", "died", "memory", "lost"]
    reason: str | None = None


def read_progress(folder: Path) -> list[Beat]:
    """Return the last beats of the groups that train."""
    beats = []
    for path in sorted((folder / WORK).glob("*.*")):
        if not has_result(path):
            beat = read_beat(path)
            if beat.seconds:
                beats.append(beat)
    return beats


def record_attempt(folder: Path, outcome: GroupOutcome) -> None:
    """Append an attempt; a failing disk does not stop the sweep."""
    error_kind = "failed" if outcome.reason else "ended"
    record = {
        **outcome.beat.model_dump(),
        "trials": [trial.name for trial in outcome.trials],
        "node": outcome.beat.node or "unknown",
        "at": time.time(),
        "finished": len(outcome.results),
        "outcome": outcome.fault or error_kind,
        "reason": outcome.reason,
    }
    # Never write through a link: it may lead to any file.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    with suppress(OSError), os.fdopen(os.open(folder / ATTEMPTS, flags, 0o666), "a") as stream:
        if os.fstat(stream.fileno()).st_nlink == 1:
            stream.write(f"{json.dumps(record)}\n")


def read_attempts(folder: Path) -> list[AttemptRecord]:
    """Return the attempts so far, in the order in which they ended."""
    records: list[AttemptRecord] = []
    with suppress(OSError), (folder / ATTEMPTS).open("rb") as stream:
        while line := stream.readline(MAX_LINE):
            with suppress(MixoptError):
                records.append(checked_as(AttemptRecord, parse_json(line, ATTEMPTS), ATTEMPTS))
    return records


@dataclass
class DeviceUsage:
    """What a sweep did on one kind of device of a node; the fields are those of `status --json`."""

    node: str
    kind: str
    workers: int = 0
    running: int = 0  # trials that train
    done: int = 0  # trials with a result
    lost: int = 0  # trials lost with the node
    tokens_per_second: float | None = None
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0  # without GPUs

    def add(self, beat: Beat) -> None:
        """Add an attempt, or a group that still trains."""
        self.gpu_hours += beat.seconds * beat.gpus / HOUR
        if not beat.gpus:
            self.cpu_hours += beat.cpu / HOUR
        trials = len(beat.trials)
        if isinstance(beat, AttemptRecord):
            self.done += beat.finished
            if beat.outcome == "lost":
                self.lost += trials
            return
        self.workers += 1
        self.running += trials
        if beat.tokens_per_second is not None:
            self.tokens_per_second = (self.tokens_per_second or 0.0) + beat.tokens_per_second


def sweep_totals(attempts: Sequence[AttemptRecord], running: Sequence[Beat]) -> dict[str, Any]:
    """Sum the cost of a sweep: in total, and by node and kind of device."""
    usage: dict[tuple[str, str], DeviceUsage] = {}
    for beat in (*attempts, *running):
        device = usage.setdefault((beat.node, beat.kind), DeviceUsage(beat.node, beat.kind))
        device.add(beat)
    devices = [usage[key] for key in sorted(usage)]
    return {
        "lost": sum(device.lost for device in devices),
        "gpu_hours": sum(device.gpu_hours for device in devices),
        "cpu_hours": sum(device.cpu_hours for device in devices),
        "retried": _retries(attempts),
        "nodes": [asdict(device) for device in devices],
    }


def _retries(attempts: Sequence[AttemptRecord]) -> int:
    """Return the number of attempts at trials beyond the first, and beyond a further part."""
    times = Counter[str]()
    ended = Counter[str]()  # a trial that sweep.stop trains in two parts has two
    for attempt in attempts:
        times.update(attempt.trials)
        if attempt.outcome == "ended":
            ended.update(attempt.trials)
    further_parts = ended.total() - len(ended)
    return times.total() - len(times) - further_parts


def seconds_left(
    attempts: Sequence[AttemptRecord], running: Sequence[Beat], remaining: int
) -> float | None:
    """Estimate the seconds until all trials have ended, from the finished ones."""
    spent = sum(attempt.seconds for attempt in attempts)
    finished = sum(attempt.finished for attempt in attempts)
    if not finished or not running:
        return None
    rest = spent / finished * remaining - sum(group.seconds for group in running)
    return max(0.0, rest / len(running))


def sweep_meter(
    trials: int, tokens: int, results: Mapping[str, TrialResult], update: Update
) -> Report:
    """Return a function that updates a sweep's progress bar from running groups.

    The caller adds to the results, which are those of trials that ended before at first.
    """
    tokens_before = tokens * len(results)
    start = math.inf  # when the first group of trials ran

    def report(running: Sequence[Beat]) -> None:
        nonlocal start
        now = time.monotonic()
        if any(beat.trials for beat in running):  # one without trials measures the group size
            start = min(start, now)
        finished = len(results)
        trained = finished * tokens + sum(beat.done for beat in running)
        if trained > tokens_before:
            rate = (trained - tokens_before) / max(now - start, 1e-3)
            pace = f"{rate / 1000:,.0f}k tokens/s"
        elif any(beat.doing == "compiling" for beat in running):
            pace = "compiling"
        else:
            pace = "starting"
        failures = sum(result.has_failed for result in results.values())
        failed = f", {failures} failed" if failures else ""
        update(trained, f"{finished}/{trials} trials{failed}, {pace}")

    return report
