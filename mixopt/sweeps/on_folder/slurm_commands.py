"""The commands of Slurm that a sweep needs: sbatch, squeue and scancel, each with a time limit.

Accounting (sacct) is not asked: many clusters have none. What a job came to is in the files that
its tasks leave; squeue only says which tasks wait or run.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mixopt.errors import ConfigError, MixoptError, RunError
from mixopt.sweeps.on_folder.work_folder import WorkFolder
from mixopt.system import read_json, write_json

SUBMITTED = "submitted.json"
PATIENCE = 60.0  # seconds that a command may take
_JobIds = list[Annotated[str, Field(pattern=r"^\d{1,18}$")]]
_LIVE = {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING", "STOPPED"}
_ENDING = {"COMPLETING"}
# What sbatch's error is about: the field, and how to find a right value.
_FIELDS = (
    ("partition", "sweep.options.partition", "sinfo -s lists the partitions"),
    (
        "account",
        "sweep.options.account",
        "sacctmgr show associations lists the accounts that you may use",
    ),
    ("qos", "sweep.options.qos", "sacctmgr show qos lists them"),
    ("time limit", "sweep.options.time", "sinfo -o '%P %l' shows the limits of the partitions"),
    ("--time", "sweep.options.time", "write it as hours:minutes:seconds or days-hours"),
    ("memory", "sweep.options.memory", "write it as 16G; sinfo -o '%P %m' shows what nodes have"),
    ("cpu count", "sweep.options.cpus", "sinfo -o '%P %c' shows what nodes have"),
    ("--cpus-per-task", "sweep.options.cpus", "sinfo -o '%P %c' shows what nodes have"),
    ("gres", "sweep.gpus", "sinfo -o '%P %G' shows what nodes have"),
    ("gpus", "sweep.gpus", "sinfo -o '%P %G' shows what nodes have"),
    ("node count", "sweep.nodes", "sinfo -s shows how many nodes a partition has"),
    (
        "array",
        "sweep.options.tasks",
        "scontrol show config | grep MaxArraySize shows the largest array",
    ),
    (
        "node configuration",
        "sweep.options (cpus, memory), sweep.gpus or sweep.nodes",
        "sinfo -o '%P %c %m %G' shows what nodes have",
    ),
)


class SlurmBusyError(RunError):
    """The controller gave no answer: it may give one later."""


@dataclass(frozen=True)
class QueuedTask:
    """A task of an array as squeue shows it.

    Attributes:
        name: Job and place in the array, such as 123_4.
        state: Slurm's word, such as PENDING.
        reason: Why it waits, as Slurm says; `None` where there is no reason.
    """

    name: str
    state: str
    reason: str

    @property
    def pending(self) -> bool:
        """Whether it has not begun."""
        return self.state in {"PENDING", "REQUEUED", "CONFIGURING"}


def submit_script(script: Path) -> str:
    """Submit a script.

    Returns:
        The number of the job.

    Raises:
        ConfigError: Slurm is not there, or refuses what the script asks for.
        RunError: The controller gives no answer.
    """
    ended = _run("sbatch", "--parsable", str(script))
    number = ended.stdout.strip().partition(";")[0]
    if ended.returncode == 0 and number.isdecimal():
        return number
    raise _refused(ended.stderr or ended.stdout)


def queued_tasks(jobs: Sequence[str]) -> list[QueuedTask]:
    """Return the tasks of jobs that wait, run or are ending; those that have ended are gone.

    Raises:
        SlurmBusyError: The controller gives no answer.
    """
    if not jobs:
        return []
    form = "--format=%i|%T|%r"
    ended = _run("squeue", "--noheader", "--array", form, f"--jobs={','.join(jobs)}")
    if ended.returncode != 0:
        if "Invalid job id" in ended.stderr:  # the controller has forgotten all of them
            return []
        raise SlurmBusyError(f"squeue: {_first_line(ended.stderr)}")
    rows = [line.strip().split("|", 2) for line in ended.stdout.splitlines()]
    tasks = [QueuedTask(*row) for row in rows if len(row) == 3]
    return [task for task in tasks if task.state in _LIVE | _ENDING]


def cancel_jobs(jobs: Sequence[str], *, pending_only: bool = False) -> None:
    """Cancel jobs; those that have ended stay as they are.

    Raises:
        ConfigError: Slurm is not there.
        SlurmBusyError: The controller gives no answer.
    """
    if jobs:
        ended = _run("scancel", "--quiet", *(["--state=PENDING"] if pending_only else []), *jobs)
        if ended.returncode != 0 and "Invalid job id" not in ended.stderr:
            raise SlurmBusyError(f"scancel {' '.join(jobs)}: {_first_line(ended.stderr)}")


def submitted_jobs(folder: WorkFolder) -> list[str]:
    """Return the jobs that were submitted for a work folder; none where that cannot be read."""
    path = folder.path / SUBMITTED
    try:
        found: list[str] = read_json(path, _JobIds) if path.exists() else []
    except MixoptError:
        return []
    return found


def note_submitted(folder: WorkFolder, jobs: Sequence[str]) -> None:
    """Keep the numbers of the jobs of a work folder."""
    write_json(folder.path / SUBMITTED, list(jobs))


def _run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which(name)
    if program is None:
        raise ConfigError(
            f"sweep.executor: slurm needs {name}, which is not on PATH; start mixopt on a login "
            "node of the cluster, or set sweep.executor: folder and start mixopt work yourself"
        )
    try:
        return subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise SlurmBusyError(f"{name}: no answer within {PATIENCE:g} s") from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be started: {error.strerror or error}") from error


def _refused(text: str) -> MixoptError:
    """Return the error of what sbatch refuses, with the field to change."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in text.splitlines()]
    said = "; ".join(dict.fromkeys(line.strip() for line in lines if line.strip()))
    lower = said.lower()
    if re.search(r"unable to contact|connection refused|timed out|communication", lower):
        return RunError(f"sbatch: {said}; is the cluster's controller up? Run it again later")
    for word, field, hint in _FIELDS:
        if word in lower:
            return ConfigError(f"{field}: refused by sbatch: {said}; {hint}")
    return ConfigError(f"sweep.options: refused by sbatch: {said or 'no reason given'}")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
