"""A view of a work folder from another terminal: its tasks, a trial's log, cancelling.

Nothing is written here but a cancelled order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mixopt.errors import MixoptError
from mixopt.sweeps.on_folder.work_folder import WorkFolder
from mixopt.sweeps.on_folder.work_shapes import TaskShape
from mixopt.sweeps.progress_file import GroupState
from mixopt.system import Say, seems_alive, silent
from mixopt.trials import Doing


@dataclass(frozen=True)
class WorkTask:
    """One task, as it was when it last said something.

    Attributes:
        token: What its files are named by.
        share: Which share it was started for, as K/N.
        job: The scheduler's name of it, such as 123_4; empty outside one.
        node: Where it is.
        kind: The kind of its device.
        gpus: How many GPUs it has.
        doing: What it does with `trials`; None while it waits.
        trials: What it trains.
        done: Training tokens of them together so far.
        total: Of all that they train on.
        alive: Whether it may be at work.
        problem: Why it cannot train there at all.
        log: What its worker prints.
    """

    token: str
    share: str
    job: str
    node: str
    kind: str
    gpus: float
    doing: Doing | None
    trials: tuple[str, ...]
    done: int
    total: int
    alive: bool
    problem: str | None
    log: Path

    @property
    def state(self) -> GroupState:
        """What it does, as a sweep says it of its workers."""
        return GroupState(
            doing=self.doing or "starting",
            trials=list(self.trials),
            done=self.done,
            total=self.total,
            tokens_per_second=None,
            node=self.node,
            kind=self.kind,
            gpus=self.gpus,
        )


def work_tasks(folder: Path) -> list[WorkTask]:
    """Return the tasks that serve or have served a folder of trials; none where it has no order.

    Args:
        folder: The folder of the trials, such as RUN/trials.
    """
    work = WorkFolder(folder)
    return [_task(work, task) for task in work.read_tasks().values()]


def trial_log(folder: Path, trial: str) -> Path | None:
    """Return the log of the task that last claimed a trial; None where no task has.

    Args:
        folder: The folder of the trials.
        trial: Its name.
    """
    work = WorkFolder(folder)
    numbers = [number for name, number in work.claimed() if name == trial]
    token = work.claim_of(trial, max(numbers)) if numbers else None
    known = token is not None and token in work.read_tasks()
    return work.logs / f"{token}.log" if known else None


def cancel_work(folder: Path, say: Say = silent) -> bool:
    """Cancel the order of a folder of trials, and what was submitted to Slurm for it.

    Tasks stop within seconds, and give back what they train; finished trials stay.

    Args:
        folder: The folder of the trials.
        say: Called with a line about what was cancelled, or could not be.

    Returns:
        Whether there was anything to cancel.

    Raises:
        RunError: The order is not what was written.
    """
    from mixopt.sweeps.on_folder.slurm_commands import cancel_jobs, submitted_jobs

    work = WorkFolder(folder)
    changed = work.set_state("cancelled")
    if changed:
        say(f"{work.order_file}: cancelled; tasks stop within seconds")
    jobs = submitted_jobs(work)
    if jobs:
        try:
            cancel_jobs(jobs)
            say(f"scancel {' '.join(jobs)}")
        except MixoptError as error:
            say(str(error))
    return changed or bool(jobs)


def _task(work: WorkFolder, task: TaskShape) -> WorkTask:
    return WorkTask(
        token=task.owner.token,
        share=task.share,
        job=task.job,
        node=task.owner.host,
        kind=task.kind,
        gpus=task.gpus,
        doing=task.doing,
        trials=tuple(task.trials),
        done=task.done,
        total=task.total,
        alive=not task.ended and seems_alive(task.owner),
        problem=task.problem,
        log=work.logs / f"{task.owner.token}.log",
    )
