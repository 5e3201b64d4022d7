"""Let any process that runs `mixopt work` train trials, on hosts that see the run directory.

The owner writes the order, and reads what tasks write (mixopt.sweeps.on_folder.work_folder). It
starts nobody: a scheduler, a Kubernetes Job, SkyPilot or a shell loop does. Groups form where
trials train, so that the owner hands out trials singly.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from mixopt.errors import RunError
from mixopt.sweeps.contract import GroupOutcome, Job, Place, Report, Site
from mixopt.sweeps.on_folder.pulses import Heartbeat
from mixopt.sweeps.on_folder.work_board import WorkAttempt, WorkBoard
from mixopt.sweeps.on_folder.work_folder import WorkFolder, WorkOrder
from mixopt.sweeps.on_folder.work_shapes import (
    COMMAND,
    OrderedTrial,
    OutcomeShape,
    State,
    TaskShape,
)
from mixopt.sweeps.on_folder.work_view import cancel_work, work_tasks
from mixopt.sweeps.progress_file import GroupState
from mixopt.system import Owner, duration, this_process
from mixopt.trials import Progress, Trial, TrialResult, trial_to_json

POLL = 1.0  # seconds between two looks at the folder
SAID_EVERY = 60.0  # seconds between two lines that nobody trains


@dataclass(frozen=True)
class _Settled:
    """What the last attempt at a trial came to."""

    result: TrialResult | None
    reason: str | None
    outcome: OutcomeShape | None
    attempt: WorkAttempt | None


class FolderExecutor:
    """Trials by tasks that somebody else starts.

    Use as a context manager; leaving it in an orderly way closes the order, so that tasks end, and
    by an exception cancels it, so that they stop.
    """

    has_tasks = True  # those of an owner before are its own

    def __init__(self, job: Job, site: Site) -> None:
        """Note what is asked for; nothing is written yet.

        Args:
            job: What all trials share.
            site: Where the sweep is owned.
        """
        self._job, self._site = job, replace(site, trust=site.trust and _needs_trust(job, site))
        self._folder = WorkFolder(site.folder)
        self._board = WorkBoard(self._folder)
        self._order = WorkOrder.of(job, site, [])
        self._groups: dict[int, list[str]] = {}  # those without an outcome
        self._numbers: set[int] = set()  # of all that were ordered
        self._token = this_process()
        self._heart = Heartbeat(self._token, self._beat)
        self._begun = self._said = time.monotonic()
        self._known: set[str] = set()

    @property
    def workers(self) -> int:
        """How many tasks there are, or will be."""
        return self._site.workers or max(1, len(self._board.live_tasks))

    def group_size(self) -> int:
        """Return 1: tasks form groups themselves."""
        return 1

    @staticmethod
    def going_on(folder: Path, options: Mapping[str, Any]) -> list[GroupState]:
        """Return what the tasks that are alive do (mixopt.sweeps.contract.OutlivesOwner)."""
        return [task.state for task in work_tasks(folder) if task.alive and task.doing is not None]

    @staticmethod
    def cancel(folder: Path, options: Mapping[str, Any]) -> list[str]:
        """Cancel the order (mixopt.sweeps.contract.OutlivesOwner)."""
        lines: list[str] = []
        cancel_work(folder, lines.append)
        return lines

    def __enter__(self) -> FolderExecutor:
        """Become the owner of the order."""
        self._known = set(self._folder.read_tasks())
        self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the order, or cancel it, and own it no more."""
        self._heart.end()
        if self._groups or self._folder.order_file.exists():
            state: State = "closed" if kind is None or kind is GeneratorExit else "cancelled"
            self._folder.write_order(replace(self._order, state=state))
        self._folder.owner_file.unlink(missing_ok=True)

    def run(self, groups: Mapping[int, Sequence[Trial]], report: Report) -> Iterator[GroupOutcome]:
        """Have the groups trained.

        Args:
            groups: Trials by the number of their group. Between two outcomes more may be added.
            report: Called with a group's progress and where it is.

        Yields:
            An outcome for each group, as it ends.

        Raises:
            RunError: All tasks say that they cannot train.
        """
        while True:
            self._take(groups)
            self._board.look(self._order)
            for number, outcome in self._ended():
                del self._groups[number]
                yield outcome
            self._take(groups)
            if not self._groups:
                return
            self._report(report)
            self._tend()
            time.sleep(POLL)

    def _tend(self) -> None:
        """Look after tasks: here, report if there are none."""
        tasks = self._board.live_tasks
        now = time.monotonic()
        if tasks:
            self._said = now
            return
        self._refuse_if_none_can()
        if now - self._said > SAID_EVERY or self._said == self._begun:
            self._said = now + 1e-6
            waited = duration(now - self._begun)
            self._site.say(
                f"{len(self._groups)} trials are waiting for tasks ({waited} so far); start tasks "
                f"on hosts that see this folder: {self.work_command()}"
            )

    def work_command(self, task: str = "0/1") -> str:
        """Return the command that serves the order."""
        trust = ["--trust"] if self._site.trust else []
        words = ["mixopt", "work", str(self._site.folder.absolute().parent), "--task", task]
        return shlex.join([*words, *trust])

    def new_tasks(self) -> list[TaskShape]:
        """Return the tasks that have come since this owner began."""
        return [task for token, task in self._board.tasks.items() if token not in self._known]

    def _refuse_if_none_can(self) -> None:
        """Raise where tasks have come, and none of them can train here.

        Raises:
            RunError: With what the first of them says.
        """
        new = self.new_tasks()
        if new and all(task.problem is not None for task in new):
            more = f", and {len(new) - 1} more" if len(new) > 1 else ""
            raise RunError(f"a task on {new[0].owner.host} cannot train{more}: {new[0].problem}")

    def _take(self, groups: Mapping[int, Sequence[Trial]]) -> None:
        """Order the trials of groups that are new, and forget those that nobody asks for."""
        new = {number: group for number, group in groups.items() if number not in self._numbers}
        if not new:
            return
        self._board.look(self._order)
        asked = {
            name: self._order.trials[name] for group in self._groups.values() for name in group
        }
        for number, group in new.items():
            self._groups[number] = [trial.name for trial in group]
            self._numbers.add(number)
            for trial in group:
                asked[trial.name] = self._entry(trial)
        self._order = replace(self._order, trials=asked)
        self._folder.write_order(self._order)

    def _entry(self, trial: Trial) -> OrderedTrial:
        """Return the order of a trial: the attempt that runs or has a result, or a further one."""
        entry = OrderedTrial(trial=trial_to_json(trial))
        last = self._board.last_attempt(trial.name)
        if last is None:
            return entry
        has_result = last.outcome is not None and last.outcome.result is not None
        number = last.number if last.running or has_result else last.number + 1
        return OrderedTrial(trial=entry.trial, attempt=number)

    def _ended(self) -> Iterator[tuple[int, GroupOutcome]]:
        """Yield the groups of which all members have ended."""
        for number, names in list(self._groups.items()):
            settled = [self._settled(name) for name in names]
            if all(one is not None for one in settled):
                yield number, _outcome(number, [one for one in settled if one is not None])

    def _settled(self, name: str) -> _Settled | None:
        """Return what the attempt at a trial came to; None while it has not ended."""
        found = self._board.result(self._order, name)
        if found is not None:
            return _Settled(found[0], None, found[1], None)
        last = self._board.last_attempt(name)
        if last is None or last.running or last.number < self._order.trials[name].attempt:
            return None
        if last.outcome is not None and last.outcome.result is None:
            return _Settled(None, last.outcome.reason, last.outcome, last)
        node = "its task" if last.task is None else f"the task on {last.task.owner.host}"
        return _Settled(None, f"{node} is gone", None, last)

    def _report(self, report: Report) -> None:
        for number, names in self._groups.items():
            for task in self._board.live_tasks:
                if names[0] in task.trials and task.doing is not None:
                    share = max(1, len(task.trials))
                    progress = Progress(task.done // share, task.total // share, task.doing)
                    report(number, progress, _place(task, share))

    def _beat(self, owner: Owner) -> None:
        self._folder.write_beat(self._folder.owner_file, asdict(owner))


def _needs_trust(job: Job, site: Site) -> bool:
    """Tell whether tasks would refuse the order without `--trust`: it names code, or leads out."""
    run = site.folder.absolute().parent
    return ":" in job.proxy or job.proxy == COMMAND or not job.corpus.absolute().is_relative_to(run)


def _outcome(number: int, members: Sequence[_Settled]) -> GroupOutcome:
    """Return the outcome of a group, of its members'."""
    results = [one.result for one in members if one.result is not None]
    left = [one for one in members if one.result is None]
    first = (left or list(members))[0]
    if first.outcome is None:
        task = None if first.attempt is None else first.attempt.task
        place = Place(node="") if task is None else _place(task, max(1, len(task.trials)))
        return GroupOutcome(number, results, first.reason, "lost", place)
    found = first.outcome
    return GroupOutcome(
        number,
        results,
        first.reason,
        found.fault,
        Place(found.node, found.kind, found.gpus / found.trained),
        found.seconds,
        found.trained if left else None,
    )


def _place(task: TaskShape, share: int) -> Place:
    return Place(task.owner.host, task.kind, task.gpus / share)
