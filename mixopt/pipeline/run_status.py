"""Status of a run (steps, trials, hours, nodes, time left), its logs, and how to stop it."""

import re
import shlex
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.errors import MixoptError, RunError, did_you_mean
from mixopt.pipeline.sweep import planned_trials
from mixopt.reporting import headline_of
from mixopt.run_directory import STEPS, SWEEP, VALIDATE, Run, Step, load_run
from mixopt.sweeps import (
    FILES,
    GROUPS,
    Beat,
    cancel_submitted,
    failure_kind,
    log_of_trial,
    read_attempts,
    read_entry,
    read_groups,
    read_progress,
    running_without_owner,
    seconds_left,
    sweep_totals,
)
from mixopt.system import (
    check_name,
    duration,
    first_few,
    host_name,
    interrupt,
    is_in_use,
    short_count,
    within,
    without_secrets,
)
from mixopt.trials import TrialResult

MAX_WORKERS = 16  # with a line each
MAX_REASONS = 5  # with a line each
MAX_TRIALS_SUGGESTED = 500  # compared with a misspelt name
MAX_NAMED = 3  # trials named with a reason
MAX_REASON = 300  # characters
NAME_WIDTH = 9  # columns of a step's name
MAX_LINE = 1 << 16  # bytes of a log
LOCAL = "local"  # the executor whose workers end with their owner


def status(run: Run) -> dict[str, Any]:
    """Return a run's recommendation, the state of each step, and counts of its trials.

    Examples:
        >>> mixopt.status(run)["steps"]["sweep"]["finished"]
        12
    """
    steps = {step.name: _step_status(run, step) for step in STEPS}
    running = is_in_use(run.path) or any(entry.get("going_on") for entry in steps.values())
    recommended = None
    if steps[VALIDATE.name]["state"] == "done":
        recommended = {
            "mixture": run.recommendation.chosen,
            "standing": run.recommendation.standing,
            "headline": headline_of(run),
        }
    return {
        "path": str(run.path),
        "running": running,
        "recommendation": recommended,
        "steps": steps,
    }


def status_of_folder(folder: Path, *, trust: bool = False) -> list[dict[str, Any]]:
    """Return name and status of each run in a folder, or why it cannot be read."""
    rows = []
    for record in sorted(folder.glob("*/config.yaml")):
        if not (record.parent / "steps.json").exists():
            continue
        try:
            state, answer = _in_short(status(load_run(record.parent, trust=trust)))
        except MixoptError as error:
            state = "unreadable"
            answer = str(error)
        rows.append({"run": record.parent.name, "state": state, "answer": answer})
    if not rows:
        load_run(folder)  # raises with the reason
    return rows


def _in_short(content: dict[str, Any]) -> tuple[str, str]:
    """Return the first unfinished step with its state, and the headline or details."""
    headline = ""
    if content["recommendation"] is not None:
        headline = content["recommendation"]["headline"]
    for step, entry in content["steps"].items():
        if entry["state"] != "done":
            state, *details = _step_words(entry)
            return f"{step}: {state}", headline or ", ".join(details)
    return "done", headline


def status_lines(content: dict[str, Any]) -> Iterator[str]:
    """Yield a status as text: the recommendation, then a line for each step and worker."""
    if content["recommendation"] is not None:
        yield content["recommendation"]["headline"]
        yield ""
    path = shlex.quote(content["path"])
    for step, entry in content["steps"].items():
        yield f"{step:<{NAME_WIDTH}} {', '.join(_step_words(entry))}"
        for line in _detail_lines(entry, path):
            yield f"{'':<{NAME_WIDTH}} {line}"


def _step_status(run: Run, step: Step) -> dict[str, Any]:
    state, fault = run.log.standing(step.name)
    entry: dict[str, Any] = {"state": state}
    if state == "done":
        entry["seconds"] = run.log.seconds[step.name]
    elif state == "interrupted":
        entry["resume"] = run.command()
    if fault:
        entry["fault"] = fault
    if step.trains:
        entry |= _trials(run, step, state)
    return entry


def _trials(run: Run, step: Step, state: str) -> dict[str, Any]:
    """Count the trials of a step, a sweep's later rounds included; hours and nodes by attempts."""
    folder = step.trial_folder(run.path)
    trials: dict[str, Any] = {}
    workers: Sequence[Beat] = ()
    if state == "running":
        workers = read_progress(folder)
    elif state in {"interrupted", "waiting"} and folder.is_dir():
        # Submitted jobs may still train without an owner.
        workers = _running_groups(run, folder, trials)
    attempts = read_attempts(folder)
    total = 0
    results: list[TrialResult] = []
    if (folder / GROUPS).exists():
        total = planned_trials(run) if step is SWEEP else sum(map(len, read_groups(folder)))
        results = [read_entry(path)[1] for path in step.trial_files(run.path)]
        trials |= _counts(results, total, state)
        if attempts or workers:
            trials |= sweep_totals(attempts, workers)
    if workers:
        trials["running"] = sum(len(group.trials) for group in workers)
        trials["workers"] = [group.to_json() for group in workers]
    rate = sum(group.tokens_per_second or 0.0 for group in workers)
    if rate and state == "running":
        seconds = None
        stops_early = step is SWEEP and run.config.sweep.stop is not None
        if not stops_early:  # else attempts train only parts of trials
            seconds = seconds_left(attempts, workers, total - len(results))
        if seconds is None:
            tokens = _tokens_left(run, step, total, results)
            seconds = max(0.0, (tokens - sum(group.done for group in workers)) / rate)
        trials["tokens_per_second"] = round(rate, 1)
        trials["left"] = round(seconds, 1)
    return trials


def _counts(results: Sequence[TrialResult], total: int, state: str) -> dict[str, Any]:
    """Return the numbers of a step's trials by their end, and the reasons of failures."""
    stopped = sum(result.status == "stopped" for result in results)
    ended = len(results)
    if state != "done":  # stopped trials may continue
        ended -= stopped
    counts: dict[str, Any] = {
        "trials": total,
        "ended": ended,
        "finished": sum(result.status == "finished" for result in results),
        "stopped": stopped,
        "failed": sum(result.has_failed for result in results),
    }
    reasons = _failures(results)
    if reasons:
        counts["reasons"] = reasons
    return counts


def _tokens_left(run: Run, step: Step, total: int, results: Sequence[TrialResult]) -> int:
    """Return the tokens of trials without a result; with early stopping, of all unfinished ones."""
    if step is VALIDATE:
        return (total - len(results)) * run.config.validation_tokens
    tokens = run.config.proxy.tokens
    stop = run.config.sweep.stop
    if stop is None:
        return (total - len(results)) * tokens
    return total * stop.tokens(tokens) - sum(result.tokens for result in results)


def _failures(results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """Return the reasons of failures, the most frequent first."""
    groups: dict[str, list[TrialResult]] = {}
    for result in sorted(results, key=lambda result: result.trial):
        if result.has_failed:
            groups.setdefault(failure_kind(result), []).append(result)
    return [_failure(group) for group in sorted(groups.values(), key=len, reverse=True)]


def _failure(results: Sequence[TrialResult]) -> dict[str, Any]:
    """Return the reason and the names of trials that failed in the same way."""
    first = results[0]
    return {
        "reason": first.reason or first.status,
        "status": first.status,
        "trials": [result.trial for result in results],
    }


def _running_groups(run: Run, folder: Path, content: dict[str, Any]) -> list[Beat]:
    """Return the groups that still run without an owner, and note them in `content`.

    A cluster that only an untrusted directory names is not asked.
    """
    request = run.config.sweep
    running: list[Beat] = []
    if not run.is_foreign:
        with suppress(MixoptError):
            ask = partial(running_without_owner, request, folder)
            running = within(f"sweep.executor: {request.executor}", ask)
    elif request.executor != LOCAL:
        content["not_asked"] = (
            f"{request.executor}: was not asked what still runs, because only the directory's own"
            " record names it; if you trust whoever made it, add --trust"
        )
    if running:
        content["going_on"] = len(running)
    return running


def _step_words(entry: dict[str, Any]) -> Iterator[str]:
    yield entry["state"]
    if "seconds" in entry:
        yield f"in {duration(entry['seconds'])}"
    if not entry.get("trials"):
        return
    yield f"{entry['ended']} of {entry['trials']} trials"
    if entry["failed"]:
        yield f"{entry['failed']} failed or diverged"
    for name in ("stopped", "running", "lost", "retried"):
        if entry.get(name):
            yield f"{entry[name]} {name}"
    if entry.get("tokens_per_second"):
        yield f"{short_count(entry['tokens_per_second'])} tokens/s"
    if entry.get("left"):
        yield f"{duration(entry['left'])} left"


def _detail_lines(entry: dict[str, Any], path: str) -> Iterator[str]:
    if "fault" in entry:
        yield f"{entry['fault']}; mixopt verify {path} names the command that repairs it"
    if "resume" in entry:
        yield f"resume it with: {entry['resume']}"
    tasks = entry.get("going_on")
    if tasks:
        running = "1 task is still running" if tasks == 1 else f"{tasks} tasks are still running"
        owner = "the sweep has no owner" if entry["state"] == "waiting" else "the owner is gone"
        yield f"{owner}; {running}; the same command takes over"
    if "not_asked" in entry:
        yield entry["not_asked"]
    yield from _reason_lines(entry.get("reasons", ()), path)
    hours = hours_line(entry)
    if hours:
        yield hours
    if len(entry.get("nodes", ())) > 1 or entry.get("lost"):
        nodes = [_node_line(node) for node in entry["nodes"]]
        yield from _first_lines(nodes, MAX_WORKERS, "nodes")
    workers = []
    for number, worker in enumerate(entry.get("workers", ()), 1):
        workers.append(f"worker {number}: {_worker_words(worker)}")
    yield from _first_lines(workers, MAX_WORKERS, "workers")


def _first_lines(lines: Sequence[str], max_lines: int, kind: str) -> Iterator[str]:
    yield from lines[:max_lines]
    if len(lines) > max_lines:
        yield f"and {len(lines) - max_lines} more {kind}; --json lists all"


def hours_line(entry: dict[str, Any]) -> str:
    """Return the GPU hours, or the CPU hours without GPUs, as text; empty if unknown."""
    unit = "gpu" if entry.get("gpu_hours") else "cpu"
    hours = entry.get(f"{unit}_hours")
    return f"{unit.upper()} hours: {_hours(hours)}" if hours else ""


def _hours(value: float) -> str:
    """Return hours with two significant digits, never in scientific notation."""
    if value >= 10:
        return f"{value:,.0f}"
    return np.format_float_positional(value, precision=2, fractional=False, trim="-")


def _reason_lines(reasons: Sequence[dict[str, Any]], path: str) -> Iterator[str]:
    lines = []
    for reason in reasons:
        names = reason["trials"]
        text = reason["reason"][:MAX_REASON]
        lines.append(f"{len(names)} {reason['status']}: {text} ({first_few(names, MAX_NAMED)})")
    yield from _first_lines(lines, MAX_REASONS, "reasons")
    if reasons:
        yield f"log: mixopt status {path} --logs {reasons[0]['trials'][0]}"


def _node_line(node: dict[str, Any]) -> str:
    unit = "gpu" if node["gpu_hours"] else "cpu"
    counts = ", ".join(f"{node[name]} {name}" for name in ("running", "done", "lost"))
    hours = f"{_hours(node[f'{unit}_hours'])} {unit.upper()} hours"
    return f"{node['node']} ({node['kind']}, {node['workers']} workers): {counts}, {hours}"


def _worker_words(worker: dict[str, Any]) -> str:
    names = worker["trials"]
    words: str = worker["doing"]
    if names:
        words += f" {first_few(names, 1)}"
    if worker["node"] not in {"", host_name()}:
        words += f" on {worker['node']}"
    total = worker["total"]
    if total:
        words += f", {worker['done'] / total:.0%} of {short_count(total)} tokens"
    if worker["tokens_per_second"]:
        words += f", {short_count(worker['tokens_per_second'])} tokens/s"
    return words


def find_log(run: Run, trial: str) -> Path:
    """Return the log of a trial's last attempt.

    Raises:
        RunError: There is no such trial, or no log of it.
    """
    folder = _step_of(run, trial).trial_folder(run.path)
    logs = [log for log in (folder / FILES / trial).glob("*/log.txt") if log.is_file()]
    if logs:
        return max(logs, key=_attempt)
    log = log_of_trial(folder, trial, read_groups(folder))
    if log is None:
        nodes = [attempt.node for attempt in read_attempts(folder) if trial in attempt.trials]
        where = f"; it was trained on {nodes[-1]}" if nodes else ""
        raise RunError(f"{run.path}: no log of {trial} is here{where}")
    return log


def _attempt(log: Path) -> int:
    """Return the number of the attempt that a log is of."""
    return int(re.sub(r"\D", "", log.parent.name) or 0)


def log_lines(log: Path, last: int | None = None) -> Iterator[str]:
    """Yield all or the last lines of a log, after carriage returns as a terminal shows them."""
    lines = _read(log)
    yield from lines if last is None else deque(lines, last)


def _read(log: Path) -> Iterator[str]:
    with log.open("rb") as stream:
        while line := stream.readline(MAX_LINE):
            text = line.decode("utf-8", errors="replace").rstrip("\r\n")
            yield text.rpartition("\r")[2].expandtabs()


def _step_of(run: Run, trial: str) -> Step:
    check_name(trial, "trial", RunError)
    trained: list[str] = []
    for step in STEPS:
        if not step.trains:
            continue
        names = [path.stem for path in step.trial_files(run.path)]
        for group in read_groups(step.trial_folder(run.path)):
            names += group
        if trial in names:
            return step
        trained += names
    if not trained:
        raise RunError(f"{run.path}: no trial has been trained yet")
    suggested = sorted(set(trained))[:MAX_TRIALS_SUGGESTED]
    raise RunError(f"{run.path}: no trial {trial!r}{did_you_mean(trial, suggested)}")


def stop(run: Run) -> tuple[list[str], list[str]]:
    """Interrupt the owner of a run on this host, and cancel submitted jobs.

    Returns:
        What was stopped, and what could not be. An owner on another host is only named; its jobs
        are still cancelled if the directory is trusted.
    """
    request = run.config.sweep
    owner = None
    stopped: list[str] = []
    left: list[str] = []
    try:
        owner = interrupt(run.path)
        if owner is not None:
            stopped.append(f"interrupted process {owner.pid} on {owner.host}")
    except RunError as error:
        left.append(str(error))
    unfinished = [step for step in STEPS if step.trains and not run.is_done(step.name)]
    folders = [step.trial_folder(run.path) for step in unfinished]
    folders = [folder for folder in folders if folder.is_dir()]
    if run.is_foreign and request.executor != LOCAL and folders and owner is None:
        left.append(
            f"{request.executor}: its jobs are named by the directory's own record alone; if you"
            " trust whoever made it, add --trust to stop them"
        )
        return stopped, left
    for folder in folders:
        call = partial(cancel_submitted, request, folder)
        try:
            stopped += within(f"sweep.executor: {request.executor}", call)
        except MixoptError as error:
            left.append(f"{request.executor}: {error}")
    return stopped, left


def stop_lines(run: Run, stopped: Sequence[str], left: Sequence[str]) -> Iterator[str]:
    """Describe what was stopped, line by line."""
    yield from stopped
    if stopped:
        yield f"finished trials are kept; to resume: {run.command()}"
    elif not left:
        yield f"{run.path}: nothing is running"
    for line in left:
        yield f"still running: {without_secrets(line)}"
