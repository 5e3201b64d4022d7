"""The status of a run: steps done, trials finished, running and failed, and the time left."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mixopt.pipeline.rounds import not_run, planned_trials
from mixopt.pipeline.running_sweep import detail_lines, left_running, not_asked, sweep_details
from mixopt.pipeline.trial_start import prefix_progress
from mixopt.run_directory import STEPS, SWEEP, VALIDATE, Run, Step
from mixopt.sweeps import (
    GROUPS,
    GroupState,
    read_attempts,
    read_entry,
    read_groups,
    read_progress,
    seconds_left,
)
from mixopt.system import duration, host_name, is_in_use, long_duration, short_count

WORKERS = 16  # that have a line each
_NAME = 9  # columns of a step's name


def run_status(run: Run) -> dict[str, Any]:
    """Return each step's state, and counts of trials where a step trains."""
    in_use = is_in_use(run.path)
    steps: dict[str, Any] = {}
    for step in STEPS:
        entry: dict[str, Any] = {"state": "done" if run.is_done(step.name) else "waiting"}
        fault, state = run.log.fault(step.name), run.log.state(step.name).state
        if entry["state"] == "done":
            entry["seconds"] = run.log.seconds[step.name]
        elif fault is not None:
            entry |= {"state": state, "fault": fault}
        elif state == "unfinished":
            entry |= {"state": "running"} if in_use else _interrupted(run)
        if step.trains:
            entry |= _trials(run, step, entry["state"])
        if step is SWEEP and (prefix := prefix_progress(run)) is not None:
            entry["prefix"] = prefix
        steps[step.name] = entry
    running = in_use or any(entry.get("going_on") for entry in steps.values())
    found = {"path": str(run.path), "running": running, "recommendation": _recommended(run)}
    return {**found, "steps": steps}


def _interrupted(run: Run) -> dict[str, str]:
    return {"state": "interrupted", "resume": run.command("run")}


def _recommended(run: Run) -> dict[str, Any] | None:
    """Return what the run recommends; None where it is not validated."""
    if not run.is_done(VALIDATE.name):
        return None
    found = run.recommendation
    return {"mixture": found.chosen, "standing": found.standing, "headline": found.headline}


def status_lines(status: dict[str, Any]) -> Iterator[str]:
    """Describe a status: the answer, or what is running; then a line a step and a worker."""
    yield from _first_line(status)
    for step, entry in status["steps"].items():
        yield f"{step:<{_NAME}} {', '.join(_step_words(entry))}"
        if "fault" in entry:
            verify = f"mixopt verify {_quoted(status)}"
            yield _below(f"{entry['fault']}; {verify} names the command that repairs it")
        if (prefix := entry.get("prefix")) is not None:
            yield _below(f"prefix: {prefix['step']:,} of {prefix['steps']:,} steps")
        for line in detail_lines(entry):
            yield _below(line)
        workers = entry.get("workers", ())
        for number, worker in enumerate(workers[:WORKERS], start=1):
            yield _below(f"worker {number}: {_worker_words(worker)}")
        if len(workers) > WORKERS:
            yield _below(f"and {len(workers) - WORKERS} more workers; --json lists all")


def _first_line(status: dict[str, Any]) -> Iterator[str]:
    if status["recommendation"] is not None:
        yield status["recommendation"]["headline"]
        yield ""
        return
    for step, entry in status["steps"].items():
        if entry["state"] == "running":
            yield f"{step}: {', '.join(_counts(entry)) or 'running'}"
            yield ""
        elif entry["state"] == "interrupted":
            yield f"{step}: interrupted; resume it with: {entry['resume']}"
            yield ""


def _quoted(status: dict[str, Any]) -> str:
    return shlex.quote(status["path"])


def _counts(entry: dict[str, Any]) -> Iterator[str]:
    """Give the trials that have ended, and the time left in full."""
    if entry.get("trials"):
        yield f"{entry['ended']} of {entry['trials']} trials"
    if entry.get("left"):
        yield f"{long_duration(entry['left'])} left"


def _step_words(entry: dict[str, Any]) -> Iterator[str]:
    yield entry["state"]
    if "seconds" in entry:
        yield f"in {duration(entry['seconds'])}"
    if entry.get("trials"):
        yield from _trial_words(entry)


def _below(text: str) -> str:
    """Return a line under the name of a step."""
    return f"{'':<{_NAME}} {text}"


def _trial_words(entry: dict[str, Any]) -> Iterator[str]:
    yield f"{entry['ended']} of {entry['trials']} trials"
    if entry.get("running"):
        yield f"{entry['running']} running"
    if entry["ended"] > entry["finished"]:
        yield f"{entry['ended'] - entry['finished']} failed or diverged"
    for what, name in (("lost", "lost"), ("retried", "retried")):
        if entry.get(what):
            yield f"{entry[what]} {name}"
    if entry.get("not_run"):
        yield f"{entry['not_run']} not run"
    if entry.get("tokens_per_second"):
        yield f"{short_count(entry['tokens_per_second'])} tokens/s"
    if entry.get("left"):
        yield f"{duration(entry['left'])} left"


def _worker_words(worker: dict[str, Any]) -> str:
    names = worker["trials"]
    words: str = worker["doing"]
    if names:
        words += f" {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    if worker["node"] not in {"", host_name()}:
        words += f" on {worker['node']}"
    if worker["total"]:
        done, total = worker["done"], worker["total"]
        words += f", {done / total:.0%} of {short_count(total)} tokens"
    if worker["tokens_per_second"]:
        words += f", {short_count(worker['tokens_per_second'])} tokens/s"
    return words


def _trials(run: Run, step: Step, step_state: str) -> dict[str, Any]:
    """Count what the folder of a step that trains holds; a sweep's later rounds are counted in."""
    folder, running = step.trial_folder(run.path), step_state == "running"
    workers = read_progress(folder) if running else []
    # What outlives its owner, or never had one, has no one else to speak for it.
    alone = step_state in {"interrupted", "waiting"} and folder.is_dir()
    left = left_running(run, folder) if alone else []
    silent = {"not_asked": not_asked(run)} if alone and not_asked(run) else {}
    if not (folder / GROUPS).exists():
        return _shown(workers) if workers else silent | _going_on(left)
    total, missing = sum(len(names) for names in read_groups(folder)), 0
    if step is SWEEP:
        total, missing = planned_trials(run), not_run(run)
    files = step.trial_files(run.path)
    results = [read_entry(path)[1] for path in files]
    finished = sum(result.status == "finished" for result in results)
    found: dict[str, Any] = {
        "trials": total,
        "ended": len(results),
        "finished": finished,
        "failed": len(results) - finished,
        **({"not_run": missing} if missing else {}),
        **silent,
    }
    found |= sweep_details(folder, results, left or workers, total - missing)
    found |= _going_on(left)
    if workers:
        to_go = total - missing - len(results)
        each = run.config.validation_tokens if step is VALIDATE else run.config.proxy.tokens
        known = seconds_left(read_attempts(folder), workers, to_go)
        return {**found, **_shown(workers, to_go * each, known)}
    seconds = _left(folder / GROUPS, files, total) if running else None
    return found if seconds is None else {**found, "left": seconds}


def _going_on(left: Sequence[GroupState]) -> dict[str, Any]:
    """Return what tasks do that no owner watches; nothing where there are none."""
    if not left:
        return {}
    return {
        "going_on": len(left),
        "running": sum(len(group.trials) for group in left),
        "workers": [asdict(group) for group in left],
    }


def _shown(
    workers: Sequence[GroupState], tokens: int = 0, left: float | None = None
) -> dict[str, Any]:
    """Return what only a running sweep knows; without a time left, by the tokens to train."""
    known: dict[str, Any] = {"running": sum(len(group.trials) for group in workers)}
    rate = sum(group.tokens_per_second or 0.0 for group in workers)
    if rate:
        known["tokens_per_second"] = round(rate, 1)
        by_tokens = max(0.0, (tokens - sum(group.done for group in workers)) / rate)
        known["left"] = round(by_tokens if left is None else left, 1)
    return {**known, "workers": [asdict(group) for group in workers]}


def _left(groups: Path, files: Sequence[Path], total: int) -> float | None:
    """Return the seconds left, by the trials since groups were last formed; None below two."""
    begun = groups.stat().st_mtime
    times = sorted(t for t in (path.stat().st_mtime for path in files) if t >= begun)
    if len(times) < 2 or len(files) >= total:
        return None
    each = (times[-1] - begun) / len(times)
    left = each * (total - len(files)) - (time.time() - times[-1])
    return max(0.0, round(left, 1))
