"""How far a run is: steps done, trials finished, running and failed, and the time left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mixopt.pipeline.rounds import not_run, planned_trials
from mixopt.run_directory import STEPS, SWEEP, Run, Step
from mixopt.system import duration, is_in_use, read_json
from mixopt.trials import GROUPS


def run_status(run: Run) -> dict[str, Any]:
    """Return each step's state, and counts of trials where a step trains.

    The time left of a sweep is what the trials of a round so far took, by the files' times; it is
    absent before two are there.
    """
    in_use = is_in_use(run.path)
    steps: dict[str, Any] = {}
    for step in STEPS:
        entry: dict[str, Any] = {"state": "done" if run.is_done(step.name) else "waiting"}
        if entry["state"] == "done":
            entry["seconds"] = run.seconds[step.name]
        elif run.is_begun(step.name):
            entry["state"] = "running" if in_use else "interrupted"
        if step.trains:
            entry |= _trials(run, step, running=entry["state"] == "running")
        steps[step.name] = entry
    return {"path": str(run.path), "steps": steps}


def status_lines(status: dict[str, Any]) -> Iterator[str]:
    """Say a status in words, a line a step."""
    for step, entry in status["steps"].items():
        words = [entry["state"]]
        if "seconds" in entry:
            words.append(f"in {duration(entry['seconds'])}")
        if entry.get("trials"):
            words.append(f"{entry['ended']} of {entry['trials']} trials")
            unfinished = entry["ended"] - entry["finished"]
            words += [f"{unfinished} failed or diverged"] if unfinished else []
            words += [f"{entry['not_run']} not run"] if entry.get("not_run") else []
            words += [f"{duration(entry['left'])} left"] if entry.get("left") else []
        yield f"{step:<9} {', '.join(words)}"


def _trials(run: Run, step: Step, *, running: bool) -> dict[str, Any]:
    """Count what the folder of a step that trains holds; a sweep's later rounds are counted in."""
    groups = step.trial_folder(run.path) / GROUPS
    if not groups.exists():
        return {}
    total, missing = sum(len(names) for names in read_json(groups)), 0
    if step is SWEEP:
        total, missing = planned_trials(run), not_run(run)
    files = step.trial_files(run.path)
    states = [read_json(path)["result"]["status"] for path in files]
    found: dict[str, Any] = {
        "trials": total,
        "ended": len(states),
        "finished": states.count("finished"),
        **({"not_run": missing} if missing else {}),
    }
    left = _left(groups, files, total) if running else None
    return found if left is None else {**found, "left": left}


def _left(groups: Path, files: Sequence[Path], total: int) -> float | None:
    """Return the seconds left, by the trials since groups were last formed; None below two."""
    begun = groups.stat().st_mtime
    times = sorted(t for t in (path.stat().st_mtime for path in files) if t >= begun)
    if len(times) < 2 or len(files) >= total:
        return None
    each = (times[-1] - begun) / len(times)
    left = each * (total - len(files)) - (time.time() - times[-1])
    return max(0.0, round(left, 1))
