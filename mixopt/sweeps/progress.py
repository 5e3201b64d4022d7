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
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mixopt.errors import MixoptError
from mixopt.sweeps.groups import Beat, GroupOutcome, Report, has_result, read_beat
from mixopt.sweeps.trial_files import WORK
from mixopt.system import Update, checked_as, parse_json
from mixopt.trials import TrialResult

ATTEMPTS = "attempts.jsonl"
HOUR = 3600.0
COUNTS = ("workers", "running", "done", "lost", "tokens_per_second", "gpu_hours", "cpu_hours")
MAX_LINE = 1 << 20  # bytes


class AttemptRecord(Beat):
    """One attempt at a group: its last beat, and when it ended in seconds since 1970."""

    at: Annotated[float, Field(ge=0)]
    finished: Annotated[int, Field(ge=0)]  # trials with a result
    outcome: Literal["ended", "failed", "died", "memory", "lost"]
    reason: str | None = None


def read_progress(folder: Path) -> list[Beat]:
    """Return the last beats of the groups that train."""
    places = [place for place in sorted((folder / WORK).glob("*.*")) if not has_result(place)]
    return [beat for beat in map(read_beat, places) if beat.seconds]


def note_attempt(folder: Path, outcome: GroupOutcome) -> None:
    """Append an attempt; a failing disk does not stop the sweep."""
    record = {
        **outcome.beat.model_dump(),
        "trials": [trial.name for trial in outcome.trials],
        "node": outcome.beat.node or "unknown",
        "at": time.time(),
        "finished": len(outcome.results),
        "outcome": outcome.fault or ("failed" if outcome.reason else "ended"),
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


def sweep_totals(attempts: Sequence[AttemptRecord], running: Sequence[Beat]) -> dict[str, Any]:
    """Sum the cost of a sweep: in total, and by node and kind of device."""
    rows: dict[tuple[str, str], Any] = defaultdict(Counter)
    for beat in (*attempts, *running):
        row, count = rows[beat.node, beat.kind], len(beat.trials)
        row["gpu_hours"] += beat.seconds * beat.gpus / HOUR
        row["cpu_hours"] += 0.0 if beat.gpus else beat.cpu / HOUR
        if isinstance(beat, AttemptRecord):
            row.update(done=beat.finished, lost=count if beat.outcome == "lost" else 0)
        else:
            row.update(workers=1, running=count)
            if beat.tokens_per_second is not None:
                row["tokens_per_second"] += beat.tokens_per_second
    # A trial that sweep.stop trains in two parts has two attempts that ended.
    times = Counter(trial for attempt in attempts for trial in attempt.trials)
    ended = Counter(trial for a in attempts if a.outcome == "ended" for trial in a.trials)
    retried = times.total() - len(times) - (ended.total() - len(ended))
    nodes = [
        {"node": node, "kind": kind, **dict.fromkeys(COUNTS, 0), "tokens_per_second": None, **row}
        for (node, kind), row in sorted(rows.items(), key=lambda item: item[0])
    ]
    totals = {n: sum(row[n] for row in nodes) for n in ("lost", "gpu_hours", "cpu_hours")}
    return {**totals, "retried": retried, "nodes": nodes}


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
    before, start = tokens * len(results), math.inf

    def report(running: Sequence[Beat]) -> None:
        nonlocal start
        now, finished = time.monotonic(), len(results)
        if any(beat.trials for beat in running):  # one without trials measures the group size
            start = min(start, now)
        trained = finished * tokens + sum(beat.done for beat in running)
        count = sum(result.has_failed for result in results.values())
        failed = f", {count} failed" if count else ""
        pace = "compiling" if any(beat.doing == "compiling" for beat in running) else "starting"
        if trained > before:
            pace = f"{(trained - before) / max(now - start, 1e-3) / 1000:,.0f}k tokens/s"
        update(trained, f"{finished}/{trials} trials{failed}, {pace}")

    return report
