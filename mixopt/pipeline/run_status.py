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

MAX_WORKERS, MAX_REASONS = 16, 5  # with a line each
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
        verdict = run.recommendation
        recommended = {"mixture": verdict.chosen, "standing": verdict.standing}
        recommended["headline"] = headline_of(run)
    return {
        "path": str(run.path), "running": running, "recommendation": recommended, "steps": steps
    }  # fmt: skip


def status_of_folder(folder: Path, *, trust: bool = False) -> list[dict[str, Any]]:
    """Return name and status of each run in a folder, or why it cannot be read."""
    rows = []
    for record in sorted(folder.glob("*/config.yaml")):
        if not (record.parent / "steps.json").exists():
            continue
        try:
            state, answer = _in_short(status(load_run(record.parent, trust=trust)))
        except MixoptError as error:
            state, answer = "unreadable", str(error)
        rows.append({"run": record.parent.name, "state": state, "answer": answer})
    if not rows:
        load_run(folder)  # raises with the reason
    return rows


def _in_short(content: dict[str, Any]) -> tuple[str, str]:
    """Return the first unfinished step with its state, and the headline or details."""
    headline = (content["recommendation"] or {}).get("headline", "")
    for step, entry in content["steps"].items():
        if entry["state"] != "done":
            state, *words = _step_words(entry)
            return f"{step}: {state}", headline or ", ".join(words)
    return "done", headline


def status_lines(content: dict[str, Any]) -> Iterator[str]:
    """Yield a status as text: the recommendation, then a line for each step and worker."""
    if content["recommendation"] is not None:
        yield from (content["recommendation"]["headline"], "")
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
    folder, is_running = step.trial_folder(run.path), state == "running"
    trials: dict[str, Any] = {}
    workers: Sequence[Beat] = read_progress(folder) if is_running else ()
    # Submitted jobs may still train without an owner.
    if state in {"interrupted", "waiting"} and folder.is_dir():
        workers = _running_groups(run, folder, trials)
    attempts, to_go, stop = read_attempts(folder), 0, None
    if (folder / GROUPS).exists():
        total = planned_trials(run) if step is SWEEP else sum(map(len, read_groups(folder)))
        results = [read_entry(path)[1] for path in step.trial_files(run.path)]
        stop, to_go = run.config.sweep.stop if step is SWEEP else None, total - len(results)
        trials |= {"trials": total, "ended": len(results)}
        trials["finished"] = sum(result.status == "finished" for result in results)
        trials["stopped"] = sum(result.status == "stopped" for result in results)
        trials["failed"] = sum(result.has_failed for result in results)
        if state != "done":  # stopped trials may continue
            trials["ended"] -= trials["stopped"]
        if reasons := _failures(results):
            trials["reasons"] = reasons
        if attempts or workers:
            trials |= sweep_totals(attempts, workers)
    if workers:
        trials["running"] = sum(len(group.trials) for group in workers)
        trials["workers"] = [group.to_json() for group in workers]
    rate = sum(group.tokens_per_second or 0.0 for group in workers)
    if rate and is_running:
        each = run.config.validation_tokens if step is VALIDATE else run.config.proxy.tokens
        tokens, by_attempts = to_go * each, seconds_left(attempts, workers, to_go)
        if stop is not None:  # attempts train parts of trials
            tokens, by_attempts = total * stop.tokens(each), None
            tokens -= sum(result.tokens for result in results)
        by_tokens = max(0.0, (tokens - sum(group.done for group in workers)) / rate)
        trials["tokens_per_second"] = round(rate, 1)
        trials["left"] = round(by_tokens if by_attempts is None else by_attempts, 1)
    return trials


def _failures(results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """Return the reasons of failures, the most frequent first."""
    groups: dict[str, list[TrialResult]] = {}
    for result in sorted(results, key=lambda result: result.trial):
        if result.has_failed:
            groups.setdefault(failure_kind(result), []).append(result)
    return [
        {
            "reason": group[0].reason or group[0].status,
            "status": group[0].status,
            "trials": [result.trial for result in group],
        }
        for group in sorted(groups.values(), key=len, reverse=True)
    ]


def _running_groups(run: Run, folder: Path, content: dict[str, Any]) -> list[Beat]:
    """Return the groups that still run without an owner, and note in `content` what is known.

    A cluster that only an untrusted directory names is not asked.
    """
    request, running = run.config.sweep, []
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
    yield from (
        f"{entry[n]} {n}" for n in ("stopped", "running", "lost", "retried") if entry.get(n)
    )
    if entry.get("tokens_per_second"):
        yield f"{short_count(entry['tokens_per_second'])} tokens/s"
    if entry.get("left"):
        yield f"{duration(entry['left'])} left"


def _detail_lines(entry: dict[str, Any], path: str) -> Iterator[str]:
    if "fault" in entry:
        yield f"{entry['fault']}; mixopt verify {path} names the command that repairs it"
    if "resume" in entry:
        yield f"resume it with: {entry['resume']}"
    if tasks := entry.get("going_on"):
        words = "1 task is still running" if tasks == 1 else f"{tasks} tasks are still running"
        owner = "the sweep has no owner" if entry["state"] == "waiting" else "the owner is gone"
        yield f"{owner}; {words}; the same command takes over"
    if "not_asked" in entry:
        yield entry["not_asked"]
    yield from _reason_lines(entry.get("reasons", ()), path)
    if hours := hours_line(entry):
        yield hours
    if len(entry.get("nodes", ())) > 1 or entry.get("lost"):
        yield from _first_lines(list(map(_node_line, entry["nodes"])), MAX_WORKERS, "nodes")
    workers = [
        f"worker {k}: {_worker_words(worker)}"
        for k, worker in enumerate(entry.get("workers", ()), 1)
    ]
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
        names, text = reason["trials"], reason["reason"][:MAX_REASON]
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
    if worker["total"]:
        trained, total = worker["done"], worker["total"]
        words += f", {trained / total:.0%} of {short_count(total)} tokens"
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
        return max(logs, key=lambda log: int(re.sub(r"\D", "", log.parent.name) or 0))
    log = log_of_trial(folder, trial, read_groups(folder))
    if log is None:
        nodes = [attempt.node for attempt in read_attempts(folder) if trial in attempt.trials]
        where = f"; it was trained on {nodes[-1]}" if nodes else ""
        raise RunError(f"{run.path}: no log of {trial} is here{where}")
    return log


def log_lines(log: Path, last: int | None = None) -> Iterator[str]:
    """Yield all or the last lines of a log, after carriage returns as a terminal shows them."""
    yield from deque(_read(log), last) if last is not None else _read(log)


def _read(log: Path) -> Iterator[str]:
    with log.open("rb") as stream:
        while line := stream.readline(MAX_LINE):
            text = line.decode("utf-8", errors="replace").rstrip("\r\n")
            yield text.rpartition("\r")[2].expandtabs()


def _step_of(run: Run, trial: str) -> Step:
    check_name(trial, "trial", RunError)
    trained: list[str] = []
    for step in [step for step in STEPS if step.trains]:
        names = [name for group in read_groups(step.trial_folder(run.path)) for name in group]
        names += [path.stem for path in step.trial_files(run.path)]
        if trial in names:
            return step
        trained += names
    if not trained:
        raise RunError(f"{run.path}: no trial has been trained yet")
    raise RunError(
        f"{run.path}: no trial {trial!r}{did_you_mean(trial, sorted(set(trained))[:500])}"
    )


def stop(run: Run) -> tuple[list[str], list[str]]:
    """Interrupt the owner of a run on this host, and cancel submitted jobs.

    Returns:
        What was stopped, and what could not be. An owner on another host is only named; jobs are
        cancelled all the same if the directory is trusted.
    """
    request, owner, stopped, left = run.config.sweep, None, list[str](), list[str]()
    try:
        owner = interrupt(run.path)
        if owner is not None:
            stopped.append(f"interrupted process {owner.pid} on {owner.host}")
    except RunError as error:
        left.append(str(error))
    waiting = [step for step in STEPS if step.trains and not run.is_done(step.name)]
    folders = [folder for step in waiting if (folder := step.trial_folder(run.path)).is_dir()]
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
    yield from (f"still running: {without_secrets(line)}" for line in left)
