"""Train a list of trials on an executor, resumably.

Groups are formed once and saved (`groups.json`); trials of a later round form groups of their own.
A trial that diverges or fails is recorded with its reason, and the sweep continues. Errors raised
by the proxy are not retried. A group whose worker died is retried once; after a memory error it is
split in halves, down to single trials; after the loss of its node it is retried `RETRIES` times.
Halves are saved before they train, so that a resumed sweep forms the same groups.
"""

import re
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mixopt.config import SweepConfig
from mixopt.corpus import Corpus
from mixopt.errors import MixoptError, RunError
from mixopt.mixture import Mixture, Phases
from mixopt.sweeps.contract import RETRIES, Ended, Executor, Job, Site
from mixopt.sweeps.groups import Beat, GroupOutcome, GroupRunner, Report, pending, read_beat
from mixopt.sweeps.progress import SweepMeter, note_attempt
from mixopt.sweeps.trial_files import FILES, GROUPS, SIZE, WORK, TrialFolder
from mixopt.system import (
    Say,
    build_plugin,
    check_names,
    first_few,
    load_plugin,
    progress,
    read_json,
    short_count,
    silent,
    write_json,
)
from mixopt.trials import Trial, TrialResult

SHORT, SHORT_TRIAL = 20, "short-trial"  # a first trial on 1/20 of the tokens, and its name
MAX_ALIKE = 3  # equal failures, before any trial finishes, that stop a sweep
_Groups = list[Annotated[list[str], Field(min_length=1)]]
_Size = Annotated[int, Field(ge=1, le=1_000_000)]


def run_trials(
    trials: Sequence[Trial],
    job: Job,
    folder: Path,
    *,
    sweep: SweepConfig,
    title: str = "trials",
    planned: int | None = None,
    say: Say = silent,
) -> list[TrialResult]:
    """Train the trials that have no result yet; return the results of all trials."""
    folder = folder.absolute()
    files = TrialFolder(folder, job.made_by)
    training = replace(job.training, files=str(folder / FILES))
    job = replace(job, corpus=job.corpus.absolute(), training=training)
    results = files.results(trials)
    if len(results) < len(trials):
        total, tokens = max(planned or 0, len(trials)), training.tokens

        def titled(line: str) -> None:
            say(f"{title}: {line}")

        executor = make_executor(sweep, folder, training.device, titled)
        with (
            GroupRunner(job, folder, executor, sweep.patience) as runner,
            progress(title, tokens * total) as update,
        ):
            meter = SweepMeter(total, tokens, results, update)
            if not results and _begins_short(job.proxy):
                _check_short_trial(job, folder, executor, sweep.patience, titled)
            groups = _groups(trials, runner, meter.report, folder)
            attempts = Attempts(folder, groups, results.keys())
            alike: Counter[str] = Counter()
            for outcome in runner.run(attempts.groups, meter.report):
                new = outcome.results or attempts.settle(outcome, titled)
                files.write(outcome.trials[: len(new)], new)
                note_attempt(folder, outcome)
                results |= {result.trial: result for result in new}
                alike.update({failure_kind(one) for one in new[:1] if one.status == "failed"})
                if all(one.status == "failed" for one in results.values()):
                    _check_failures(folder, new, alike)
            meter.report(())
    return _checked([results[trial.name] for trial in trials], folder)


def make_executor(
    sweep: SweepConfig, folder: Path, device: str = "auto", say: Say = silent
) -> Executor:
    """Create the executor that a configuration names."""
    site = Site(folder.absolute(), device, sweep.workers, sweep.gpus, say)
    executor: Executor = build_plugin("executor", sweep.executor, sweep.options, {"site": site})
    return executor


def _check_short_trial(
    job: Job, folder: Path, executor: Executor, patience: float, say: Say
) -> None:
    """Train a short trial, then a full one if that fails: a trainer may have a minimum length."""
    mixture, tokens = Mixture.uniform(Corpus.open(job.corpus).domain_names), job.training.tokens
    if job.training.phases is not None:
        mixture = Phases(job.training.phases).tied(mixture)
    for length in (max(1, tokens // SHORT), tokens):
        say(f"trains one trial of {short_count(length)} tokens before the others")
        short = replace(job, training=replace(job.training, tokens=length))
        trial = Trial(SHORT_TRIAL, mixture, seed=0)
        (outcome,) = GroupRunner(short, folder, executor, patience).run([[trial]])
        result = next(iter(outcome.results), None)
        reason = outcome.reason if result is None else result.reason
        if result is not None and result.status != "failed":
            return
    raise RunError(f"{folder}: the first trial failed, so that no other was begun: {reason}")


def _begins_short(proxy: str) -> bool:
    with suppress(MixoptError):  # the workers report its error
        return bool(getattr(load_plugin("proxy", proxy), "begins_short", False))
    return False


def failure_kind(result: TrialResult) -> str:
    """Return a trial's error without names and numbers, to compare the errors of trials."""
    reason = str(result.reason).replace(result.trial, "*")
    reason = re.sub(r"^(tried twice|tried \d+ times|lost \d+ times): ", "", reason)
    reason = re.sub(r"-[0-9a-f]{16}\.|0x[0-9a-f]+|\d+", "0", reason)
    return f"{result.status} {reason}"


def _check_failures(folder: Path, new: Sequence[TrialResult], alike: Counter[str]) -> None:
    """Stop a sweep whose first groups all failed with the same error."""
    if max(alike.values(), default=0) >= MAX_ALIKE:
        raise RunError(
            f"{folder}: stopped: {MAX_ALIKE} trials in turn failed alike, and none has finished:"
            f" {new[0].reason}. Fix it and run again with --retry-failed"
        )


def _checked(results: list[TrialResult], folder: Path) -> list[TrialResult]:
    if results and all(result.status != "finished" for result in results):
        first = results[0]
        raise RunError(
            f"{folder}: none of {len(results)} trials finished; the first {first.status}: "
            f"{first.reason}. Fix it and run again with --retry-failed"
        )
    return results


def _groups(
    trials: Sequence[Trial], runner: GroupRunner, report: Report, folder: Path
) -> list[list[Trial]]:
    """Read the saved groups, and form groups of the trials that are in none."""
    by_name = {trial.name: trial for trial in trials}
    groups = read_groups(folder)
    grouped = {name for names in groups for name in names}
    if not grouped <= by_name.keys():
        raise RunError(f"{folder / GROUPS}: holds other trials than the design; delete {folder}")
    new = [name for name in by_name if name not in grouped]
    if new:
        # Small enough that every worker gets a group.
        size = min(group_size(runner, folder, report), -(-len(new) // runner.slots))
        groups += [new[at : at + size] for at in range(0, len(new), size)]
        write_json(folder / GROUPS, groups)
    return [[by_name[name] for name in names] for names in groups]


def group_size(runner: GroupRunner, folder: Path, report: Report = lambda _: None) -> int:
    """Return the number of trials in a group, measured once by a worker."""
    for last in (False, True):
        if (folder / SIZE).exists():
            break
        (outcome,) = runner.run([()], report)
        if outcome.tuned is not None:
            write_json(folder / SIZE, outcome.tuned)
        elif last or outcome.fault is None:
            raise MixoptError(outcome.reason or "the worker's answer cannot be used: no size")
    size: int = read_json(folder / SIZE, _Size)
    return size


def read_groups(folder: Path) -> list[list[str]]:
    """Return the names of the trials of each saved group; empty before the first sweep."""
    path = folder / GROUPS
    if not path.exists():
        return []
    try:
        groups: list[list[str]] = read_json(path, _Groups)
        names = Counter(name for group in groups for name in group)
        check_names(names, f"{path}: trial", RunError)
        twice = [name for name, times in names.items() if times > 1]
        if twice:
            raise RunError(f"{path}: trial {twice[0]!r} is in two places")
    except RunError as error:
        raise RunError(f"{error}; delete {path}, and the groups are formed again") from error
    return groups


class Attempts:
    """The groups of a sweep and their retries."""

    def __init__(
        self, folder: Path, groups: Sequence[Sequence[Trial]], finished: Collection[str]
    ) -> None:
        """Select the groups that have a trial without a result."""
        self._folder, self._died, self._lost = folder, Counter[str](), Counter[str]()
        self.groups = [g for g in groups if any(trial.name not in finished for trial in g)]

    def settle(self, outcome: GroupOutcome, say: Say = silent) -> list[TrialResult]:
        """Queue a retry of a group without results, or return its trials as failed."""
        trials, fault, reason = outcome.trials, outcome.fault, outcome.reason or ""
        if fault is None:
            return [_failed(trial, reason) for trial in trials]
        lost = fault == "lost"
        count, allowed = (self._lost, RETRIES) if lost else (self._died, 1)
        half = (len(trials) + 1) // 2 if fault == "memory" else len(trials)
        if half == len(trials):
            count.update(trial.name for trial in trials)
        if max(count[trial.name] for trial in trials) > allowed:
            times = f"lost {allowed + 1} times" if lost else "tried twice"
            return [_failed(trial, f"{times}: {reason}") for trial in trials]
        names = [trial.name for trial in trials]
        how = ", in halves" if half < len(trials) else ""
        say(f"{reason}; retrying {first_few(names, 1)}{how}")
        pieces = [piece for piece in (trials[:half], trials[half:]) if piece]
        self.groups += pieces
        if len(pieces) > 1:
            groups = read_groups(self._folder)
            at = groups.index(names)
            groups[at : at + 1] = [names[:half], names[half:]]
            write_json(self._folder / GROUPS, groups)
        return []


def _failed(trial: Trial, reason: str) -> TrialResult:
    return TrialResult(trial.name, "failed", 0, 0, 0.0, reason=reason)


def going_on(sweep: SweepConfig, folder: Path) -> list[Beat]:
    """Return the beats of groups that still train or wait after their owner has ended."""
    left = _left(sweep, folder)
    states = make_executor(sweep, folder).states(list(left.values())) if left else {}
    return [read_beat(p) for p, handle in left.items() if not isinstance(states[handle], Ended)]


def cancel_submitted(sweep: SweepConfig, folder: Path) -> list[str]:
    """Stop the groups that a sweep's owner left behind; results stay."""
    left = _left(sweep, folder)
    if not left:
        return []
    make_executor(sweep, folder).cancel(list(left.values()))
    for place in left:
        shutil.rmtree(place, ignore_errors=True)
    return [f"{sweep.executor}: {len(left)} groups were stopped"]


def _left(sweep: SweepConfig, folder: Path) -> dict[Path, str]:
    """Return the handles of unfinished groups, if the executor outlives its owner."""
    outlives = getattr(load_plugin("executor", sweep.executor), "outlives_owner", False)
    return pending(folder.absolute() / WORK) if outlives else {}
