"""Train a list of trials on an executor, resumably.

Groups are formed once and saved (`groups.json`); trials of a later round form groups of their own.
A trial that diverges or fails is recorded with its reason, and the sweep continues. Which failures
are retried is in mixopt.sweeps.retries.

With `sweep.stop` all trials train to a part of their tokens and are `stopped`; those that the
caller selects continue from their states, in groups of their own.
"""

import math
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mixopt.config import SweepConfig
from mixopt.errors import RunError
from mixopt.sweeps.contract import Ended, Executor, Job, Site
from mixopt.sweeps.group_runner import GroupRunner, stop_groups
from mixopt.sweeps.groups import Beat, read_beat, unfinished_handles
from mixopt.sweeps.progress import record_attempt, sweep_meter
from mixopt.sweeps.retries import RetryQueue
from mixopt.sweeps.trial_files import (
    FILES,
    GROUPS,
    SIZE,
    WORK,
    TrialFolder,
    read_groups,
    write_groups,
)
from mixopt.system import Say, build_plugin, load_plugin, progress, read_json, silent, write_json
from mixopt.trials import Trial, TrialResult

MAX_EQUAL_FAILURES = 3  # equal failures, before any trial finishes, that stop a sweep
_RETRY_HINT = "Fix it and run again with --retry-failed"
Select = Callable[[Mapping[str, TrialResult]], Collection[str]]
_Size = Annotated[int, Field(ge=1, le=1_000_000)]


def run_trials(
    trials: Sequence[Trial],
    job: Job,
    folder: Path,
    *,
    sweep: SweepConfig,
    select: Select | None = None,
    title: str = "trials",
    planned: int = 0,
    say: Say = silent,
) -> list[TrialResult]:
    """Train the trials that have no result yet; return the results of all trials.

    With `sweep.stop`, `select` returns the names of those that train to the end.
    """
    folder = folder.absolute()
    training = replace(job.training, files=str(folder / FILES))
    job = replace(job, corpus=job.corpus.absolute(), training=training)
    running = _Sweep(job, folder, sweep, title, say)
    results = running.read_results(trials)
    if select is None or sweep.stop is None:
        running.train(trials, (0.0, 1.0), planned)
    else:
        running.train_selected(trials, sweep.stop.at, select, planned)
    if results and all(result.status != "finished" for result in results.values()):
        failures = [result for result in results.values() if result.has_failed]
        first = failures[0] if failures else results[trials[0].name]
        raise RunError(
            f"{folder}: none of {len(results)} trials finished; the first {first.status}: "
            f"{first.reason}. {_RETRY_HINT}"
        )
    return [results[trial.name] for trial in trials]


class _Sweep:
    """A sweep in its folder, with the results so far."""

    def __init__(self, job: Job, folder: Path, config: SweepConfig, title: str, say: Say) -> None:
        self._job = job
        self._folder = folder
        self._config = config
        self._title = title
        self._say = say
        self._files = TrialFolder(folder, job.made_by)
        self._results: dict[str, TrialResult] = {}

    def read_results(self, trials: Sequence[Trial]) -> dict[str, TrialResult]:
        """Read the saved results of trials; return all results, which later training updates."""
        self._results.update(self._files.results(trials))
        return self._results

    def train_selected(
        self, trials: Sequence[Trial], stop: float, select: Select, planned: int
    ) -> None:
        """Train all trials to a part of their tokens, and the selected ones to the end."""
        self.train(trials, (0.0, stop), planned)
        names = select(self._results)
        states = self._folder / FILES
        for name in names:
            if self._results[name].status == "stopped" and not (states / name).exists():
                del self._results[name]  # not selected before --retry-failed
        self.train(trials, (0.0, stop), planned)
        selected = [trial for trial in trials if trial.name in names]
        stopped = [trial for trial in selected if not self._results[trial.name].has_failed]
        self.train(stopped, (stop, 1.0), 0)
        for trial in trials:
            shutil.rmtree(states / trial.name, ignore_errors=True)

    def train(self, trials: Sequence[Trial], part: tuple[float, float], planned: int) -> None:
        """Train the trials that lack a result of this part of the training."""
        begin, end = part
        done = self._results_of_part(trials, begin)
        if len(done) == len(trials):
            return
        job = replace(self._job, training=replace(self._job.training, part=part))
        total = max(planned, len(trials))
        tokens = round(job.training.tokens * (end - begin))
        executor = make_executor(self._config, self._folder, job.training.device, self._titled)
        with progress(self._title, tokens * total) as update:
            report = sweep_meter(total, tokens, done, update)
            with GroupRunner(job, self._folder, executor, self._config.patience, report) as runner:
                self._train_groups(trials, runner, done, is_continued=begin > 0)
            report(())

    def _train_groups(
        self,
        trials: Sequence[Trial],
        runner: GroupRunner,
        done: dict[str, TrialResult],
        *,
        is_continued: bool,
    ) -> None:
        """Train the groups of these trials, and add each result to `done` and to all results."""
        groups = form_groups(trials, runner, self._folder, self._results.keys())
        queue = RetryQueue(self._folder, groups, done.keys())
        failures = Counter[str]()
        for outcome in runner.run(queue.groups):
            new = outcome.results or queue.retry_or_fail(outcome, self._titled)
            if is_continued:
                new = [_continued(self._results[result.trial], result) for result in new]
            self._files.write(outcome.trials[: len(new)], new)
            record_attempt(self._folder, outcome)
            done.update({result.trial: result for result in new})
            self._results.update(done)
            if new and all(result.status == "failed" for result in done.values()):
                failures[failure_kind(new[0])] += 1
                _check_failures(self._folder, new[0], failures)

    def _results_of_part(self, trials: Sequence[Trial], begin: float) -> dict[str, TrialResult]:
        """Return the results that need no more training in the part that begins at `begin`."""
        results = {}
        for trial in trials:
            result = self._results.get(trial.name)
            if result is not None and not (begin and result.status == "stopped"):
                results[trial.name] = result
        return results

    def _titled(self, line: str) -> None:
        self._say(f"{self._title}: {line}")


def _continued(before: TrialResult, result: TrialResult) -> TrialResult:
    """Return the result of a continued trial, with the curve and the time of both parts."""
    if before.status != "stopped":  # its owner was killed while it wrote the group's results
        return before
    points = {}
    for point in (*before.curve, before.losses, *result.curve):
        if point is not None:
            points[point.tokens] = point
    seconds = before.seconds + result.seconds
    return replace(result, curve=tuple(points.values()), seconds=seconds)


def make_executor(
    sweep: SweepConfig, folder: Path, device: str = "auto", say: Say = silent
) -> Executor:
    """Create the executor that a configuration names."""
    site = Site(folder.absolute(), device, sweep.workers, sweep.gpus, say)
    executor: Executor = build_plugin("executor", sweep.executor, sweep.options, {"site": site})
    return executor


def failure_kind(result: TrialResult) -> str:
    """Return a trial's error without names and numbers, to compare the errors of trials."""
    reason = str(result.reason).replace(result.trial, "*")
    reason = re.sub(r"^(tried twice|tried \d+ times|lost \d+ times): ", "", reason)
    reason = re.sub(r"-[0-9a-f]{16}\.|0x[0-9a-f]+|\d+", "0", reason)
    return f"{result.status} {reason}"


def _check_failures(folder: Path, last: TrialResult, counts: Counter[str]) -> None:
    """Stop a sweep whose first groups all failed with the same error."""
    if counts[failure_kind(last)] == MAX_EQUAL_FAILURES:
        raise RunError(
            f"{folder}: stopped: {MAX_EQUAL_FAILURES} groups failed with the same error, and no"
            f" trial has finished: {last.reason}. {_RETRY_HINT}"
        )


def form_groups(
    trials: Sequence[Trial], runner: GroupRunner, folder: Path, known: Collection[str]
) -> list[list[Trial]]:
    """Return the saved groups of these trials; form and save groups of the others.

    A saved group with other trials than these is divided: its trials among these form new groups.
    """
    by_name = {trial.name: trial for trial in trials}
    groups = read_groups(folder)
    designed = {*by_name, *known}
    grouped = set[str]()
    for names in groups:
        if not designed.issuperset(names):
            raise RunError(
                f"{folder / GROUPS}: holds other trials than the design; delete {folder}"
            )
        if by_name.keys() >= set(names):
            grouped.update(names)
    new = [name for name in by_name if name not in grouped]
    if new:
        groups = [*_without(groups, new), *_divided(new, runner, folder)]
        write_groups(folder, groups)

    def trials_named(names: Sequence[str]) -> list[Trial]:
        return [by_name[name] for name in names]

    return [trials_named(names) for names in groups if names[0] in by_name]


def _without(groups: Sequence[Sequence[str]], removed: Collection[str]) -> list[list[str]]:
    """Return groups without the removed trials, and without groups that are then empty."""
    others = []
    for names in groups:
        remaining = [name for name in names if name not in removed]
        if remaining:
            others.append(remaining)
    return others


def _divided(names: list[str], runner: GroupRunner, folder: Path) -> list[list[str]]:
    """Divide trials into groups small enough that every worker gets one."""
    size = min(_group_size(runner, folder), math.ceil(len(names) / runner.executor.slots))
    return [names[first : first + size] for first in range(0, len(names), size)]


def _group_size(runner: GroupRunner, folder: Path) -> int:
    """Return the number of trials in a group, measured once by a worker."""
    if not (folder / SIZE).exists():
        (outcome,) = runner.run([()])
        if outcome.fault is not None:
            (outcome,) = runner.run([()])
        if outcome.tuned is None:
            raise RunError(outcome.reason or "the worker's answer cannot be used: no size")
        write_json(folder / SIZE, outcome.tuned)
    size: int = read_json(folder / SIZE, _Size)
    return size


def running_without_owner(sweep: SweepConfig, folder: Path) -> list[Beat]:
    """Return the beats of groups that still train or wait after their owner has ended."""
    handles = _handles_without_owner(sweep, folder)
    if not handles:
        return []
    states = make_executor(sweep, folder).states(list(handles.values()))
    beats = []
    for path, handle in handles.items():
        if not isinstance(states[handle], Ended):
            beats.append(read_beat(path))
    return beats


def cancel_submitted(sweep: SweepConfig, folder: Path) -> list[str]:
    """Stop the groups that a sweep's owner left behind; results stay."""
    handles = _handles_without_owner(sweep, folder)
    if not handles:
        return []
    stop_groups(make_executor(sweep, folder), handles)
    return [f"{sweep.executor}: {len(handles)} groups were stopped"]


def _handles_without_owner(sweep: SweepConfig, folder: Path) -> dict[Path, str]:
    """Return the handles of unfinished groups, if the executor outlives its owner."""
    if getattr(load_plugin("executor", sweep.executor), "outlives_owner", False):
        return unfinished_handles(folder.absolute() / WORK)
    return {}
