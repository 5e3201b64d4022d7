"""The script of a sweep's array of tasks, as given to `sbatch` and shown by `--dry-run`.

Each task of the array runs `mixopt work` as its own process, so that a signal reaches it and a
user's command may start `srun` within the allocation. Nothing that is a name or a path is read by
the shell or by sbatch as anything else; what a user gives as lines of shell is taken as it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict  # which pydantic brings, and needs before Python 3.12

from mixopt.errors import ConfigError, is_control
from mixopt.sweeps.contract import Site
from mixopt.system import shown_name

LARGEST_ARRAY = 64  # tasks, where nobody says how many
_Word = Annotated[str, Field(min_length=1, max_length=200)]
_Count = Annotated[int, Field(ge=1, le=100_000)]
# What stands behind `#SBATCH --option=`: no blank, no quote, nothing that a shell would read.
_PLAIN = re.compile(r"[A-Za-z0-9_.,:@+/=*\[\]%-]+")


class SlurmFields(TypedDict, total=False):
    """What `sweep.options` may have under `sweep.executor: slurm`.

    Attributes:
        partition: As sbatch's; the cluster's own if omitted. So are account, qos, time (such as
            `4:00:00`), cpus (of one task), memory (of one node, such as `32G`).
        tasks: How many tasks the array has; `sweep.workers`, or one a trial up to 64, if omitted.
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
    time: _Word | int
    cpus: _Count
    memory: _Word
    tasks: _Count
    modules: list[_Word]
    setup: list[str]
    python: _Word
    container: _Word
    container_start: list[_Word]
    sbatch: list[_Word]


CODE = ("modules", "setup", "python", "container", "container_start", "sbatch")


@dataclass(frozen=True)
class ArrayPlan:
    """One array to submit.

    Attributes:
        run: The run directory.
        logs: Where its tasks print to.
        name: What the job is called.
        tasks: How many.
        python: The program that starts mixopt where the options do not say.
    """

    run: Path
    logs: Path
    name: str
    tasks: int
    python: str


def array_script(plan: ArrayPlan, site: Site, options: SlurmFields) -> str:
    """Return the script.

    Args:
        plan: What is submitted.
        site: What the sweep's owner asks for: GPUs, nodes, how many at once, trust.
        options: `sweep.options`, checked.

    Raises:
        ConfigError: A value cannot stand in a script.
    """
    lines = ["#!/bin/bash", "# Written by mixopt; sbatch this file submits the tasks again."]
    lines += [f"#SBATCH {option}" for option in _asked(plan, site, options)]
    lines += ["", "set -e"]
    lines += [
        f"module load {shlex.quote(_line('modules', one))}" for one in _given(options, "modules")
    ]
    lines += [_line("setup", one) for one in _given(options, "setup")]
    lines += [f"exec {_command(plan, site, options)}", ""]
    return "\n".join(lines)


def _asked(plan: ArrayPlan, site: Site, options: SlurmFields) -> list[str]:
    """Return the options of sbatch."""
    at_once = site.workers if site.workers is not None and site.workers < plan.tasks else None
    limit = "" if at_once is None else f"%{at_once}"
    asked = [
        f"--job-name={_job_name(plan.name)}",
        f"--array=0-{plan.tasks - 1}{limit}",
        f"--output={_path(plan.logs)}/slurm-%A_%a.out",
        f"--nodes={site.nodes}",
        "--ntasks-per-node=1",
    ]
    for field, option in (
        ("partition", "partition"),
        ("account", "account"),
        ("qos", "qos"),
        ("time", "time"),
        ("cpus", "cpus-per-task"),
        ("memory", "mem"),
    ):
        if field in options:
            asked.append(f"--{option}={_plain(field, str(options[field]))}")  # type: ignore[literal-required]
    if site.gpus is not None:
        asked.append(f"--gpus-per-node={_whole(site.gpus)}")
    # A task is told before it is killed, so that it can give back what it trains.
    asked.append("--signal=B:TERM@30")
    asked += [_option(one) for one in _given(options, "sbatch")]
    return asked


def _command(plan: ArrayPlan, site: Site, options: SlurmFields) -> str:
    """Return the command of a task, each word quoted but for its place in the array."""
    python = shlex.split(options["python"]) if "python" in options else [plan.python]
    words = [*_container(plan, options), *python]
    words += ["-P", "-m", "mixopt", "work", str(plan.run), *(["--trust"] if site.trust else [])]
    quoted = " ".join(shlex.quote(_line("python or --out", word)) for word in words)
    return f'{quoted} --task "$SLURM_ARRAY_TASK_ID/{plan.tasks}"'


def _container(plan: ArrayPlan, options: SlurmFields) -> list[str]:
    image = options.get("container")
    if image is None:
        return []
    start = options.get("container_start")
    if start is not None:
        return [*start, image]
    return ["srun", f"--container-image={image}", f"--container-mounts={plan.run}:{plan.run}"]


def _given(options: SlurmFields, name: str) -> Sequence[str]:
    found: Sequence[str] = options.get(name, [])  # type: ignore[assignment]
    return found


def _plain(field: str, value: str) -> str:
    if not _PLAIN.fullmatch(value):
        raise ConfigError(
            f"sweep.options.{field}: {shown_name(value)} cannot be used in a line of sbatch: "
            "write letters, digits and punctuation without spaces and quotes"
        )
    return value


def _option(text: str) -> str:
    if not text.startswith("-"):
        raise ConfigError(
            f"sweep.options.sbatch: {shown_name(text)}: expected an option, such as"
            " --constraint=h100"
        )
    return _line("sbatch", text)


def _line(field: str, text: str) -> str:
    """Return text that is one line."""
    if any(is_control(character) for character in text):
        raise ConfigError(f"sweep.options.{field}: {shown_name(text)} has control characters")
    return text


def _path(path: Path) -> str:
    """Return a path as a value of sbatch, which takes quotes, blanks and percent for its own."""
    text = _line("python or --out", str(path))
    if "\\" in text:
        raise ConfigError(
            f"--out {shown_name(text)}: Slurm cannot write logs to a path with a backslash"
        )
    return re.sub(r"([^A-Za-z0-9_./%:@+,=-])", r"\\\1", text.replace("%", "%%"))


def _job_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:64]


def _whole(gpus: float) -> int:
    if gpus != int(gpus):
        raise ConfigError(
            f"sweep.gpus: {gpus:g}: Slurm gives whole GPUs to a task; write 1, or use executor ray"
        )
    return int(gpus)
