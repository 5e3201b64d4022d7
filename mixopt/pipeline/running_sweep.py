"""A sweep while it runs: reasons of failures, hours, nodes, logs, and how to stop it."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError, RunError, did_you_mean
from mixopt.run_directory import STEPS, Run, Step
from mixopt.sweeps import (
    FILES,
    GroupState,
    LogPart,
    Means,
    cancel_submitted,
    failure_kind,
    going_on,
    is_plain,
    logs_in,
    part_of,
    read_attempts,
    read_entry,
    read_groups,
    sweep_totals,
)
from mixopt.system import check_name, interrupt, is_in_use, short_count, within, without_secrets
from mixopt.trials import TrialResult

REASONS = 5  # that are shown
NAMED = 3  # trials that a reason names
NODES = 20  # that the table has
LONGEST_REASON = 300  # characters
LOCAL = "local"  # the executor whose work ends with its owner
HEADER = ("node", "device", "workers", "running", "done", "lost", "tokens/s")


def sweep_details(
    folder: Path, results: Sequence[TrialResult], running: Sequence[GroupState], total: int
) -> dict[str, Any]:
    """Return what the files of a folder of trials tell of a sweep."""
    found: dict[str, Any] = {}
    reasons = failures(results)
    if reasons:
        found["reasons"] = reasons
    attempts = read_attempts(folder)
    if attempts or running:
        totals = sweep_totals(attempts, running, max(0, total - len(results)))
        content = asdict(totals)
        shown = {name: value for name, value in content.items() if value is not None}
        found |= {name: _rounded(value) for name, value in shown.items() if name != "nodes"}
        found["nodes"] = [
            {name: _rounded(value) for name, value in node.items()} for node in content["nodes"]
        ]
    return found


def left_running(run: Run, folder: Path) -> list[GroupState]:
    """Return what still runs of a sweep without an owner; nothing if unknown, or not trusted."""
    asked = run.config.sweep
    if run.is_foreign:
        return []
    with suppress(MixoptError):
        ask = partial(going_on, Means(asked.executor, asked.options), folder)
        return within(f"sweep.executor: {asked.executor}", ask)
    return []


def failures(results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """Return why trials failed or diverged, the most frequent reason first."""
    groups: dict[str, list[TrialResult]] = {}
    for result in sorted(results, key=lambda one: one.trial):
        if result.status != "finished":
            groups.setdefault(failure_kind(result), []).append(result)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), group[0].trial))
    return [
        {
            "reason": group[0].reason or group[0].status,
            "status": group[0].status,
            "trials": [result.trial for result in group],
        }
        for group in ordered
    ]


def not_asked(run: Run) -> str | None:
    """Say that a cluster was not asked, since only the directory's record names it."""
    name = run.config.sweep.executor
    if not run.is_foreign or name == LOCAL:
        return None
    return (
        f"{name}: was not asked what still runs, because only the directory's own record names it;"
        f" if you trust whoever made it, add --trust"
    )


def detail_lines(entry: dict[str, Any]) -> Iterator[str]:
    """Describe the details of a step, line by line."""
    if entry.get("going_on"):
        tasks = entry["going_on"]
        words = "1 task is still running" if tasks == 1 else f"{tasks} tasks are still running"
        who = "the sweep has no owner" if entry["state"] == "waiting" else "the owner is gone"
        yield f"{who}; {words}; the same command takes over"
    if entry.get("not_asked"):
        yield entry["not_asked"]
    yield from _reason_lines(entry.get("reasons", ()))
    hours = hours_line(entry)
    if hours:
        yield hours
    if len(entry.get("nodes", ())) > 1 or entry.get("lost"):
        yield from _node_lines(entry["nodes"])


def hours_line(entry: dict[str, Any]) -> str:
    """Return the GPU hours, or CPU hours without a GPU, as text; empty if unknown."""
    unit = "gpu" if entry.get("gpu_hours") else "cpu"
    so_far, left = entry.get(f"{unit}_hours"), entry.get(f"{unit}_hours_to_go")
    if not so_far:
        return ""
    line = f"{unit.upper()} hours: {_hours(so_far)}"
    return f"{line} so far, about {_hours(left)} left" if left else line


def _reason_lines(reasons: Sequence[dict[str, Any]]) -> Iterator[str]:
    for reason in reasons[:REASONS]:
        names, status = reason["trials"], reason["status"]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        text = reason["reason"][:LONGEST_REASON]
        yield f"{len(names)} {status}: {text} ({', '.join(names[:NAMED])}{more})"
    others = reasons[REASONS:]
    if others:
        count = sum(len(reason["trials"]) for reason in others)
        yield f"{count} for {len(others)} other reasons; --json lists all"


def _node_lines(nodes: Sequence[dict[str, Any]]) -> Iterator[str]:
    unit = "gpu" if any(node["gpu_hours"] for node in nodes) else "cpu"
    rows = [(*HEADER, f"{unit.upper()} hours")]
    for node in nodes[:NODES]:
        counts = [str(node[name]) for name in ("workers", "running", "done", "lost")]
        rate = node["tokens_per_second"]
        speed = "" if rate is None else short_count(rate)
        rows.append(
            (node["node"], node["kind"], *counts, speed, _hours(node[f"{unit}_hours"]))
        )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        left = [text.ljust(width) for text, width in zip(row[:2], widths[:2], strict=True)]
        right = [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)]
        yield "  ".join((*left, *right))
    if len(nodes) > NODES:
        yield f"and {len(nodes) - NODES} more nodes; --json lists all"


def _hours(value: float) -> str:
    """Return hours with two digits, never as a power of ten."""
    if value >= 10:
        return f"{value:,.0f}"
    text = f"{value:.2g}"
    return f"{float(text):.10f}".rstrip("0") if "e" in text else text


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


@dataclass
class Cancelled:
    """What was stopped, and what could not be."""

    stopped: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def cancel(run: Run) -> Cancelled:
    """Interrupt the owner of a run that is on this host, and stop what was submitted.

    Args:
        run: The run.

    Returns:
        What was stopped. An owner on another host is left, and said; the executor's work is
        stopped all the same, if the directory is trusted.
    """
    asked, found = run.config.sweep, Cancelled()
    owner = None
    try:
        owner = interrupt(run.path)
        if owner is not None:
            found.stopped.append(f"interrupted process {owner.pid} on {owner.host}")
    except RunError as error:
        found.left.append(str(error))
    folders = _folders(run)
    if run.is_foreign and asked.executor != LOCAL and folders and owner is None:
        found.left.append(
            f"{asked.executor}: its jobs are named by the directory's own record alone; if you"
            " trust whoever made it, add --trust to cancel them"
        )
        return found
    for folder in folders:
        stop = partial(cancel_submitted, Means(asked.executor, asked.options), folder)
        try:
            found.stopped += within(f"sweep.executor: {asked.executor}", stop)
        except MixoptError as error:
            found.left.append(f"{asked.executor}: {error}")
    return found


def cancel_lines(run: Run, found: Cancelled) -> Iterator[str]:
    """Describe what was stopped, line by line."""
    yield from found.stopped
    if found.stopped:
        yield f"finished trials are kept; to resume: {run.command('run')}"
    elif not found.left:
        yield f"{run.path}: nothing is running"
    for line in found.left:
        yield f"still running: {without_secrets(line)}"


def _folders(run: Run) -> list[Path]:
    """Return the folders of the steps that train and are not done."""
    waiting = [step for step in STEPS if step.trains and not run.is_done(step.name)]
    folders = [step.trial_folder(run.path) for step in waiting]
    return [folder for folder in folders if folder.is_dir()]


LOG = "log.txt"
DEEPEST = 3  # folders below that of a trial
LONGEST_LINE = 1 << 16  # bytes
POLL = 0.5  # seconds between two looks at a log that is followed


@dataclass(frozen=True)
class TrialLog:
    """Where the log of a trial is."""

    trial: str
    part: LogPart
    ended: bool

    def lines(self, last: int | None = None) -> Iterator[str]:
        """Yield its lines; the last ones where a number is given."""
        found = read_part(self.part)
        return iter(deque(found, last)) if last is not None else found


def find_log(run: Run, trial: str) -> TrialLog | None:
    """Return the log of a trial's last attempt; None where there is none."""
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
    """Yield the lines of a trial's log, and those that are added until the trial has ended."""
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
