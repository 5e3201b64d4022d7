"""The Slurm executor: one job array for all groups started together, watched by `squeue` and files.

An array task trains one folder and writes its exit code there, because many clusters have no
accounting (`sacct`). The run directory must be on a file system that all nodes share. A task that
gets SIGTERM returns its trials for a retry. If the owner is killed, the array continues, and the
same command follows it again. Only this user's jobs with this sweep's job name are cancelled.
"""

import hashlib
import math
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field

from mixopt.errors import ConfigError, RunError, is_control, plain_line
from mixopt.sweeps.contract import COMMAND, ONE_THREAD, Ended, Site, State
from mixopt.sweeps.trial_files import LOGS, WORK
from mixopt.system import checked_as, write_text

WORKERS = 64  # default number of groups that train at once
MAX_ARRAY = 1000  # tasks of one array; the default of Slurm's MaxArraySize is 1,001
DEADLINE = 30.0  # seconds that a Slurm command may take
ASK_EVERY = 5.0  # seconds between two calls of squeue
MAX_REASON = 300  # characters
EXIT = "exit"  # file of a task's exit code
SCRIPT = "array.sh"
FOLDERS = "folders.txt"  # the folder of each task, one a line
_PENDING = {"PENDING", "REQUEUED", "CONFIGURING"}
_LIVE = _PENDING | {"RUNNING", "SUSPENDED", "RESIZING", "STOPPED", "COMPLETING"}
# squeue's reasons for tasks that will never start.
_NEVER = {
    "PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "InvalidAccount", "InvalidQOS",
}  # fmt: skip
# The shell forwards SIGTERM to its child, waits for it, and writes its exit code.
_RUN = """\
folder=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {folders})
exec >> {logs}/"$(basename "$folder")".log 2>&1
{setup}
set +e
{command} "$folder" &
child=$!
trap 'kill -TERM $child 2>/dev/null' TERM
wait $child
code=$?
while kill -0 $child 2>/dev/null; do wait $child; code=$?; done
echo $code > "$folder/{exit}.tmp" && mv "$folder/{exit}.tmp" "$folder/{exit}"
"""


def _without_control(text: str) -> str:
    if any(map(is_control, text)):
        raise ValueError("has control characters")
    return text


_Name = Annotated[str, Field(pattern="^[a-z][a-z-]*$")]
_Line = Annotated[
    str,
    Field(coerce_numbers_to_str=True, min_length=1, max_length=1000),
    AfterValidator(_without_control),
]


class _QueuedTask(NamedTuple):
    """A task in Slurm's queue."""

    state: str
    reason: str


class SlurmExecutor:
    """Tasks of job arrays; a handle is a task such as `123_4` and the path of its folder."""

    poll = 1.0
    queues = outlives_owner = True

    def __init__(
        self,
        site: Site,
        *,
        sbatch: Mapping[str, str | int] | None = None,
        setup: Sequence[str] = (),
        python: str = shlex.quote(sys.executable),
    ) -> None:
        """Check the options; submits nothing.

        Args:
            site: The sweep.
            sbatch: Options of sbatch by their long names: `{partition: gpu, time: "4:00:00"}`.
            setup: Shell lines to run before mixopt, such as `module load cuda/12.4`.
            python: Command of a Python on the nodes that has mixopt installed.
        """
        self._site = site
        self._work = site.folder / WORK
        self._say_once = cache(site.say)
        self._queue: dict[str, _QueuedTask] = {}  # this sweep's tasks, as squeue last listed them
        self._is_silent = False  # whether squeue gave no answer when last asked
        self._last_asked = -math.inf
        options = dict[_Name, _Line]
        self._sbatch = checked_as(options, sbatch or {}, "sweep.options.sbatch", ConfigError)
        self._setup = checked_as(list[_Line], setup, "sweep.options.setup", ConfigError)
        self._python = checked_as(_Line, python, "sweep.options.python", ConfigError)
        digest = hashlib.sha256(str(site.folder).encode()).hexdigest()[:8]
        run = re.sub(r"[^A-Za-z0-9_.-]", "_", site.folder.parent.name)[:40]
        self._name = f"mixopt-{run}-{digest}"
        self.script(1)

    @property
    def slots(self) -> int:
        """Number of tasks that run at once."""
        return self._site.workers or WORKERS

    def script(self, tasks: int, number: int = 1) -> str:
        """Return the batch script of an array."""
        gpus = self._gpus
        options: dict[str, str | int] = {
            **self._sbatch,
            "job-name": self._name,
            "array": f"0-{tasks - 1}%{self.slots}",
            "output": "/dev/null",  # a task redirects its output to the log of its group
            "ntasks-per-node": 1,
            "signal": "B:TERM@30",  # time to return the trials before the limit
        }
        setup = list(self._setup)
        if gpus:
            options["gpus-per-node"] = gpus
        else:
            threads = " ".join(f"{name}=1" for name in ONE_THREAD)
            setup.append(f"export {threads}")
        lines = [f"#SBATCH --{name}={value}" for name, value in options.items()]
        lines.append("#SBATCH --no-requeue")  # the sweep retries lost groups, and counts retries
        folders = self._work / f"array-{number}" / FOLDERS
        command = shlex.split(self._python) + list(COMMAND)
        text = _RUN.format(
            folders=shlex.quote(str(folders)),
            logs=shlex.quote(str(self._site.folder / LOGS)),
            setup="\n".join(setup),
            command=shlex.join(command),
            exit=EXIT,
        )
        return "\n".join(["#!/bin/bash", "# Written by mixopt.", *lines, "", "set -e", text])

    def start(self, folders: Sequence[Path]) -> list[str]:
        """Submit one array for each thousand folders."""
        handles = []
        for at in range(0, len(folders), MAX_ARRAY):
            part = folders[at : at + MAX_ARRAY]
            number = 1 + len(list(self._work.glob("array-*")))
            array = self._work / f"array-{number}"
            script = array / SCRIPT
            write_text(array / FOLDERS, "".join(f"{folder}\n" for folder in part))
            write_text(script, self.script(len(part), number))
            (self._site.folder / LOGS).mkdir(exist_ok=True)
            process = _run("sbatch", "--parsable", str(script))
            job = process.stdout.strip().partition(";")[0]
            if process.returncode != 0 or not job.isdecimal():
                raise ConfigError(f"sweep.options: refused by sbatch: {_reason(process)}")
            suffix = "" if number == 1 else " again"
            self._site.say(f"submitted{suffix} to Slurm as job {job}: {script}")
            handles += [f"{job}_{task} {folder}" for task, folder in enumerate(part)]
            self._last_asked = -math.inf
        return handles

    def states(self, handles: Sequence[str]) -> dict[str, State]:
        """Return the states of tasks from `squeue` and their exit codes."""
        now = time.monotonic()
        if now - self._last_asked >= ASK_EVERY:
            self._last_asked = now
            try:
                self._queue = self._live_tasks()
                self._is_silent = False
            except RunError as error:
                self._is_silent = True
                self._say_once(f"{error}; tasks continue, and squeue is asked again")
        states = {handle: self._state(handle) for handle in handles}
        if set(states.values()) == {"waiting"}:
            queued = [self._queue.get(_task(handle)) for handle in handles]
            self._say_reasons({task.reason for task in queued if task is not None})
        return states

    def cancel(self, handles: Sequence[str]) -> None:
        """Cancel those tasks that belong to this sweep."""
        live = self._live_tasks() if handles else {}
        tasks = [task for task in map(_task, handles) if task in live]
        if tasks:
            process = _run("scancel", "--quiet", f"--name={self._name}", *tasks)
            if process.returncode != 0 and "Invalid job id" not in process.stderr:
                raise RunError(
                    f"scancel: {_reason(process)}; cancel them with: scancel --name={self._name}"
                )

    def close(self) -> None:
        """Do nothing: no process runs on this machine."""

    def _state(self, handle: str) -> State:
        task, folder = handle.split(" ", 1)
        code = _exit_code(Path(folder))
        if code is not None:
            return Ended.with_code(code)
        if task in self._queue:
            return "waiting" if self._queue[task].state in _PENDING else "running"
        if self._is_silent:  # no answer from squeue; the worker's beats tell whether it runs
            return "waiting"
        return Ended(f"the task {task} is gone from Slurm's queue", "lost")

    def _live_tasks(self) -> dict[str, _QueuedTask]:
        """Return this sweep's tasks in Slurm's queue."""
        options = ("--me", "--noheader", "--array", f"--name={self._name}", "--format=%i|%T|%r")
        process = _run("squeue", *options)
        if process.returncode != 0:
            raise RunError(f"squeue: {_reason(process)}")
        tasks = {}
        for line in process.stdout.splitlines():
            fields = line.strip().split("|", 2)
            if len(fields) == 3 and fields[1] in _LIVE:
                task, state, reason = fields
                tasks[task] = _QueuedTask(state, reason)
        return tasks

    def _say_reasons(self, reasons: set[str]) -> None:
        """Report why all tasks wait; raise ConfigError if they would wait forever."""
        for reason in _NEVER & reasons:
            raise ConfigError(f"sweep.options: tasks would wait forever: {reason}; cancelled")
        if reasons:
            self._say_once(f"tasks wait in Slurm's queue: {', '.join(sorted(reasons))}")

    @property
    def _gpus(self) -> int:
        """GPUs of one task; by default one if the device is CUDA."""
        gpus = self._site.gpus
        if gpus is not None and gpus != int(gpus):
            raise ConfigError(
                f"sweep.gpus: {gpus:g}: Slurm gives whole GPUs to a task; write 1, or use executor"
                " ray"
            )
        if gpus is None:
            return int(self._site.device.startswith("cuda"))
        return int(gpus)


def _task(handle: str) -> str:
    return handle.partition(" ")[0]


def _exit_code(folder: Path) -> int | None:
    """Return the exit code that a task left in its folder; None if there is none."""
    with suppress(OSError, ValueError):
        # NFS may cache that a file is absent; listing the directory asks the server again.
        if EXIT in os.listdir(folder):
            return int((folder / EXIT).read_text())
    return None


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    pipes: Any = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    try:
        return subprocess.run(command, check=False, timeout=DEADLINE, **pipes)
    except subprocess.TimeoutExpired:
        raise RunError(f"{command[0]}: no answer within {DEADLINE:g} s") from None
    except OSError as error:
        raise ConfigError(
            f"{command[0]}: cannot be started: {error.strerror}; executor slurm needs it: start"
            " mixopt on a login node of the cluster"
        ) from error


def _reason(process: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a Slurm command as one line."""
    lines = (process.stderr or process.stdout).replace("sbatch: error: ", "").splitlines()
    text = "; ".join(line.strip() for line in lines if line.strip())
    return plain_line(text)[:MAX_REASON] or "no reason given"
