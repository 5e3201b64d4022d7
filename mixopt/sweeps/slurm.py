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
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Unpack

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict  # which pydantic brings, and needs before Python 3.12

from mixopt.errors import ConfigError, MixoptError, RunError, is_control
from mixopt.sweeps.contract import Ended, Site, State
from mixopt.sweeps.devices import ONE_THREAD
from mixopt.sweeps.trial_files import LOGS, WORK
from mixopt.system import checked_as, duration, shown_name, write_text

WORKERS = 64  # groups at once, where nobody says how many
MAX_ARRAY = 1000  # tasks of one array; a cluster's MaxArraySize is 1,001 unless it was changed
DEADLINE = 30.0  # seconds that a command of Slurm's may take
ASK_EVERY = 5.0  # seconds between two questions to squeue
SAY_EVERY = 300.0  # seconds between two lines on why tasks wait, or that squeue is silent
EXIT, SCRIPT, FOLDERS = "exit", "array.sh", "folders.txt"
_PENDING = {"PENDING", "REQUEUED", "CONFIGURING"}
_LIVE = _PENDING | {"RUNNING", "SUSPENDED", "RESIZING", "STOPPED", "COMPLETING"}
# Reasons of squeue's that do not pass, and the field of `sweep.options` that they are about.
_NEVER = {
    "PartitionTimeLimit": "time",
    "PartitionNodeLimit": "partition",
    "BadConstraints": "sbatch",
    "InvalidAccount": "account",
    "InvalidQOS": "qos",
}
# What sbatch's error is about, and the field.
_FIELDS = {
    "partition": "sweep.options.partition",
    "account": "sweep.options.account",
    "qos": "sweep.options.qos",
    "time limit": "sweep.options.time",
    "--time": "sweep.options.time",
    "memory": "sweep.options.memory",
    "cpu count": "sweep.options.cpus",
    "--cpus-per-task": "sweep.options.cpus",
    "gres": "sweep.gpus",
    "gpus": "sweep.gpus",
    "node count": "sweep.nodes",
    "node configuration": "sweep.options, sweep.gpus or sweep.nodes",
}
# How to find a right value, by what is wrong.
_HINTS = {
    "sweep.options.account": "sacctmgr show associations lists yours",
    "sweep.options.qos": "sacctmgr show qos lists them",
    "sweep.options.time": "write it as hours:minutes:seconds, within sinfo -o '%P %l'",
}
_LISTS = "sinfo -o '%P %D %c %m %G' lists partitions, nodes, cores, memory and GPUs"
_PLAIN = re.compile(r"[A-Za-z0-9_.,:@+/=*\[\]%-]+")


def _plain(text: object) -> object:
    """Check what stands behind `#SBATCH --option=`: nothing that a shell would read."""
    if not _PLAIN.fullmatch(str(text)):
        raise ValueError(
            "cannot be used in a line of sbatch: write letters, digits and punctuation without"
            " spaces and quotes"
        )
    return text


def _line(text: str) -> str:
    if any(is_control(character) for character in text):
        raise ValueError("has control characters")
    return text


def _option(text: str) -> str:
    if not text.startswith("-"):
        raise ValueError("expected an option, such as --constraint=h100")
    return text


_Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_line)]
_Word = Annotated[str | int, AfterValidator(_plain)]
_Count = Annotated[int, Field(ge=1, le=100_000)]
# The shell waits for its child, hands on the notice that time is up, and leaves the exit code.
_RUN = """\
folder=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {folders})
{command} "$folder" &
child=$!
trap 'kill -TERM $child 2>/dev/null' TERM
wait $child
code=$?
while kill -0 $child 2>/dev/null; do wait $child; code=$?; done
echo $code > "$folder/{exit}.tmp" && mv "$folder/{exit}.tmp" "$folder/{exit}"
"""


class SlurmFields(TypedDict, total=False):
    """What `sweep.options` may have under `sweep.executor: slurm`.

    Attributes:
        partition: As sbatch's; the cluster's own if omitted. So are account, qos, time (such as
            `4:00:00`), cpus (of one task), memory (of one node, such as `32G`).
        modules: Loaded before mixopt starts.
        setup: Lines of shell before mixopt starts.
        python: How Python is started on the nodes: one that has mixopt. This one if omitted.
        container: An image to run in, and
        container_start: the words before the image that start it; `srun` with pyxis if omitted.
        sbatch: More options of sbatch, such as `--constraint=h100`.
    """

    partition: _Word
    account: _Word
    qos: _Word
    time: _Word
    cpus: _Count
    memory: _Word
    modules: list[_Line]
    setup: list[Annotated[str, AfterValidator(_line)]]
    python: _Line
    container: _Line
    container_start: list[_Line]
    sbatch: list[Annotated[_Line, AfterValidator(_option)]]


class SlurmBusyError(RunError):
    """The controller gave no answer: it may give one later."""


class SlurmExecutor:
    """Tasks of arrays; the handle of a folder is its task, such as `123_4`, and its path."""

    poll = 1.0
    queues = outlives_owner = True

    def __init__(self, site: Site, **options: Unpack[SlurmFields]) -> None:
        """Check what is asked for; nothing is submitted yet."""
        self._site, self._work = site, site.folder / WORK
        self._options: SlurmFields = checked_as(
            SlurmFields, dict(options), "sweep.options", ConfigError
        )
        digest = hashlib.sha256(str(site.folder).encode()).hexdigest()[:8]
        run = re.sub(r"[^A-Za-z0-9_.-]", "_", site.folder.parent.name)[:40]
        self._name = f"mixopt-{run}-{digest}"
        self._queue: dict[str, tuple[str, str]] = {}
        self._asked = self._silent = self._told = 0.0
        self.script(1)

    @property
    def slots(self) -> int:
        """How many tasks run at once."""
        return self._site.workers or WORKERS

    def script(self, tasks: int, folders: Path | None = None) -> str:
        """Return the script of an array."""
        folders, asked = folders or self._work / "array-1" / FOLDERS, self._options
        lines = ["#!/bin/bash", "# Written by mixopt."]
        lines += [f"#SBATCH {option}" for option in self._sbatch_options(tasks)]
        lines += ["", "set -e"]
        lines += [f"module load {shlex.quote(module)}" for module in asked.get("modules", [])]
        lines += asked.get("setup", [])
        if not self._gpus:
            lines.append(f"export {' '.join(f'{name}=1' for name in ONE_THREAD)}")
        python = asked.get("python")
        words = [sys.executable] if python is None else shlex.split(python)
        image, run = asked.get("container"), self._site.folder.parent
        if image is not None:
            pyxis = ["srun", f"--container-image={image}", f"--container-mounts={run}:{run}"]
            started = asked.get("container_start")
            words = [*(pyxis if started is None else [*started, image]), *words]
        command = shlex.join([*words, "-P", "-m", "mixopt.sweeps.train_group"])
        text = _RUN.format(command=command, folders=shlex.quote(str(folders)), exit=EXIT)
        return "\n".join([*lines, "set +e", text])

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
            job = _submitted(place / SCRIPT)
            again = "" if number == 1 else " again"
            self._site.say(f"submitted{again} to Slurm as job {job}: {place / SCRIPT}")
            handles += [f"{job}_{task} {folder}" for task, folder in enumerate(part)]
            self._asked = 0.0
        return handles

    def states(self, handles: Sequence[str]) -> dict[str, State]:
        """Return what tasks do, by `squeue`, their exit codes, and how long they are gone."""
        self._ask()
        states = {handle: self._state(*handle.split(" ", 1)) for handle in handles}
        self._say_pending(states)
        return states

    def cancel(self, handles: Sequence[str]) -> None:
        """Cancel tasks that are of this sweep."""
        tasks = [handle.split(" ", 1)[0] for handle in handles]
        left = self._ours() if tasks else {}
        tasks = [task for task in tasks if task in left]
        if tasks:
            ended = _run("scancel", "--quiet", f"--name={self._name}", *tasks)
            if ended.returncode != 0 and "Invalid job id" not in ended.stderr:
                raise SlurmBusyError(
                    f"scancel: {_first_line(ended.stderr)}; cancel them with: scancel"
                    f" --name={self._name}"
                )

    def close(self) -> None:
        """Do nothing: no process of ours is here."""

    def _state(self, task: str, folder: str) -> State:
        code = self._code(Path(folder))
        if code == 128 + signal.SIGTERM:
            return Ended(f"the task {task} was told to stop", "lost")
        if code is not None:
            return Ended.with_code(code, f"; {self._last_words(task)}")
        if task in self._queue:
            return "waiting" if self._queue[task][0] in _PENDING else "running"
        if self._silent:
            return "running"
        return Ended(f"the task {task} is gone from Slurm's queue", "lost")

    def _code(self, folder: Path) -> int | None:
        with suppress(OSError, ValueError):
            # A listed folder is asked for anew, where a file that is absent may be believed.
            return int((folder / EXIT).read_text()) if EXIT in os.listdir(folder) else None
        return None

    def _last_words(self, task: str) -> str:
        """Return the last line that a task has printed."""
        path = self._site.folder / LOGS / f"slurm-{task}.out"
        with suppress(OSError), path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 2000))
            lines = stream.read().decode("utf-8", "replace").strip().splitlines()
            if lines:
                return f"{path.name} ends with {lines[-1][:300]!r}"
        return "it left no log: do all nodes see the run directory?"

    def _ask(self) -> None:
        """Ask squeue now and then; say where it gives no answer."""
        now = time.monotonic()
        if self._asked and now - self._asked < ASK_EVERY:
            return
        self._asked = now
        try:
            self._queue = self._ours()
        except SlurmBusyError as error:
            if not self._silent:
                self._silent = self._told = now
                self._site.say(f"{error}; tasks continue, and squeue is asked again")
            elif now - self._told > SAY_EVERY:
                self._told = now
                self._site.say(f"{error}; for {duration(now - self._silent)} by now")
        else:
            self._silent = 0.0

    def _ours(self) -> dict[str, tuple[str, str]]:
        """Return the state of each task of this sweep that Slurm has, and why it waits."""
        asked = ("--me", "--noheader", "--array", f"--name={self._name}", "--format=%i|%T|%r")
        ended = _run("squeue", *asked)
        if ended.returncode != 0:
            raise SlurmBusyError(f"squeue: {_first_line(ended.stderr)}")
        rows = [line.strip().split("|", 2) for line in ended.stdout.splitlines()]
        return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3 and row[1] in _LIVE}

    def _say_pending(self, states: dict[str, State]) -> None:
        """Say why tasks wait, where all of them do."""
        now, tasks = time.monotonic(), [handle.split(" ", 1)[0] for handle in states]
        if not states or any(state != "waiting" for state in states.values()):
            return
        reasons = {task: self._queue[task][1] for task in tasks}
        never = next((task for task in tasks if reasons[task] in _NEVER), None)
        if never is not None:
            raise ConfigError(
                f"sweep.options.{_NEVER[reasons[never]]}: job {never} would wait forever: "
                f"{reasons[never]}; it is cancelled"
            )
        if not self._told or now - self._told > SAY_EVERY:
            self._told = now
            count = Counter(reasons.values()).most_common(3)
            shown = ", ".join(f"{reason} ({times})" for reason, times in count)
            self._site.say(f"job {tasks[-1]} waits in Slurm's queue: {shown}")

    @property
    def _gpus(self) -> float | None:
        """GPUs of one task; one where the proxy is to use CUDA and nobody says how many."""
        if self._site.gpus is None and self._site.device.startswith("cuda"):
            return 1.0
        return self._site.gpus

    def _sbatch_options(self, tasks: int) -> list[str]:
        options = [
            f"--job-name={self._name}",
            f"--array=0-{tasks - 1}%{self.slots}",
            f"--output={_path(self._site.folder / LOGS)}/slurm-%A_%a.out",
            f"--nodes={self._site.nodes}",
            "--ntasks-per-node=1",
            "--no-requeue",  # what is lost is handed out again, and counted, here
            "--signal=B:TERM@30",  # so that a task can give back what it trains
        ]
        names = {name: name for name in ("partition", "account", "qos", "time")}
        names |= {"cpus": "cpus-per-task", "memory": "mem"}
        asked = {name: value for name, value in self._options.items() if name in names}
        options += [f"--{names[name]}={value}" for name, value in asked.items()]
        if self._gpus is not None:
            if self._gpus != int(self._gpus):
                raise ConfigError(
                    f"sweep.gpus: {self._gpus:g}: Slurm gives whole GPUs to a task; write 1, or use"
                    " executor ray"
                )
            options.append(f"--gpus-per-node={int(self._gpus)}")
        return [*options, *self._options.get("sbatch", [])]


def _submitted(script: Path) -> str:
    """Submit a script; return the number of the job."""
    ended = _run("sbatch", "--parsable", str(script))
    number = ended.stdout.strip().partition(";")[0]
    if ended.returncode == 0 and number.isdecimal():
        return number
    raise _refused(ended.stderr or ended.stdout)


def _run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which(name)
    if program is None:
        raise ConfigError(
            f"sweep.executor: slurm needs {name}, which is not on PATH; start mixopt on a login "
            "node of the cluster"
        )
    try:
        return subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, timeout=DEADLINE
        )
    except subprocess.TimeoutExpired:
        raise SlurmBusyError(f"{name}: no answer within {DEADLINE:g} s") from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be started: {error.strerror or error}") from error


def _refused(text: str) -> MixoptError:
    """Return the error of what sbatch refuses, with the field to change."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in text.splitlines()]
    reason = "; ".join(dict.fromkeys(line.strip() for line in lines if line.strip()))
    lower = reason.lower()
    if re.search(r"unable to contact|connection refused|timed out|communication", lower):
        return RunError(f"sbatch: {reason}; is the cluster's controller up? Run it again later")
    for word, name in _FIELDS.items():
        if word in lower:
            hint = _HINTS.get(name, _LISTS)
            return ConfigError(f"{name}: refused by sbatch: {reason}; {hint}")
    return ConfigError(f"sweep.options: refused by sbatch: {reason or 'no reason given'}")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")


def _path(path: Path) -> str:
    """Return a path as a value of sbatch, which takes quotes, blanks and percent for its own."""
    text = str(path)
    if "\\" in text or any(is_control(character) for character in text):
        raise ConfigError(
            f"--out {shown_name(text)}: Slurm cannot write logs to a path with a backslash or"
            " control characters"
        )
    return re.sub(r"([^A-Za-z0-9_./%:@+,=-])", r"\\\1", text.replace("%", "%%"))
