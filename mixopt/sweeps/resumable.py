"""Train a list of trials on an executor, resumably.

Which trials train together is decided once and kept (mixopt.sweeps.groups_file); trials of a
later round form groups of their own. A group whose worker died is tried once more
(mixopt.sweeps.attempts). A trial that diverges or fails is recorded with its reason, and the
rest continue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mixopt.errors import RunError
from mixopt.sweeps.attempts import Attempts
from mixopt.sweeps.contract import RETRIES, Executor, Job, Site, make_executor
from mixopt.sweeps.corpus_watch import CorpusWatch
from mixopt.sweeps.finite_results import finite
from mixopt.sweeps.groups_file import read_groups, write_groups
from mixopt.sweeps.ledger import note_attempt, read_attempts
from mixopt.sweeps.meter import SweepMeter
from mixopt.sweeps.on_folder import check_no_tasks, gather_results
from mixopt.sweeps.progress_file import shown_progress
from mixopt.sweeps.sweep_metrics import SweepMetrics
from mixopt.sweeps.watch import PATIENCE
from mixopt.system import Say, progress, silent
from mixopt.trials import GROUPS, Trial, TrialFolder, TrialResult

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
        trust: Whether those who work in the run directory may import what it records.
    """

    executor: str = "local"
    options: Mapping[str, Any] = field(default_factory=dict)
    workers: int | None = None
    patience: float = PATIENCE
    gpus: float | None = None
    nodes: int = 1
    retries: int = RETRIES
    trust: bool = False

    def site(self, folder: Path, title: str, say: Say) -> Site:
        """Return what an executor is told."""
        asked = (self.workers, self.patience, self.gpus, self.nodes, self.retries, self.trust)
        return Site(folder, *asked, title, say)


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
    """Train the trials that have no result yet.

    Args:
        trials: All trials, finished ones included.
        job: The proxy, the corpus and the length of training.
        folder: Where each finished trial has a file.
        means: What they are trained on; this machine when None.
        title: What the progress bar says.
        planned: How many trials there will be in all, for the progress; those given when None.
        say: Called with a line about what is tried once more.

    Returns:
        A result for each trial, in their order.

    Raises:
        RunError: No trial finished at all, with the first reason.
        PluginError: There is no such executor, or it needs a package that is absent.
        ConfigError: An option that the executor does not have or refuses.
        CorpusError: The corpus changed while trials trained on it.
    """
    means = means or Means()
    files = TrialFolder(folder, job.made_by)
    job = replace(job, training=replace(job.training, files=str(folder / FILES)))
    results, watch = files.results(trials), CorpusWatch(job.corpus)
    results |= gather_results(folder, job, [one for one in trials if one.name not in results])
    if len(results) < len(trials):
        total = max(planned or 0, len(trials))
        site = means.site(folder, title, lambda line: say(f"{title}: {line}"))
        with (
            make_executor(means.executor, means.options, job, site) as executor,
            progress(title, job.training.tokens * total) as update,
        ):
            tokens, before = job.training.tokens, read_attempts(folder)
            if not getattr(executor, "has_tasks", False):
                check_no_tasks(folder)
            meter = SweepMeter(total, tokens, list(results.values()), update, before)
            with shown_progress(folder, meter.state, SweepMetrics(folder, meter.metrics)):
                _train(trials, executor, files, results, meter, site, watch)
    return _checked([results[trial.name] for trial in trials], folder)


def _train(
    trials: Sequence[Trial],
    executor: Executor,
    files: TrialFolder,
    results: dict[str, TrialResult],
    meter: SweepMeter,
    site: Site,
    watch: CorpusWatch,
) -> None:
    """Train what has no result yet, and add the results to the existing ones."""
    meter.tuning()
    groups = _groups(trials, executor, files.path)
    attempts = Attempts(files.path, groups, list(results), site.retries)
    meter.tuned(attempts)
    for outcome in executor.run(attempts.waiting, meter.report):
        members = attempts.waiting[outcome.group]
        watch.check()
        meter.noted(note_attempt(files.path, outcome, members))
        again, failed = attempts.settle(outcome)
        if again:
            site.say(again)
        new = _in_order(members, outcome.results, failed, attempts.reason(outcome))
        if new:
            done = {result.trial for result in new}
            files.write(outcome.group, [trial for trial in members if trial.name in done], new)
        meter.ended(outcome.group, [result for result in new if result.trial not in results])
        results |= {result.trial: result for result in new}


def _in_order(
    members: Sequence[Trial], found: Sequence[TrialResult], failed: Sequence[Trial], reason: str
) -> list[TrialResult]:
    """Return the results that a group has, failures included, in the order of its members."""
    by_name = {result.trial: finite(result) for result in found}
    for trial in failed:
        by_name[trial.name] = TrialResult(trial.name, "failed", 0, 0, 0.0, reason=reason)
    return [by_name[trial.name] for trial in members if trial.name in by_name]


def _groups(trials: Sequence[Trial], executor: Executor, folder: Path) -> list[list[Trial]]:
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


def _checked(results: list[TrialResult], folder: Path) -> list[TrialResult]:
    if results and all(result.status != "finished" for result in results):
        first = results[0]
        raise RunError(
            f"{folder}: none of {len(results)} trials finished; the first {first.status}: "
            f"{first.reason}. Fix it and run again with --retry-failed"
        )
    return results
