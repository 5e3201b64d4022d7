"""Train a list of trials on an executor, resumably.

Groups are formed once and saved (`groups.json`); trials of a later round form groups of their own.
A trial that diverges or fails is recorded with its reason, and the sweep continues. Errors raised
by the proxy are not retried. A group whose worker died is retried once; after a memory error it is
split in halves, down to single trials; after the loss of its node it is retried `RETRIES` times.
Halves are saved before they train, so that a resumed sweep forms the same groups.

With `sweep.stop` all trials train to a part of their tokens and are `stopped`; those that the
caller selects continue from their states, in groups of their own.
"""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mixopt.config import SweepConfig
from mixopt.errors import RunError
from mixopt.sweeps.contract import RETRIES, Ended, Executor, Job, Site
from mixopt.sweeps.groups import Beat, GroupOutcome, GroupRunner, pending, read_beat, take_back
from mixopt.sweeps.progress import note_attempt, sweep_meter
from mixopt.sweeps.trial_files import FILES, GROUPS, SIZE, WORK, TrialFolder
from mixopt.system import (
    Say,
    build_plugin,
    check_names,
    first_few,
    load_plugin,
    progress,
    read_json,
    silent,
    write_json,
)
from mixopt.trials import Trial, TrialResult

MAX_ALIKE = 3  # equal failures, before any trial finishes, that stop a sweep
_RETRY_HINT = "Fix it and run again with --retry-failed"
Select = Callable[[Mapping[str, TrialResult]], Collection[str]]
_Groups = list[Annotated[list[str], Field(min_length=1)]]
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
    folder, stop = folder.absolute(), sweep.stop
    training = replace(job.training, files=str(folder / FILES))
    job = replace(job, corpus=job.corpus.absolute(), training=training)
    results = TrialFolder(folder, job.made_by).results(trials)

    def train(trials: Sequence[Trial], part: tuple[float, float], planned: int) -> None:
        job_of_part = replace(job, training=replace(training, part=part))
        _train_part(trials, job_of_part, folder, results, sweep, title, planned, say)

    if select is None or stop is None:
        train(trials, (0.0, 1.0), planned)
    else:
        train(trials, (0.0, stop.at), planned)
        names, states = select(results), folder / FILES
        for name in names:
            if results[name].status == "stopped" and not (states / name).exists():
                del results[name]  # not selected before --retry-failed
        train(trials, (0.0, stop.at), planned)
        selected = [trial for trial in trials if trial.name in names]
        train([t for t in selected if not results[t.name].has_failed], (stop.at, 1.0), 0)
        for trial in trials:
            shutil.rmtree(states / trial.name, ignore_errors=True)
    if results and all(result.status != "finished" for result in results.values()):
        first = next((r for r in results.values() if r.has_failed), results[trials[0].name])
        raise RunError(
            f"{folder}: none of {len(results)} trials finished; the first {first.status}: "
            f"{first.reason}. {_RETRY_HINT}"
        )
    return [results[trial.name] for trial in trials]


def _train_part(
    trials: Sequence[Trial],
    job: Job,
    folder: Path,
    results: dict[str, TrialResult],
    sweep: SweepConfig,
    title: str,
    planned: int,
    say: Say,
) -> None:
    """Train trials that lack a result of this part of the training, and add it to `results`."""
    begin, end = job.training.part
    done = {
        trial.name: results[trial.name]
        for trial in trials
        if trial.name in results and not (begin and results[trial.name].status == "stopped")
    }
    if len(done) == len(trials):
        return
    files, alike = TrialFolder(folder, job.made_by), Counter[str]()
    total = max(planned, len(trials))
    tokens = round(job.training.tokens * (end - begin))

    def titled(line: str) -> None:
        say(f"{title}: {line}")

    executor = make_executor(sweep, folder, job.training.device, titled)
    with progress(title, tokens * total) as update:
        report = sweep_meter(total, tokens, done, update)
        with GroupRunner(job, folder, executor, sweep.patience, report) as runner:
            groups = _groups(trials, runner, folder, results.keys())
            attempts = Attempts(folder, groups, done.keys())
            for outcome in runner.run(attempts.groups):
                new = outcome.results or attempts.settle(outcome, titled)
                if begin:
                    new = [_continued(results[result.trial], result) for result in new]
                files.write(outcome.trials[: len(new)], new)
                note_attempt(folder, outcome)
                done |= {result.trial: result for result in new}
                results.update(done)
                if new and all(result.status == "failed" for result in done.values()):
                    alike[failure_kind(new[0])] += 1
                    _check_failures(folder, new[0], alike)
        report(())


def _continued(before: TrialResult, result: TrialResult) -> TrialResult:
    """Return the result of a continued trial, with the curve and the time of both parts."""
    if before.status != "stopped":  # its owner was killed while it wrote the group's results
        return before
    points = {
        point.tokens: point for point in (*before.curve, before.losses, *result.curve) if point
    }
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


def _check_failures(folder: Path, last: TrialResult, alike: Counter[str]) -> None:
    """Stop a sweep whose first groups all failed with the same error."""
    if alike[failure_kind(last)] == MAX_ALIKE:
        raise RunError(
            f"{folder}: stopped: {MAX_ALIKE} trials in turn failed alike, and none has finished:"
            f" {last.reason}. {_RETRY_HINT}"
        )


def _groups(
    trials: Sequence[Trial], runner: GroupRunner, folder: Path, known: Collection[str]
) -> list[list[Trial]]:
    """Read the saved groups of these trials; form groups of those in none, or among others."""
    by_name = {trial.name: trial for trial in trials}
    groups = read_groups(folder)
    if not set(chain.from_iterable(groups)) <= {*by_name, *known}:
        raise RunError(f"{folder / GROUPS}: holds other trials than the design; delete {folder}")
    grouped = {name for names in groups if by_name.keys() >= set(names) for name in names}
    new = [name for name in by_name if name not in grouped]
    if new:
        # Small enough that every worker gets a group.
        size = min(_group_size(runner, folder), -(-len(new) // runner.executor.slots))
        others = [[name for name in names if name not in new] for names in groups]
        groups = [*filter(None, others), *(new[at : at + size] for at in range(0, len(new), size))]
        write_json(folder / GROUPS, groups)
    return [[by_name[name] for name in names] for names in groups if names[0] in by_name]


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


def read_groups(folder: Path) -> list[list[str]]:
    """Return the names of the trials of each saved group; empty before the first sweep."""
    path = folder / GROUPS
    if not path.exists():
        return []
    try:
        groups: list[list[str]] = read_json(path, _Groups)
        names = Counter(chain.from_iterable(groups))
        check_names(names, f"{path}: trial", RunError)
        for name, count in names.items():
            if count > 1:
                raise RunError(f"{path}: trial {name!r} is in two places")
    except RunError as error:
        raise RunError(f"{error}; delete {path}, and the groups are formed again") from error
    return groups


class Attempts:
    """The groups of a sweep and their retries."""

    def __init__(
        self, folder: Path, groups: Sequence[Sequence[Trial]], finished: Collection[str]
    ) -> None:
        """Select the groups that have a trial without a result."""
        self._folder, self._counts = folder, Counter[tuple[str, bool]]()
        self.groups = [g for g in groups if any(trial.name not in finished for trial in g)]

    def settle(self, outcome: GroupOutcome, say: Say = silent) -> list[TrialResult]:
        """Queue a retry of a group without results, or return its trials as failed."""
        trials, reason, lost = outcome.trials, outcome.reason or "", outcome.fault == "lost"
        names, half = [trial.name for trial in trials], (len(trials) + 1) // 2
        retry_line = f"{reason}; retrying {first_few(names, 1)}"
        if outcome.fault == "memory" and len(trials) > 1:
            say(f"{retry_line}, in halves")
            self.groups += [trials[:half], trials[half:]]
            groups = read_groups(self._folder)
            at = groups.index(names)
            groups[at : at + 1] = [names[:half], names[half:]]
            write_json(self._folder / GROUPS, groups)
            return []
        if outcome.fault is not None:
            self._counts.update((name, lost) for name in names)
            count = max(self._counts[name, lost] for name in names)
            if count <= (RETRIES if lost else 1):
                say(retry_line)
                self.groups.append(trials)
                return []
            reason = f"lost {count} times: {reason}" if lost else f"tried twice: {reason}"
        return [TrialResult(name, "failed", 0, 0, 0.0, reason=reason) for name in names]


def going_on(sweep: SweepConfig, folder: Path) -> list[Beat]:
    """Return the beats of groups that still train or wait after their owner has ended."""
    unfinished = _unfinished(sweep, folder)
    states = make_executor(sweep, folder).states(list(unfinished.values())) if unfinished else {}
    return [
        read_beat(p) for p, handle in unfinished.items() if not isinstance(states[handle], Ended)
    ]


def cancel_submitted(sweep: SweepConfig, folder: Path) -> list[str]:
    """Stop the groups that a sweep's owner left behind; results stay."""
    unfinished = _unfinished(sweep, folder)
    if not unfinished:
        return []
    take_back(make_executor(sweep, folder), unfinished)
    return [f"{sweep.executor}: {len(unfinished)} groups were stopped"]


def _unfinished(sweep: SweepConfig, folder: Path) -> dict[Path, str]:
    """Return the handles of unfinished groups, if the executor outlives its owner."""
    outlives = getattr(load_plugin("executor", sweep.executor), "outlives_owner", False)
    return pending(folder.absolute() / WORK) if outlives else {}
