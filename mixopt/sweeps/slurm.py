"""Train groups by Slurm: one array for all that is handed out at once, `squeue`, and files.

A task of an array trains one folder and leaves its exit code there, so that no accounting (sacct)
is asked, which many clusters lack. The run directory must be on a file system that all nodes share.
A task that is told to stop gives its trials back. An owner that is killed leaves the array at work;
the same command follows it again. Only jobs of ours are ever cancelled: those of this user that are
called as this sweep calls them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from mixopt.errors import ConfigError, RunError, is_control, plain_line
from mixopt.sweeps.contract import COMMAND, ONE_THREAD, Ended, Site, State
from mixopt.sweeps.trial_files import LOGS, WORK
from mixopt.system import checked_as, write_text

WORKERS = 64  # groups at once, where nobody says how many
MAX_ARRAY = 1000  # tasks of one array; a cluster's MaxArraySize is 1,001 unless it was changed
DEADLINE = 30.0  # seconds that a command of Slurm's may take
ASK_EVERY = 5.0  # seconds between two questions to squeue
MAX_REASON = 300  # characters
EXIT, SCRIPT, FOLDERS = "exit", "array.sh", "folders.txt"
_PENDING = {"PENDING", "REQUEUED", "CONFIGURING"}
_LIVE = _PENDING | {"RUNNING", "SUSPENDED", "RESIZING", "STOPPED", "COMPLETING"}
# Reasons of squeue's that do not pass.
_NEVER = {
    "PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "InvalidAccount", "InvalidQOS",
}  # fmt: skip
_PLAIN = re.compile(r"[A-Za-z0-9_.,:@+/=*\[\]%-]+")


def _plain(text: str) -> str:
    """Check what stands in `#SBATCH --name=value`: nothing that a shell would read."""
    if not _PLAIN.fullmatch(text):
        raise ValueError(
            "cannot be used in a line of sbatch: write letters, digits and punctuation without"
            " spaces and quotes"
        )
    return text


def _line(text: str) -> str:
    if any(is_control(character) for character in text):
        raise ValueError("has control characters")
    return text


_Name = Annotated[str, Field(pattern="^[a-z][a-z-]*$")]
_Value = Annotated[str, Field(coerce_numbers_to_str=True), AfterValidator(_plain)]
_Line = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_line)]
# The shell waits for its child, hands on the notice that time is up, and leaves the exit code.
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


class SlurmBusyError(RunError):
    """The controller gave no answer: it may give one later."""


class SlurmExecutor:
    """Tasks of arrays; the handle of a folder is its task, such as `123_4`, and its path."""

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
        """Check what is asked for; nothing is submitted yet.

        Args:
            site: The sweep.
            sbatch: Options of sbatch by their long names: `{partition: gpu, time: "4:00:00"}`.
            setup: Lines of shell before mixopt starts, such as `module load cuda/12.4`.
            python: How Python is started on the nodes: one that has mixopt.
        """
        where = "sweep.options"
        self._site, self._work = site, site.folder / WORK
        self._queue, self._is_silent = dict[str, list[str]](), False
        self._sbatch = checked_as(dict[_Name, _Value], sbatch or {}, f"{where}.sbatch", ConfigError)
        self._setup = checked_as(list[_Line], setup, f"{where}.setup", ConfigError)
        self._python = checked_as(_Line, python, f"{where}.python", ConfigError)
        digest = hashlib.sha256(str(site.folder).encode()).hexdigest()[:8]
        run = re.sub(r"[^A-Za-z0-9_.-]", "_", site.folder.parent.name)[:40]
        self._name = f"mixopt-{run}-{digest}"
        self._asked, self._lines_said = 0.0, set[str]()
        self.script(1)

    @property
    def slots(self) -> int:
        """How many tasks run at once."""
        return self._site.workers or WORKERS

    def script(self, tasks: int, folders: Path | None = None) -> str:
        """Return the script of an array."""
        folders, gpus = folders or self._work / "array-1" / FOLDERS, self._gpus
        options = {
            **self._sbatch,
            "job-name": self._name,
            "array": f"0-{tasks - 1}%{self.slots}",
            "output": "/dev/null",  # what a task prints goes to the log of its group
            "ntasks-per-node": 1,
            "signal": "B:TERM@30",  # so that a task can give back what it trains
            **({"gpus-per-node": gpus} if gpus else {}),
        }
        lines = [f"#SBATCH --{name}={value}" for name, value in options.items()]
        lines.append("#SBATCH --no-requeue")  # what is lost is handed out again, and counted, here
        threads = f"export {' '.join(f'{name}=1' for name in ONE_THREAD)}"
        text = _RUN.format(
            folders=shlex.quote(str(folders)),
            logs=shlex.quote(str(self._site.folder / LOGS)),
            setup="\n".join([*self._setup, *([] if gpus else [threads])]),
            command=shlex.join([*shlex.split(self._python), *COMMAND]),
            exit=EXIT,
        )
        return "\n".join(["#!/bin/bash", "# Written by mixopt.", *lines, "", "set -e", text])

    def start(self, folders: Sequence[Path]) -> list[str]:
        """Submit an array for each thousand folders."""
        handles = []
        for at in range(0, len(folders), MAX_ARRAY):
            part = folders[at : at + MAX_ARRAY]
            number = 1 + len(list(self._work.glob("array-*")))
            place = self._work / f"array-{number}"
            write_text(place / FOLDERS, "".join(f"{folder}\n" for folder in part))
            write_text(place / SCRIPT, self.script(len(part), place / FOLDERS))
            (self._site.folder / LOGS).mkdir(exist_ok=True)
            ended = _run("sbatch", "--parsable", str(place / SCRIPT))
            job = ended.stdout.strip().partition(";")[0]
            if ended.returncode != 0 or not job.isdecimal():
                raise ConfigError(f"sweep.options: refused by sbatch: {_reason(ended)}")
            again = "" if number == 1 else " again"
            self._site.say(f"submitted{again} to Slurm as job {job}: {place / SCRIPT}")
            handles += [f"{job}_{task} {folder}" for task, folder in enumerate(part)]
            self._asked = 0.0
        return handles

    def states(self, handles: Sequence[str]) -> dict[str, State]:
        """Return what tasks do, by `squeue`, their exit codes, and how long they are gone."""
        now = time.monotonic()
        if not self._asked or now - self._asked >= ASK_EVERY:
            self._asked = now
            try:
                self._queue, self._is_silent = self._ours(), False
            except SlurmBusyError as error:
                self._is_silent = True
                self._say_once(f"{error}; tasks continue, and squeue is asked again")
        states = {handle: self._state(*handle.split(" ", 1)) for handle in handles}
        if states and not self._is_silent and set(states.values()) == {"waiting"}:
            self._say_why([self._queue[handle.split(" ", 1)[0]][1] for handle in states])
        return states

    def cancel(self, handles: Sequence[str]) -> None:
        """Cancel tasks that are of this sweep."""
        left = self._ours() if handles else {}
        tasks = [task for task in (handle.split(" ", 1)[0] for handle in handles) if task in left]
        if tasks:
            ended = _run("scancel", "--quiet", f"--name={self._name}", *tasks)
            if ended.returncode != 0 and "Invalid job id" not in ended.stderr:
                raise SlurmBusyError(
                    f"scancel: {_reason(ended)}; cancel them with: scancel --name={self._name}"
                )

    def close(self) -> None:
        """Do nothing: no process of ours is here."""

    def _state(self, task: str, folder: str) -> State:
        code = None
        with suppress(OSError, ValueError):
            # A listed folder is asked for anew, where a file that is absent may be believed.
            code = int(Path(folder, EXIT).read_text()) if EXIT in os.listdir(folder) else None
        if code == 128 + signal.SIGTERM:
            return Ended(f"the task {task} was told to stop", "lost")
        if code is not None:
            return Ended.with_code(code)
        if task in self._queue:
            return "waiting" if self._queue[task][0] in _PENDING else "running"
        if self._is_silent:  # the worker's beats say whether it runs
            return "waiting"
        return Ended(f"the task {task} is gone from Slurm's queue", "lost")

    def _say_once(self, line: str) -> None:
        if line not in self._lines_said:
            self._lines_said.add(line)
            self._site.say(line)

    def _ours(self) -> dict[str, list[str]]:
        """Return the state of each task of this sweep that Slurm has, and why it waits."""
        options = ("--me", "--noheader", "--array", f"--name={self._name}", "--format=%i|%T|%r")
        ended = _run("squeue", *options)
        if ended.returncode != 0:
            raise SlurmBusyError(f"squeue: {_reason(ended)}")
        rows = [line.strip().split("|", 2) for line in ended.stdout.splitlines()]
        return {row[0]: row[1:] for row in rows if len(row) == 3 and row[1] in _LIVE}

    def _say_why(self, reasons: Sequence[str]) -> None:
        """Say why all tasks wait; raise ConfigError where they would forever."""
        for reason in _NEVER.intersection(reasons):
            raise ConfigError(f"sweep.options: tasks would wait forever: {reason}; cancelled")
        self._say_once(f"tasks wait in Slurm's queue: {', '.join(sorted(set(reasons)))}")

    @property
    def _gpus(self) -> int:
        """GPUs of one task; one where the proxy is to use CUDA and nobody says how many."""
        gpus = self._site.gpus
        if gpus is not None and gpus != int(gpus):
            raise ConfigError(
                f"sweep.gpus: {gpus:g}: Slurm gives whole GPUs to a task; write 1, or use executor"
                " ray"
            )
        return int(self._site.device.startswith("cuda") if gpus is None else gpus)


def _run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which(name)
    if program is None:
        raise ConfigError(
            f"sweep.executor: slurm needs {name}, which is not on PATH; start mixopt on a login "
            "node of the cluster"
        )
    try:
        return subprocess.run(
            [program, *arguments],
            capture_output=True,
            check=False,
            timeout=DEADLINE,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise SlurmBusyError(f"{name}: no answer within {DEADLINE:g} s") from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be started: {error.strerror or error}") from error


def _reason(ended: subprocess.CompletedProcess[str]) -> str:
    """Return what a command of Slurm's says, in a line."""
    lines = (ended.stderr or ended.stdout).replace("sbatch: error: ", "").splitlines()
    text = "; ".join(line.strip() for line in lines if line.strip())
    return plain_line(text)[:MAX_REASON] or "no reason given"
