"""The log of a trial, wherever it trained: find it and print it."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixopt.errors import RunError, did_you_mean
from mixopt.run_directory import STEPS, Run, Step
from mixopt.sweeps import (
    FILES,
    LogPart,
    is_plain,
    logs_in,
    part_of,
    read_attempts,
    read_entry,
    read_groups,
)
from mixopt.system import check_name

LOG = "log.txt"
MAX_DEPTH = 3  # folders below that of a trial
MAX_LINE = 1 << 16  # bytes


def find_log(run: Run, trial: str) -> LogPart | None:
    """Return the log of a trial's last attempt; None where there is none."""
    folder = _step_of(run, trial).trial_folder(run.path)
    logs = _own_logs(folder / FILES / trial)
    return LogPart(logs[-1]) if logs else part_of(trial, logs_in(folder))


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


def log_lines(part: LogPart, last: int | None = None) -> Iterator[str]:
    """Yield the lines of a part of a log, or the last of them."""
    lines = _read(part)
    return iter(deque(lines, last)) if last is not None else lines


def failed_trials(run: Run) -> list[dict[str, Any]]:
    """Return the trials that failed or diverged: name, status, reason and log, None without."""
    found = []
    for path in [path for step in STEPS for path in sorted(step.trial_files(run.path))]:
        trial, result = read_entry(path)
        if result.status != "finished":
            log = find_log(run, trial.name)
            where = None if log is None else str(log.path)
            about = {"trial": trial.name, "status": result.status, "reason": result.reason}
            found.append({**about, "log": where})
    return found


def _read(part: LogPart) -> Iterator[str]:
    """Yield lines as a terminal would leave them."""
    with part.path.open("rb") as stream:
        stream.seek(part.start)
        while part.stop is None or stream.tell() < part.stop:
            line = stream.readline(MAX_LINE)
            if not line:
                return
            text = line.decode("utf-8", errors="replace").rstrip("\r\n")
            yield text.rpartition("\r")[2].expandtabs()


def _step_of(run: Run, trial: str) -> Step:
    """Return the step that trains a trial."""
    check_name(trial, "trial", RunError)
    known: list[str] = []
    for step in [step for step in STEPS if step.trains]:
        names = [name for group in read_groups(step.trial_folder(run.path)) for name in group]
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
        if len(Path(place).relative_to(folder).parts) >= MAX_DEPTH:
            folders.clear()
        if LOG in names and is_plain(Path(place) / LOG):
            found.append(Path(place) / LOG)
    return sorted(found, key=_attempt)


def _attempt(path: Path) -> tuple[list[int], float]:
    numbers = re.findall(r"attempt-(\d{1,9})", path.parent.name)
    return [int(number) for number in numbers], path.stat().st_mtime
