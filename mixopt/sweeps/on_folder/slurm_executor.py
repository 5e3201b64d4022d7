"""Have trials trained by an array of Slurm's: one `sbatch --array`, `squeue`, and result files.

All that tasks and owner tell each other is in the work folder (on_folder.work_folder), so that
the run directory must be on a file system that all nodes share. squeue says which tasks are gone;
no accounting is needed, and no process of ours stays behind. An owner that is killed leaves the
array at work; the same command takes it up again.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import replace
from types import TracebackType
from typing import Unpack

from mixopt.errors import ConfigError, MixoptError, PluginError, RunError
from mixopt.sweeps.contract import Job, Site
from mixopt.sweeps.on_folder.folder_executor import FolderExecutor
from mixopt.sweeps.on_folder.slurm_commands import (
    QueuedTask,
    SlurmBusyError,
    cancel_jobs,
    note_submitted,
    queued_tasks,
    submit_script,
    submitted_jobs,
)
from mixopt.sweeps.on_folder.slurm_script import (
    CODE,
    LARGEST_ARRAY,
    ArrayPlan,
    SlurmFields,
    array_script,
)
from mixopt.sweeps.on_folder.work_folder import WorkFolder
from mixopt.system import checked_as, duration, write_text

SCRIPT = "array.sh"
ASKED_EVERY = 5.0  # seconds between two questions to squeue
SAID_EVERY = 300.0  # seconds between two lines on why tasks wait, or that squeue is silent
# Reasons of squeue's that do not pass, and the field of `sweep.options` that they are about.
NEVER = {
    "PartitionTimeLimit": "time",
    "PartitionNodeLimit": "partition",
    "BadConstraints": "sbatch",
    "InvalidAccount": "account",
    "InvalidQOS": "qos",
}
FRUITLESS = 2  # arrays in a row that end without a task that could train


class SlurmExecutor(FolderExecutor):
    """Trials by tasks of one array job after another.

    Use as a context manager. Leaving it in an orderly way ends the tasks; by an exception, Ctrl-C
    among them, cancels them.
    """

    def __init__(self, job: Job, site: Site, **options: Unpack[SlurmFields]) -> None:
        """Check what is asked for; nothing is submitted yet.

        Args:
            job: What all trials share.
            site: Where the sweep is owned.
            options: See `SlurmFields`.

        Raises:
            ConfigError: An option has another type, or cannot stand in a script.
            PluginError: The run directory names code to run on nodes, and is not trusted.
        """
        super().__init__(job, site)
        self._options: SlurmFields = checked_as(
            SlurmFields, dict(options), "sweep.options", ConfigError
        )
        code = [name for name in CODE if name in options]
        if code and not site.trust:
            raise PluginError(
                f"sweep.options.{code[0]}: is code that the nodes would run; if you trust whoever"
                " made this directory, add --trust (in Python Means(trust=True))"
            )
        self.script(1)
        self._work = WorkFolder(site.folder)
        self._jobs: list[str] = []
        self._asked = self._silent = self._told = 0.0
        self._fruitless, self._absent = 0, Counter[str]()

    @property
    def workers(self) -> int:
        """How many tasks an array has."""
        return self._options.get("tasks") or self._site.workers or LARGEST_ARRAY

    def script(self, trials: int) -> str:
        """Return the script that trains so many trials.

        Raises:
            ConfigError: A value cannot stand in a script.
        """
        tasks = self._options.get("tasks") or self._site.workers or min(trials, LARGEST_ARRAY)
        run = self._site.folder.absolute().parent
        name = f"mixopt-{run.name}-{self._site.title}"
        logs = self._site.folder.absolute() / "work" / "logs"
        plan = ArrayPlan(run, logs, name, min(tasks, max(1, trials)), sys.executable)
        site = self._site
        if site.gpus is None and self._job.training.device.startswith("cuda"):
            site = replace(site, gpus=1)
        return array_script(plan, site, self._options)

    def __enter__(self) -> SlurmExecutor:
        """Become the owner of the order, and of the array of an owner before."""
        super().__enter__()
        self._jobs = submitted_jobs(self._work)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the order and cancel tasks that wait; or cancel all, where it went wrong."""
        super().__exit__(kind, error, trace)
        orderly = kind is None or kind is GeneratorExit
        try:
            cancel_jobs(self._jobs[-10:], pending_only=orderly)
        except MixoptError as reason:
            self._site.say(f"{reason}; cancel them with: scancel {' '.join(self._jobs[-10:])}")

    def _tend(self) -> None:
        """Ask squeue now and then; submit an array where nobody is left to train."""
        now = time.monotonic()
        if self._asked and now - self._asked < ASKED_EVERY:
            return
        self._asked = now
        try:
            found = queued_tasks(self._jobs[-10:])
        except SlurmBusyError as error:
            self._say_silent(str(error), now)
            return
        self._silent = 0.0
        queue = {task.name: task for task in found}
        self._bury(queue)
        if queue:
            self._say_pending(found, now)
        elif not self._board.live_tasks:
            self._submit()

    def _bury(self, queue: dict[str, QueuedTask]) -> None:
        """Note which tasks squeue has not had twice: they are gone, whatever their files say."""
        for task in self._board.live_tasks:
            if task.job.partition("_")[0] not in self._jobs:
                continue
            entry = queue.get(task.job)
            gone = entry is None or entry.pending
            self._absent[task.owner.token] = (self._absent[task.owner.token] + 1) * gone
            if self._absent[task.owner.token] > 1:
                self._board.pulses.bury(task.owner.token)

    def _submit(self) -> None:
        self._check_fruitful()
        names = {name for group in self._groups.values() for name in group}
        script = self._work.path / SCRIPT
        self._work.logs.mkdir(parents=True, exist_ok=True)
        write_text(script, self.script(len(names)))
        number = submit_script(script)
        self._jobs.append(number)
        note_submitted(self._work, self._jobs)
        again = "" if len(self._jobs) == 1 else " again"
        self._site.say(f"submitted{again} to Slurm as job {number}: {script}")

    def _check_fruitful(self) -> None:
        """Raise where arrays end and no task of theirs could train.

        Raises:
            RunError: With what a task says, or what its log ends with.
        """
        if not self._jobs:
            return
        last = self._jobs[-1]
        tasks = [one for one in self._board.tasks.values() if one.job.partition("_")[0] == last]
        if tasks and all(task.problem is not None for task in tasks):
            first = tasks[0]
            raise RunError(f"task {first.job} on {first.owner.host} cannot train: {first.problem}")
        useful = any(task.problem is None for task in tasks)
        self._fruitless = 0 if useful else self._fruitless + 1
        if self._fruitless >= FRUITLESS:
            raise RunError(
                f"the tasks of job {last} ended before they could read "
                f"{self._site.folder.parent}: {self._last_words(last)}; check that all nodes see "
                "this folder, and that sweep.options.python starts a Python that has mixopt "
                f"there; see scontrol show job {last}"
            )

    def _last_words(self, job: str) -> str:
        """Return the last line that a task of a job has printed."""
        for path in sorted(self._work.logs.glob(f"slurm-{job}_*.out")):
            with path.open("rb") as stream:
                stream.seek(max(0, path.stat().st_size - 2000))
                lines = stream.read().decode("utf-8", "replace").strip().splitlines()
            if lines:
                return f"{path.name} ends with {lines[-1][:300]!r}"
        return "they left no log"

    def _say_silent(self, reason: str, now: float) -> None:
        if not self._silent:
            self._silent = self._told = now
            self._site.say(f"{reason}; tasks continue, and squeue is asked again")
        elif now - self._told > SAID_EVERY:
            self._told = now
            self._site.say(f"{reason}; for {duration(now - self._silent)} by now")

    def _say_pending(self, tasks: list[QueuedTask], now: float) -> None:
        """Say why tasks wait, where all of them do.

        Raises:
            ConfigError: They would wait forever.
        """
        never = next((task for task in tasks if task.pending and task.reason in NEVER), None)
        if never is not None and all(task.pending for task in tasks):
            raise ConfigError(
                f"sweep.options.{NEVER[never.reason]}: job {never.name} would wait forever: "
                f"{never.reason}; it is cancelled"
            )
        if not all(task.pending for task in tasks):
            self._told = now
        elif now - self._told > SAID_EVERY or not self._told:
            self._told = now
            reasons = Counter(task.reason for task in tasks)
            said = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
            self._site.say(f"job {self._jobs[-1]} waits in Slurm's queue: {said}")
