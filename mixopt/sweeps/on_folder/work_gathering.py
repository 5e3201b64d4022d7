"""Take results that tasks left in a work folder into the folder of the trials.

It is done at the start of a sweep, whatever its executor: tasks continue when the owner of a sweep
is killed, and may have trained without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixopt.errors import RunError
from mixopt.sweeps.contract import GroupOutcome, Job, Place, Site
from mixopt.sweeps.finite_results import finite
from mixopt.sweeps.ledger import note_attempt
from mixopt.sweeps.on_folder.work_board import WorkBoard
from mixopt.sweeps.on_folder.work_folder import WorkFolder, WorkOrder
from mixopt.sweeps.on_folder.work_view import work_tasks
from mixopt.trials import Trial, TrialFolder, TrialResult


def gather_results(folder: Path, job: Job, trials: Sequence[Trial]) -> dict[str, TrialResult]:
    """Keep the results of trials that tasks have trained, and return them by trial.

    Args:
        folder: The folder of the trials.
        job: What they share; results of another job are left.
        trials: Those that have no result yet.

    Raises:
        RunError: A result cannot be written.
    """
    work = WorkFolder(folder)
    if not work.results.is_dir():
        return {}
    order, board, files = (
        WorkOrder.of(job, Site(folder), trials),
        WorkBoard(work),
        TrialFolder(folder, job.made_by),
    )
    board.look(order)
    found: dict[str, TrialResult] = {}
    for trial in trials:
        held = board.result(order, trial.name)
        if held is None:
            continue
        result, outcome = finite(held[0]), held[1]
        place = Place(outcome.node, outcome.kind, outcome.gpus / outcome.trained)
        note_attempt(
            folder, GroupOutcome(0, [result], place=place, seconds=outcome.seconds), [trial]
        )
        files.write(0, [trial], [result])
        found[trial.name] = result
    if found and len(found) == len(trials):
        work.set_state("closed")
    return found


def check_no_tasks(folder: Path) -> None:
    """Check that no task trains in a folder of trials that another executor is about to train in.

    Raises:
        RunError: Tasks do; with how to continue or stop them.
    """
    busy = [task for task in work_tasks(folder) if task.alive and task.trials]
    if busy:
        nodes = ", ".join(sorted({task.node for task in busy})[:3])
        raise RunError(
            f"{folder}: {len(busy)} tasks of mixopt work are training here ({nodes}); adopt them "
            f"with --executor folder or slurm, or stop them with mixopt cancel {folder.parent}"
        )
