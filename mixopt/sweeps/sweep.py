"""Train a list of trials on an executor, resumably.

Which trials train together is decided once and kept; trials of a later round form groups of their
own. A group whose worker died is tried once more (mixopt.sweeps.attempts). A trial that diverges or
fails is recorded with its reason, and the rest continue.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mixopt.errors import RunError
from mixopt.sweeps.attempts import Attempts, read_groups, write_groups
from mixopt.sweeps.contract import PATIENCE, RETRIES, Executor, Job, Site, make_executor
from mixopt.sweeps.costs import GroupState, note_attempt, read_attempts
from mixopt.sweeps.group_folder import Beat, Group, read_beat
from mixopt.sweeps.group_runner import GroupRunner, pending
from mixopt.sweeps.progress import SweepMeter, shown_progress
from mixopt.sweeps.result_files import GROUPS, WORK, TrialFolder
from mixopt.system import Say, load_plugin, progress, silent
from mixopt.trials import Trial, TrialResult

FILES = "files"  # folder of a folder of trials: what a proxy keeps of each


@dataclass(frozen=True)
class Means:
    """What a sweep runs on.

    Attributes:
        executor: Name of the executor.
        options: What it is made with.
        workers: How many groups train at once; as the executor finds when None.
        patience: Seconds without a sign of life or progress after which a worker is killed.
        gpus: GPUs of one worker; one, where there are any, when None.
        nodes: Nodes of one worker, where the executor can give several.
        retries: How often a group whose place went away is handed out again.
    """

    executor: str = "local"
    options: Mapping[str, Any] = field(default_factory=dict)
    workers: int | None = None
    patience: float = PATIENCE
    gpus: float | None = None
    nodes: int = 1
    retries: int = RETRIES

    def site(self, folder: Path, device: str, title: str = "trials", say: Say = silent) -> Site:
        """Return what an executor is told."""
        return Site(folder.absolute(), device, self.workers, self.gpus, self.nodes, title, say)


def run_trials(
    trials: Sequence[Trial],
    job: Job,
    folder: Path,
    *,
    means: Means | None = None,
    title: str = "trials",
    planned: int | None = None,
    say: Say = silent,
) -> list[TrialResult]:
    """Train the trials that have no result yet."""
    means, folder = means or Means(), folder.absolute()
    files = TrialFolder(folder, job.made_by)
    training = replace(job.training, files=str(folder / FILES))
    job = replace(job, corpus=job.corpus.absolute(), training=training)
    results = files.results(trials)
    if len(results) < len(trials):
        total, tokens = max(planned or 0, len(trials)), training.tokens
        site = means.site(folder, training.device, title, lambda line: say(f"{title}: {line}"))
        executor = make_executor(means.executor, means.options, site)
        with (
            GroupRunner(job, site, executor, means.patience) as runner,
            progress(title, tokens * total) as update,
        ):
            before = read_attempts(folder)
            meter = SweepMeter(total, tokens, list(results.values()), update, before)
            with shown_progress(folder, meter):
                _train(trials, runner, files, results, meter, means.retries, site.say)
    return _checked([results[trial.name] for trial in trials], folder)


def _train(
    trials: Sequence[Trial],
    runner: GroupRunner,
    files: TrialFolder,
    results: dict[str, TrialResult],
    meter: SweepMeter,
    retries: int,
    say: Say,
) -> None:
    """Train what has no result yet, and add the results to the existing ones."""
    meter.tuning()
    groups = _groups(trials, runner, files.path)
    attempts = Attempts(files.path, groups, list(results), retries)
    meter.tuned(attempts)
    for outcome in runner.run(attempts.waiting, meter.report):
        members = attempts.waiting[outcome.group]
        meter.noted(note_attempt(files.path, outcome, members))
        again, failed = attempts.settle(outcome)
        if again:
            say(again)
        by_name = {result.trial: result for result in outcome.results}
        for trial in failed:
            reason = attempts.reason(outcome)
            by_name[trial.name] = TrialResult(trial.name, "failed", 0, 0, 0.0, reason=reason)
        ended = [trial for trial in members if trial.name in by_name]
        new = [by_name[trial.name] for trial in ended]
        if new:
            files.write(outcome.group, ended, new)
        meter.ended(outcome.group, [result for result in new if result.trial not in results])
        results |= by_name


def _groups(trials: Sequence[Trial], runner: GroupRunner, folder: Path) -> list[list[Trial]]:
    """Read the groups that were formed before, and form more of trials that are in none."""
    by_name = {trial.name: trial for trial in trials}
    groups = read_groups(folder)
    grouped = {name for names in groups for name in names}
    if not grouped <= by_name.keys():
        raise RunError(f"{folder / GROUPS}: holds other trials than the design; delete {folder}")
    new = [name for name in by_name if name not in grouped]
    if new:
        # A group no larger than leaves work for every worker.
        size = min(runner.group_size(), -(-len(new) // runner.slots))
        groups += [new[at : at + size] for at in range(0, len(new), size)]
        write_groups(folder, groups)
    return [[by_name[name] for name in names] for names in groups]


def _checked(results: list[TrialResult], folder: Path) -> list[TrialResult]:
    if results and all(result.status != "finished" for result in results):
        first = results[0]
        raise RunError(
            f"{folder}: none of {len(results)} trials finished; the first {first.status}: "
            f"{first.reason}. Fix it and run again with --retry-failed"
        )
    return results


def going_on(means: Means, folder: Path) -> list[GroupState]:
    """Return what trains, or waits for a place, of a sweep whose owner is gone."""
    left = _left(means, folder)
    if not left:
        return []
    states = _executor(means, folder).states(list(left.values()))
    found = []
    for place, handle in left.items():
        if states[handle] in ("waiting", "running"):
            beat = read_beat(place) or Beat()
            trials = [trial.name for trial in Group.read(place).trials]
            found.append(
                GroupState(
                    doing=beat.doing,
                    trials=trials,
                    done=beat.done,
                    total=beat.total,
                    tokens_per_second=None,
                    node=beat.place.node,
                    kind=beat.place.kind,
                    gpus=beat.place.gpus,
                    seconds=beat.seconds,
                )
            )
    return found


def cancel_submitted(means: Means, folder: Path) -> list[str]:
    """Stop what trains of a sweep whose owner is gone; results that are there stay."""
    left = _left(means, folder)
    if not left:
        return []
    _executor(means, folder).cancel(list(left.values()))
    for place in left:
        shutil.rmtree(place, ignore_errors=True)
    return [f"{means.executor}: {len(left)} groups were stopped"]


def _left(means: Means, folder: Path) -> dict[Path, str]:
    """Return the handles of what has no result, of an executor that outlives its owner."""
    outlives = getattr(load_plugin("executor", means.executor), "outlives_owner", False)
    return pending(folder.absolute() / WORK) if outlives else {}


def _executor(means: Means, folder: Path) -> Executor:
    return make_executor(means.executor, means.options, means.site(folder, "auto"))
