"""Stop a sweep, wherever it trains: its owner first, then what that has submitted.

What has been trained stays, and the command that began the run resumes from there. The owner comes
first, since it would submit again what it sees stop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mixopt.errors import MixoptError, RunError
from mixopt.pipeline.sweep_view import LOCAL
from mixopt.run_directory import STEPS, Run
from mixopt.sweeps import cancel_submitted
from mixopt.system import interrupt, within, without_secrets


@dataclass
class Cancelled:
    """What was stopped, and what could not be.

    Attributes:
        stopped: A line on each thing that was stopped.
        left: A line on each that continues.
    """

    stopped: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def cancel(run: Run) -> Cancelled:
    """Interrupt the owner of a run that is on this host, and stop what was submitted.

    Args:
        run: The run.

    Returns:
        What was stopped. An owner on another host is left, and said; the executor's work is
        stopped all the same, if the directory is trusted.
    """
    asked, found = run.config.sweep, Cancelled()
    owner = None
    try:
        owner = interrupt(run.path)
        if owner is not None:
            found.stopped.append(f"interrupted process {owner.pid} on {owner.host}")
    except RunError as error:
        found.left.append(str(error))
    folders = _folders(run)
    if run.is_foreign and asked.executor != LOCAL and folders and owner is None:
        found.left.append(
            f"{asked.executor}: its jobs are named by the directory's own record alone; if you"
            " trust whoever made it, add --trust to cancel them"
        )
        return found
    for folder in folders:
        stop = partial(cancel_submitted, asked.executor, asked.options, folder)
        try:
            found.stopped += within(f"sweep.executor: {asked.executor}", stop)
        except MixoptError as error:
            found.left.append(f"{asked.executor}: {error}")
    return found


def cancel_lines(run: Run, found: Cancelled) -> Iterator[str]:
    """Describe what was stopped, line by line."""
    yield from found.stopped
    if found.stopped:
        yield f"finished trials are kept; to resume: {run.command('run')}"
    elif not found.left:
        yield f"{run.path}: nothing is running"
    for line in found.left:
        yield f"still running: {without_secrets(line)}"


def _folders(run: Run) -> list[Path]:
    """Return the folders of the steps that train and are not done."""
    waiting = [step for step in STEPS if step.trains and not run.is_done(step.name)]
    folders = [step.trial_folder(run.path) for step in waiting]
    return [folder for folder in folders if folder.is_dir()]
