"""A run that the quickest proxy does, the state before each of its steps, and what it comes to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

STEPS = ("prepare", "design", "sweep", "fit", "propose", "validate", "report")
NUMBERS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "terminate": signal.SIGTERM,
    "interrupt": signal.SIGINT,
}
SIGNALS = tuple(NUMBERS)
OURS = 70  # the exit code of a defect of ours
KINDS = int(os.environ.get("MIXOPT_FAULTS", "0"))  # of each kind so many; 0: a part of one of each

CONFIG = """\
name: faults
corpus:
  domains:
    code: {{data_files: {folder}/code.jsonl}}
    prose: {{data_files: {folder}/prose.jsonl}}
  validation_fraction: 0.2
evaluation:
  help: {{data_files: {folder}/help.jsonl}}
tasks: {{sets: {{words: {folder}/words.jsonl}}, items: 12}}
design: {{trials: 6, replicates: 2, max_usage: null}}
proxy: {{name: ngram, tokens: 4000, eval_tokens: 2048}}
sweep: {{workers: 2}}
fit: {{regressors: [linear], folds: 3}}
objective: {{target: help}}
propose: {{samples: 500, bootstrap: 3}}
validate: {{max_seeds: 5}}
tracking: {{enabled: false}}
"""


def mixopt(
    *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; it may take two minutes."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=variables(environment),
        timeout=120,
    )


def command(*arguments: object) -> list[str]:
    """Return a command; the name of a step before a configuration is a run until there."""
    words = list(map(str, arguments))
    if words[0] in STEPS and words[1].endswith(".yaml"):
        words = ["run", *words[1:], "--until", words[0]]
    return [sys.executable, "-m", "mixopt", *words]


def variables(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing disturbed.

    Attributes:
        config: Its configuration.
        states: A copy of its directory before each step, and at the end.
        seconds: How long each step's command took.
    """

    config: Path
    states: dict[str, Path]
    seconds: dict[str, float]

    def before(self, step: str, to: Path) -> Path:
        """Copy the state before a step to a folder."""
        shutil.copytree(self.states[step], to)
        return to

    def after(self, step: str) -> Path:
        """Return the state after a step."""
        return self.states[(*STEPS, "end")[STEPS.index(step) + 1]]


def undisturbed(folder: Path, texts: Path) -> Undisturbed:
    """Do a whole run on some texts, a step at a time."""
    config, run = folder / "faults.yaml", folder / "run"
    config.write_text(CONFIG.format(folder=texts))
    run.mkdir()
    states, seconds = {}, {}
    for step in STEPS:
        states[step] = shutil.copytree(run, folder / "states" / step)
        begun = time.monotonic()
        ended = mixopt(step, config, "--out", run)
        assert ended.returncode == 0, ended.stderr
        seconds[step] = time.monotonic() - begun
    states["end"] = shutil.copytree(run, folder / "states" / "end")
    return Undisturbed(config, states, seconds)


def results(run: Path) -> dict[str, Any]:
    """Return what a run found: tables without what clocks say, tokens, and the proposal."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.suffix == ".parquet":
            found[name] = (
                pl.read_parquet(path).drop("seconds", strict=False).to_dict(as_series=False)
            )
        elif path.suffix in {".bin", ".yaml"}:
            found[name] = path.read_bytes()
    return found


def disturb(commands: list[tuple[list[str], dict[str, str]]], kind: str, after: float) -> list[int]:
    """Start processes as one group, send it a signal after some seconds, and wait for their end.

    Args:
        commands: What each runs, and its environment.
        kind: kill; stop, and kill while it stands; terminate; interrupt; none.
        after: When.

    Returns:
        The exit codes.
    """
    first = _start(*commands[0], group=0)
    group = [first] + [_start(*one, group=first.pid) for one in commands[1:]]
    time.sleep(after)
    if kind != "none":
        _send(first.pid, NUMBERS[kind])
    if kind == "stop":
        time.sleep(0.2)
        _send(first.pid, signal.SIGKILL)
    codes = [process.wait(400) for process in group]
    _send(first.pid, signal.SIGKILL)  # processes that those have left
    return codes


def moment(seconds: float, *seed: object) -> float:
    """Draw a moment of a command that takes so many seconds."""
    return Random(repr(seed)).uniform(0.05, 0.95) * seconds


def _start(
    arguments: list[str], environment: dict[str, str], group: int
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        arguments,
        env=variables(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=group,
    )


def _send(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
