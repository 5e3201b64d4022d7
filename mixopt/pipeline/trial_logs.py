"""The log of a trial on any executor, and failed trials with their logs.

A command of the user's leaves a log in the folder of each of its attempts; any other proxy prints
to the log of the worker that trained it (mixopt.sweeps.worker_logs). A run directory may be
anybody's: lines are given as text of bounded length, and whoever prints them takes the control
characters out.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixopt.errors import RunError, did_you_mean
from mixopt.pipeline.sweep_view import left_running
from mixopt.run_directory import STEPS, Run, Step
from mixopt.sweeps import (
    FILES,
    LogPart,
    is_plain,
    logs_in,
    part_of,
    read_attempts,
    read_groups,
)
from mixopt.system import check_name, is_in_use
from mixopt.trials import read_entry

LOG = "log.txt"
DEEPEST = 3  # folders below that of a trial
LONGEST_LINE = 1 << 16  # bytes
POLL = 0.5  # seconds between two looks at a log that is followed


@dataclass(frozen=True)
class TrialLog:
    """Where the log of a trial is.

    Attributes:
        trial: Its name.
        part: The file, or the part of it that is of the trial and those trained with it.
        ended: Whether the trial has ended.
    """

    trial: str
    part: LogPart
    ended: bool

    def lines(self, last: int | None = None) -> Iterator[str]:
        """Yield its lines; the last ones where a number is given."""
        found = read_part(self.part)
        return iter(deque(found, last)) if last is not None else found


def find_log(run: Run, trial: str) -> TrialLog | None:
    """Return the log of a trial's last attempt; None where there is none.

    Raises:
        RunError: The run has no such trial.
    """
    folder = _step_of(run, trial).trial_folder(run.path)
    ended = (folder / f"{trial}.json").exists()
    logs = _own_logs(folder / FILES / trial)
    part = LogPart(logs[-1]) if logs else part_of(trial, logs_in(folder))
    return None if part is None else TrialLog(trial, part, ended)


def missing_log(run: Run, trial: str) -> str:
    """Describe a trial that has no log, in one line."""
    folder = _step_of(run, trial).trial_folder(run.path)
    records = [record for record in read_attempts(folder) if trial in record.trials]
    where = f"; it was trained on {records[-1].node}" if records else ""
    path = folder / f"{trial}.json"
    if not path.exists():
        return f"{trial}: has not ended, and has no log yet{where}"
    result = read_entry(path)[1]
    why = f": {result.reason}" if result.reason else ""
    return f"{trial}: {result.status}{why}; no log found here{where}"


def follow_log(
    run: Run, trial: str, last: int | None = None, wait: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """Yield the lines of a trial's log, and those that are added until the trial has ended.

    A trial that does not train yet is waited for, as long as somebody works on the run.

    Args:
        run: The run.
        trial: Its name.
        last: How many of the lines that are there are given; all when None.
        wait: Waits for so many seconds.

    Raises:
        RunError: The run has no such trial.
    """
    before: LogPart | None = None
    while True:
        over = not _is_worked_on(run, trial)
        log = find_log(run, trial)
        if log is not None:
            part = log.part
            fresh = before is None or (part.path, part.begun) != (before.path, before.begun)
            rest = part if before is None or fresh else replace(part, start=before.start)
            rest = replace(rest, stop=_whole_lines(rest, to_the_end=over or log.ended))
            lines = read_part(rest)
            yield from deque(lines, last) if fresh and last is not None else lines
            before = replace(part, start=rest.stop or 0)
        if over or (log is not None and log.ended):
            return
        wait(POLL)


def failed_trials(run: Run) -> list[dict[str, Any]]:
    """Return the trials that failed or diverged: name, status, reason and log, None without."""
    found = []
    for step in STEPS:
        if not step.trains:
            continue
        for path in sorted(step.trial_files(run.path)):
            trial, result = read_entry(path)
            if result.status != "finished":
                log = find_log(run, trial.name)
                where = None if log is None else str(log.part.path)
                about = {"trial": trial.name, "status": result.status, "reason": result.reason}
                found.append({**about, "log": where})
    return found


def logs_of_workers(run: Run) -> list[str]:
    """Return the logs of a run's workers."""
    folders = [step.trial_folder(run.path) for step in STEPS if step.trains]
    return [str(path) for folder in folders for path in logs_in(folder)]


def read_part(part: LogPart) -> Iterator[str]:
    """Yield the lines of a part of a log, as a terminal would leave them."""
    with part.path.open("rb") as stream:
        stream.seek(part.start)
        while part.stop is None or stream.tell() < part.stop:
            line = stream.readline(LONGEST_LINE)
            if not line:
                return
            text = line.decode("utf-8", errors="replace").rstrip("\r\n")
            yield text.rpartition("\r")[2].expandtabs()


def _step_of(run: Run, trial: str) -> Step:
    """Return the step that trains a trial."""
    check_name(trial, "trial", RunError)
    known: list[str] = []
    for step in STEPS:
        if not step.trains:
            continue
        folder = step.trial_folder(run.path)
        names = [name for group in read_groups(folder) for name in group]
        names += [path.stem for path in step.trial_files(run.path)]
        if trial in names:
            return step
        known += names
    if not known:
        raise RunError(f"{run.path}: no trial has been trained yet")
    raise RunError(f"{run.path}: no trial {trial!r}{did_you_mean(trial, sorted(set(known))[:500])}")


def _own_logs(folder: Path) -> list[Path]:
    """Return the logs in the folder of a trial, the newest attempt's last."""
    found = []
    for place, folders, names in os.walk(folder):
        if len(Path(place).relative_to(folder).parts) >= DEEPEST:
            folders.clear()
        if LOG in names and is_plain(Path(place) / LOG):
            found.append(Path(place) / LOG)
    return sorted(found, key=_in_order)


def _in_order(path: Path) -> tuple[list[int], float]:
    return [int(number) for number in re.findall(r"attempt-(\d{1,9})", path.parent.name)], (
        path.stat().st_mtime
    )


def _is_worked_on(run: Run, trial: str) -> bool:
    if is_in_use(run.path):
        return True
    return bool(left_running(run, _step_of(run, trial).trial_folder(run.path)))


def _whole_lines(part: LogPart, *, to_the_end: bool) -> int:
    """Return where the last whole line of a part ends; the end where the rest counts too."""
    size = part.path.stat().st_size if part.stop is None else part.stop
    if to_the_end or size <= part.start:
        return max(size, part.start)
    back = min(size - part.start, LONGEST_LINE)
    with part.path.open("rb") as stream:
        stream.seek(size - back)
        at = stream.read(back).rfind(b"\n")
    return size - back + at + 1 if at >= 0 else part.start
