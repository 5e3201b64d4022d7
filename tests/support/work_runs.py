"""A designed run of the faulty proxy, tasks and owners that serve it, and what they came to."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from fault_runs import command, variables

from mixopt import pipeline
from mixopt.mixture import Mixture
from mixopt.sweeps import Job
from mixopt.trials import Training, Trial

CONFIG = """\
name: work
corpus:
  domains:
    code: {{path: {code}}}
    prose: {{path: {prose}}}
evaluation:
  help: {{path: {help}}}
design: {{trials: {trials}, replicates: 0, anchors: [], max_usage: null}}
proxy:
  name: "faulty_proxy:Faulty"
  tokens: 4000
  options: {{{options}}}
sweep: {{workers: 2, executor: {executor}, options: {{{asked}}}}}
fit: {{regressors: [linear], folds: 3}}
objective: {{target: help}}
tracking: {{enabled: false}}
"""


class WorkRun:
    """One run directory, the configuration that it is of, and the notes of its proxy."""

    def __init__(self, folder: Path, texts: dict[str, Path], trials: int = 6) -> None:
        self.path, self.config, self.log = folder / "run", folder / "work.yaml", folder / "log"
        self._texts, self._trials, self._started = texts, trials, []
        self.configure()

    def configure(self, executor: str = "local", asked: str = "", **options: object) -> None:
        """Write the configuration: the executor, its options, and those of the proxy."""
        options = {"log": self.log, **options}
        text = ", ".join(f"{name}: {value}" for name, value in options.items())
        texts = {name: str(path) for name, path in self._texts.items()}
        about = {"executor": executor, "asked": asked, "options": text, "trials": self._trials}
        self.config.write_text(CONFIG.format(**texts, **about))

    def design(self) -> None:
        """Prepare the corpus, and choose the mixtures."""
        pipeline.run(self.config, self.path, until="design")

    def copy(self, folder: Path, **options: object) -> WorkRun:
        """Return a run of the same design, whose proxy has other options."""
        other = WorkRun(folder, self._texts, self._trials)
        shutil.copytree(self.path, other.path)
        other.configure(**options)
        pipeline.run(other.config, other.path, until="design")
        return other

    def owner(self, *more: str, **environment: str) -> subprocess.Popen[str]:
        """Start an owner of the sweep."""
        words = command("sweep", self.config, "--out", self.path, *more)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self._started.append(subprocess.Popen(words, env=variables(environment), **pipes))
        return self._started[-1]

    def end(self) -> None:
        """Kill what is left."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def table(self) -> dict[str, list[Any]]:
        """Return the table of trials, without what clocks say."""
        return (
            pl.read_parquet(self.path / "trials.parquet").drop("seconds").to_dict(as_series=False)
        )

    def notes(self, what: str) -> list[str]:
        """Return the trials that were noted so, in order."""
        return [name for group in noted(self.log, what) for name in group.split(",")]

    def wait_until(self, holds: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait until something holds."""
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, "it does not come to pass"
            time.sleep(0.05)

    def wait_for(self, what: str, count: int = 1) -> None:
        """Wait until so many trials were noted so."""
        self.wait_until(lambda: len(self.notes(what)) >= count)


def trials_named(*names: str) -> list[Trial]:
    """Return trials whose shares of code go up from 0."""
    shares = [place / len(names) for place in range(len(names))]
    return [
        Trial(name, Mixture({"code": share, "prose": 1 - share}), seed)
        for seed, (name, share) in enumerate(zip(names, shares, strict=True))
    ]


def faulty_job(folder: Path, corpus: Path, **options: object) -> Job:
    """Return a job of the faulty proxy, which notes in a folder what it does."""
    options = {"log": str(folder / "trained.log"), **options}
    return Job("faulty_proxy:Faulty", options, corpus, Training(1000, device="cpu"))


def noted(log: Path, what: str) -> list[str]:
    """Return the groups of which the faulty proxy has noted something, in order."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[2] for line in lines if line.startswith(f"{what} ")]


def said(process: subprocess.Popen[str], code: int | None = 0) -> str:
    """Return what a process printed until its end, which it comes to with that exit code."""
    text = process.communicate(timeout=120)[0]
    assert code is None or process.returncode == code, text
    return text
