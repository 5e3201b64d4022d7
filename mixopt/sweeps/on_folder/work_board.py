"""The state of an order's trials, from the files of its work folder.

An attempt at a trial is a claim. It has ended when there is an outcome of it, or when the task that
claimed it is gone, or has let go of it. Whether a further one is made is up to the owner of the
order; where there is none, the tasks decide, by the owner's rules (mixopt.sweeps.attempts).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from mixopt.errors import MixoptError
from mixopt.sweeps.on_folder.pulses import Pulses
from mixopt.sweeps.on_folder.work_folder import WorkFolder, WorkOrder, job_hash
from mixopt.sweeps.on_folder.work_shapes import OutcomeShape, TaskShape
from mixopt.system import STALE
from mixopt.trials import TrialResult, result_from_json

HIDDEN = 120.0  # seconds for which a file server may not show a file that another host wrote


@dataclass(frozen=True)
class WorkAttempt:
    """One attempt at a trial.

    Attributes:
        trial: Its name.
        number: From 1.
        token: The task that has claimed it; empty while that cannot be read.
        task: What that task says; None where it is not known.
        outcome: What became of it; None where nothing is written.
        running: Whether it may still have an outcome.
    """

    trial: str
    number: int
    token: str
    task: TaskShape | None
    outcome: OutcomeShape | None
    running: bool

    @property
    def lost(self) -> bool:
        """Whether the place went away where it was."""
        return not self.running and (self.outcome is None or self.outcome.fault == "lost")

    @property
    def key(self) -> str:
        """How tasks name it."""
        return f"{self.trial}.{self.number}"


class WorkBoard:
    """Claims, outcomes and tasks of a work folder, read again at each `look`."""

    def __init__(self, folder: WorkFolder, clock: Callable[[], float] = time.monotonic) -> None:
        """Read nothing yet; `clock` counts seconds."""
        self._folder, self._clock = folder, clock
        self.pulses = Pulses(clock)
        self.tasks: dict[str, TaskShape] = {}
        self.owned = False
        self._tokens: dict[tuple[str, int], str] = {}
        self._first_seen: dict[tuple[str, int], float] = {}
        self._outcomes: dict[str, OutcomeShape] = {}
        self._attempts: dict[str, list[int]] = {}
        self._by_attempt: dict[tuple[str, int], OutcomeShape] = {}
        self._alive: set[str] = set()

    @property
    def live_tasks(self) -> list[TaskShape]:
        """The tasks that live, and can train."""
        found = [self.tasks[token] for token in sorted(self._alive)]
        return [task for task in found if task.problem is None]

    def look(self, order: WorkOrder) -> None:
        """Read what is there now."""
        now = self._clock()
        self.tasks = self._folder.read_tasks()
        alive = self.pulses.alive
        self._alive = {
            token for token, task in self.tasks.items() if not task.ended and alive(task.owner)
        }
        owner = self._folder.read_owner()
        self.owned = owner is not None and alive(owner)
        attempts = defaultdict(list)
        for trial, number in self._folder.claimed():
            attempts[trial].append(number)
            self._first_seen.setdefault((trial, number), now)
        self._attempts = {trial: sorted(numbers) for trial, numbers in attempts.items()}
        self._read_outcomes(job_hash(order.job))

    def result(self, order: WorkOrder, trial: str) -> tuple[TrialResult, OutcomeShape] | None:
        """Return the result of a trial, and the outcome that has it; None where there is none."""
        for number in self._attempts.get(trial, ()):
            outcome = self._by_attempt.get((trial, number))
            if outcome is None or outcome.result is None:
                continue
            if outcome.trial == order.trials[trial].trial:
                return result_from_json(outcome.result), outcome
        return None

    def last_attempt(self, trial: str) -> WorkAttempt | None:
        """Return the last attempt at a trial; None where there was none."""
        numbers = self._attempts.get(trial)
        return self._attempt(trial, numbers[-1]) if numbers else None

    def next_attempt(self, order: WorkOrder, trial: str) -> int | None:
        """Return the number of an attempt that may be claimed now; None where none may."""
        last = self.last_attempt(trial)
        if last is None:
            return 1
        if last.running or self.result(order, trial) is not None:
            return None
        wanted = order.trials[trial].attempt > last.number
        again = wanted or (not self.owned and self._again(order, trial))
        return last.number + 1 if again else None

    def is_settled(self, order: WorkOrder, trial: str) -> bool:
        """Tell whether no more will be done about a trial, as far as is known."""
        if self.result(order, trial) is not None:
            return True
        last = self.last_attempt(trial)
        if last is None or last.running or order.trials[trial].attempt > last.number:
            return False
        if last.outcome is not None and last.outcome.reason and last.outcome.fault is None:
            return True
        return not self.owned and not self._again(order, trial)

    def together(self, order: WorkOrder, trial: str) -> int | None:
        """Return how many may train with a trial at most, by what it was short of memory with."""
        limits = [order.trials[trial].together]
        for number in self._attempts.get(trial, ()):
            outcome = self._by_attempt.get((trial, number))
            if outcome is not None and outcome.fault == "memory":
                limits.append((outcome.trained + 1) // 2)
        known = [limit for limit in limits if limit is not None]
        return min(known) if known else None

    def _attempt(self, trial: str, number: int) -> WorkAttempt:
        key = (trial, number)
        outcome, token = self._by_attempt.get(key), self._token(key)
        task = self.tasks.get(token)
        held = token in self._alive and task is not None and f"{trial}.{number}" in task.holding
        seen = self._clock() - self._first_seen[key]
        # A task says what it holds a moment after it has claimed it.
        fresh = seen < STALE and (task is None or token in self._alive)
        hidden = task is not None and f"{trial}.{number}" in task.wrote and seen < HIDDEN
        running = outcome is None and (held or fresh or hidden)
        return WorkAttempt(trial, number, token, task, outcome, running)

    def _again(self, order: WorkOrder, trial: str) -> bool:
        """Tell whether a trial is tried once more where nobody owns the order."""
        died, lost = 0, 0
        last: WorkAttempt | None = None
        for number in self._attempts[trial]:
            last = self._attempt(trial, number)
            alone = last.outcome is not None and last.outcome.trained == 1
            lost += last.lost
            fault = None if last.outcome is None else last.outcome.fault
            died += fault == "died" or (fault == "memory" and alone)
        if last is not None and last.outcome is not None and last.outcome.fault is None:
            return last.outcome.reason is None and last.outcome.result is None
        return died <= 1 and lost <= order.retries

    def _token(self, key: tuple[str, int]) -> str:
        if key not in self._tokens:
            token = self._folder.claim_of(*key)
            if token is None:
                return ""
            self._tokens[key] = token
        return self._tokens[key]

    def _read_outcomes(self, job: str) -> None:
        for name in self._folder.outcome_names():
            if name not in self._outcomes:
                found = self._folder.read_outcome(name)
                if found is not None and _usable(found):
                    self._outcomes[name] = found
        self._by_attempt = {}
        for outcome in self._outcomes.values():
            key = (str(outcome.trial["name"]), outcome.attempt)
            # A result counts whoever claimed the attempt; a failure is the claimant's to tell.
            mine = outcome.result is not None or self._token(key) == outcome.token
            if outcome.job == job and mine and key not in self._by_attempt:
                self._by_attempt[key] = outcome


def _usable(outcome: OutcomeShape) -> bool:
    """Tell whether the result of an outcome, where it has one, is one of its trial."""
    if outcome.result is None:
        return True
    try:
        return result_from_json(outcome.result).trial == str(outcome.trial["name"])
    except MixoptError:
        return False
