"""Retries of groups that ended without results, and the patience with a worker that stands still.

A group whose worker died is retried once; after the loss of its node it is retried `RETRIES` times.
After a memory error it is split in halves, down to single trials. Halves are saved before they
train, so that a resumed sweep forms the same groups. An error raised by the proxy is final.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from mixopt.sweeps.contract import PATIENCE, RETRIES
from mixopt.sweeps.groups import Beat, GroupOutcome
from mixopt.sweeps.trial_files import read_groups, write_groups
from mixopt.system import Say, first_few, silent
from mixopt.trials import Trial, TrialResult

MAX_POLL_SECONDS = 1.0  # a longer time between two polls was spent suspended


class RetryQueue:
    """The groups that a sweep trains, in order, retries included."""

    def __init__(
        self, folder: Path, groups: Sequence[Sequence[Trial]], finished: Collection[str]
    ) -> None:
        """Queue the groups that have a trial without a result."""
        self._folder = folder
        self._lost_counts = Counter[str]()  # losses of the node, by trial
        self._death_counts = Counter[str]()  # deaths of the worker, by trial
        self.groups: list[Sequence[Trial]] = []
        for group in groups:
            if any(trial.name not in finished for trial in group):
                self.groups.append(group)

    def retry_or_fail(self, outcome: GroupOutcome, say: Say = silent) -> list[TrialResult]:
        """Queue a retry of a group without results, or return its trials as failed."""
        names = [trial.name for trial in outcome.trials]
        reason = outcome.reason or ""
        retry_line = f"{reason}; retrying {first_few(names, 1)}"
        if outcome.fault == "memory" and len(names) > 1:
            say(f"{retry_line}, in halves")
            self.groups += halve_after_memory_error(self._folder, outcome.trials)
            return []
        if outcome.fault == "lost":
            losses = self._count(self._lost_counts, names)
            is_retried = losses <= RETRIES
            reason = f"lost {losses} times: {reason}"
        elif outcome.fault is not None:
            is_retried = self._count(self._death_counts, names) <= 1
            reason = f"tried twice: {reason}"
        else:
            is_retried = False
        if is_retried:
            say(retry_line)
            self.groups.append(outcome.trials)
            return []
        return [TrialResult(name, "failed", 0, 0, 0.0, reason=reason) for name in names]

    def _count(self, counts: Counter[str], names: Sequence[str]) -> int:
        """Count one more failure of these trials; return the largest count among them."""
        counts.update(names)
        return max(counts[name] for name in names)


def halve_after_memory_error(folder: Path, trials: Sequence[Trial]) -> list[Sequence[Trial]]:
    """Split a group in halves; replace it by them in the sweep's saved groups."""
    half = (len(trials) + 1) // 2
    halves = [trials[:half], trials[half:]]
    names = [trial.name for trial in trials]
    groups = read_groups(folder)
    place = groups.index(names)
    groups[place : place + 1] = [names[:half], names[half:]]
    write_groups(folder, groups)
    return halves


class Watch:
    """Measures for how long a worker has made no progress.

    Imports and compilers report nothing, and get ten minutes at least. Time while the owner itself
    was suspended does not count.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock; `patience` is in seconds."""
        self._patience = patience
        self._clock = clock
        self.started = clock()
        self._last_poll = self.started
        self._still_seconds = 0.0
        self._moves = 0

    def overdue(self, beat: Beat) -> str | None:
        """Return why the worker should be killed; None while its patience lasts."""
        now = self._clock()
        passed = min(now - self._last_poll, MAX_POLL_SECONDS)
        self._last_poll = now
        if beat.moves == self._moves:
            self._still_seconds += passed
        else:
            self._still_seconds = 0.0
        self._moves = beat.moves
        is_stepping = beat.doing in ("training", "evaluating")
        limit = self._patience if is_stepping else max(self._patience, PATIENCE)
        if self._still_seconds <= limit:
            return None
        return (
            f"the worker made no progress for {self._still_seconds:.1f} s while {beat.doing},"
            f" longer than its patience of {limit:.1f} s, and was killed; raise sweep.patience if a"
            " step takes so long"
        )
