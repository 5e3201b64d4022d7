"""Train a list of trials on an executor, resumably.

Which trials train together is decided once and kept (`groups.json`), because in bfloat16 a
member's numbers depend slightly on the size of its group: a resumed sweep forms the same
groups, and trials of a later round form groups of their own. A trial that diverges or fails is
recorded with its reason, and the rest go on.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mixopt.errors import RunError
from mixopt.sweeps.executors import GroupOutcome, Job, LocalExecutor
from mixopt.system import Update, progress, read_json, write_json
from mixopt.trials import GROUPS, Losses, Progress, Trial, TrialFolder, TrialResult


def run_trials(
    trials: Sequence[Trial],
    job: Job,
    folder: Path,
    *,
    workers: int | None = None,
    title: str = "trials",
    planned: int | None = None,
) -> list[TrialResult]:
    """Train the trials that have no result yet.

    Args:
        trials: All trials, finished ones included.
        job: The proxy, the corpus and the length of training.
        folder: Where each finished trial has a file.
        workers: Processes; one a core or GPU when None.
        title: What the progress bar says.
        planned: How many trials there will be in all, for the progress; those given when None.

    Returns:
        A result for each trial, in their order.

    Raises:
        RunError: No trial finished at all, with the first reason.
    """
    files = TrialFolder(folder)
    results = files.results(trials)
    if len(results) < len(trials):
        with LocalExecutor(job, workers, folder / "workers.log") as executor:
            groups = _groups(trials, executor, folder)
            waiting = {n: g for n, g in groups.items() if any(t.name not in results for t in g)}
            total = max(planned or 0, len(trials))
            with progress(title, job.training.tokens * total) as update:
                meter = _SweepMeter(total, len(results), job.training.tokens, update)
                for outcome in executor.run(waiting, meter.report):
                    members = waiting[outcome.group]
                    new = _results_of(outcome, members)
                    files.write(outcome.group, members, new)
                    meter.ended(outcome.group, sum(m.name not in results for m in members))
                    results |= {t.name: r for t, r in zip(members, new, strict=True)}
    return _checked([results[trial.name] for trial in trials], folder)


def _groups(
    trials: Sequence[Trial], executor: LocalExecutor, folder: Path
) -> dict[int, list[Trial]]:
    """Read the groups that were formed before, and form more of trials that are in none."""
    path = folder / GROUPS
    by_name = {trial.name: trial for trial in trials}
    groups: list[list[str]] = read_json(path) if path.exists() else []
    grouped = {name for names in groups for name in names}
    if not grouped <= by_name.keys():
        raise RunError(f"{path}: holds other trials than the design; delete {folder}")
    new = [name for name in by_name if name not in grouped]
    if new:
        # A group no larger than leaves work for every worker.
        size = min(executor.group_size(), -(-len(new) // executor.workers))
        groups += [new[at : at + size] for at in range(0, len(new), size)]
        write_json(path, groups)
    return {n: [by_name[name] for name in names] for n, names in enumerate(groups)}


def _results_of(outcome: GroupOutcome, members: Sequence[Trial]) -> list[TrialResult]:
    """Return the results of a group; where there are none, one failure for each member."""
    if outcome.results is not None and [r.trial for r in outcome.results] == [
        member.name for member in members
    ]:
        return [_finite(result) for result in outcome.results]
    reason = outcome.reason or "the proxy returned results of other trials than it was given"
    return [TrialResult(m.name, "failed", 0, 0, 0.0, reason=reason) for m in members]


def _finite(result: TrialResult) -> TrialResult:
    """Return a result; one that is called finished with a loss that is no number diverged."""
    curve = tuple(losses for losses in result.curve if _is_finite(losses))
    if result.status == "finished" and (result.losses is None or not _is_finite(result.losses)):
        reason = "the proxy reports a loss that is not finite"
        return replace(result, status="diverged", losses=None, curve=curve, reason=reason)
    return replace(result, curve=curve)


def _is_finite(losses: Losses) -> bool:
    values = (*losses.nats_per_token.values(), *losses.bits_per_byte.values())
    return all(math.isfinite(value) for value in values)


def _checked(results: list[TrialResult], folder: Path) -> list[TrialResult]:
    if results and all(result.status != "finished" for result in results):
        first = results[0]
        raise RunError(
            f"{folder}: none of {len(results)} trials finished; the first {first.status}:"
            f" {first.reason}. Mend it and run again with --retry-failed"
        )
    return results


class _SweepMeter:
    """Adds up the progress of the groups: trials done and tokens a second."""

    def __init__(self, trials: int, finished: int, tokens: int, update: Update) -> None:
        self._trials, self._finished, self._tokens = trials, finished, tokens
        self._update, self._start = update, time.monotonic()
        self._before = finished * tokens
        self._running: dict[int, int] = {}
        self._lock = threading.Lock()

    def report(self, group: int, progress: Progress) -> None:
        """Note the progress of a group that trains."""
        with self._lock:
            self._running[group] = progress.done
            self._show()

    def ended(self, group: int, members: int) -> None:
        """Note the end of a group."""
        with self._lock:
            self._running.pop(group, None)
            self._finished += members
            self._show()

    def _show(self) -> None:
        done = self._finished * self._tokens + sum(self._running.values())
        rate = (done - self._before) / max(time.monotonic() - self._start, 1e-9)
        note = f"{self._finished}/{self._trials} trials, {rate / 1000:,.0f}k tokens/s"
        self._update(done, note)
