"""A sweep for the user of a cluster: lost trials, reasons of failures, hours, nodes.

It is read from the ledger of attempts and from what runs now. A run of an earlier version has
neither, and is shown without.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError
from mixopt.run_directory import Run
from mixopt.sweeps import GroupState, going_on, read_attempts, sweep_totals
from mixopt.system import short_count, within
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
    """Return what the files of a folder of trials tell of a sweep.

    Args:
        folder: The folder.
        results: Of the trials that have ended.
        running: What trains now.
        total: How many trials there will be.
    """
    found: dict[str, Any] = {}
    reasons = failures(results)
    if reasons:
        found["reasons"] = reasons
    attempts = read_attempts(folder)
    if attempts or running:
        totals = sweep_totals(attempts, running, max(0, total - len(results)))
        content = totals.to_json()
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
        ask = partial(going_on, asked.executor, asked.options, folder)
        return within(f"sweep.executor: {asked.executor}", ask)
    return []


def failures(results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """Return why trials failed or diverged, the most frequent reason first.

    Reasons that differ in numbers alone, such as the step at which a loss was no number, are one.
    """
    groups: dict[str, list[TrialResult]] = {}
    for result in sorted(results, key=lambda one: one.trial):
        if result.status != "finished":
            key = re.sub(r"\d+", "0", f"{result.status} {result.reason}")
            groups.setdefault(key, []).append(result)
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
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
