"""Train a list of trials on an executor, resumably.

Which trials train together is decided once and kept (mixopt.sweeps.groups_file); trials of a
later round form groups of their own. A group whose worker died is tried once more
(mixopt.sweeps.attempts). A trial that diverges or fails is recorded with its reason, and the
rest go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixopt.errors import RunError
from mixopt.sweeps.attempts import Attempts
from mixopt.sweeps.executors import LocalExecutor
from mixopt.sweeps.finite_results import finite
from mixopt.sweeps.groups_file import read_groups, write_groups
from mixopt.sweeps.meter import SweepMeter
from mixopt.sweeps.progress_file import shown_progress
from mixopt.sweeps.watch import PATIENCE
from mixopt.sweeps.worker_process import Job
from mixopt.system import Say, progress, silent
from mixopt.trials import GROUPS, Trial, TrialFolder, TrialResult


def run_trials(
    trials: Sequence[Trial],
    job: Job,
    folder: Path,
    *,
    workers: int | None = None,
    patience: float = PATIENCE,
    title: str = "trials",
    planned: int | None = None,
    say: Say = silent,
) -> list[TrialResult]:
    """Train the trials that have no result yet.

    Args:
        trials: All trials, finished ones included.
        job: The proxy, the corpus and the length of training.
        folder: Where each finished trial has a file.
        workers: Processes; one a core or GPU when None.
        patience: Seconds without a sign of life or progress after which a worker is killed.
        title: What the progress bar says.
        planned: How many trials there will be in all, for the progress; those given when None.
        say: Called with a line about what is tried once more.

    Returns:
        A result for each trial, in their order.

    Raises:
        RunError: No trial finished at all, with the first reason.
    """
    files = TrialFolder(folder)
    results = files.results(trials)
    if len(results) < len(trials):
        total = max(planned or 0, len(trials))
        with (
            LocalExecutor(job, workers, folder / "workers.log", patience) as executor,
            progress(title, job.training.tokens * total) as update,
        ):
            meter = SweepMeter(total, job.training.tokens, list(results.values()), update)
            with shown_progress(folder, meter.state):
                _train(trials, executor, files, results, meter, lambda s: say(f"{title}: {s}"))
    return _checked([results[trial.name] for trial in trials], folder)


def _train(
    trials: Sequence[Trial],
    executor: LocalExecutor,
    files: TrialFolder,
    results: dict[str, TrialResult],
    meter: SweepMeter,
    say: Say,
) -> None:
    """Train what has no result yet, and add the results to those that there are."""
    meter.tuning()
    groups = _groups(trials, executor, files.path)
    attempts = Attempts(files.path, groups, list(results))
    meter.tuned(attempts.waiting)
    for outcome in executor.run(attempts.waiting, meter.report):
        again = attempts.again(outcome)
        if again:
            meter.lost(outcome.group)
            say(again)
            continue
        members = attempts.waiting[outcome.group]
        new = _results_of(outcome.results, attempts.reason(outcome), members)
        files.write(outcome.group, members, new)
        meter.ended(outcome.group, [result for result in new if result.trial not in results])
        results |= {result.trial: result for result in new}


def _groups(trials: Sequence[Trial], executor: LocalExecutor, folder: Path) -> list[list[Trial]]:
    """Read the groups that were formed before, and form more of trials that are in none."""
    by_name = {trial.name: trial for trial in trials}
    groups = read_groups(folder)
    grouped = {name for names in groups for name in names}
    if not grouped <= by_name.keys():
        raise RunError(f"{folder / GROUPS}: holds other trials than the design; delete {folder}")
    new = [name for name in by_name if name not in grouped]
    if new:
        # A group no larger than leaves work for every worker.
        size = min(executor.group_size(), -(-len(new) // executor.workers))
        groups += [new[at : at + size] for at in range(0, len(new), size)]
        write_groups(folder, groups)
    return [[by_name[name] for name in names] for names in groups]


def _results_of(
    results: Sequence[TrialResult] | None, reason: str | None, members: Sequence[Trial]
) -> list[TrialResult]:
    """Return the results of a group; where there are none, one failure for each member."""
    if results is not None and [r.trial for r in results] == [member.name for member in members]:
        return [finite(result) for result in results]
    reason = reason or "the proxy returned results of other trials than it was given"
    return [TrialResult(m.name, "failed", 0, 0, 0.0, reason=reason) for m in members]


def _checked(results: list[TrialResult], folder: Path) -> list[TrialResult]:
    if results and all(result.status != "finished" for result in results):
        first = results[0]
        raise RunError(
            f"{folder}: none of {len(results)} trials finished; the first {first.status}:"
            f" {first.reason}. Mend it and run again with --retry-failed"
        )
    return results
