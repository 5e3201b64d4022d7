"""Trainers of a user's kind for the command proxy: small scripts, run as real processes."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixopt_proxies.command import CommandProxy

from mixopt.corpus import Corpus
from mixopt.mixture import Mixture
from mixopt.trials import Progress, Training, Trial, TrialResult

TRIAL = Trial("t0001", Mixture({"code": 0.75, "manual": 0.25}), seed=5)
GOOD = {"code": 2.0, "manual": 3.0, "other_code": 2.5}
WRITE_GOOD = f"json.dump({GOOD!r}, open('metrics.json', 'w'))"


def script(folder: Path, code: str) -> list[str]:
    """Write a script and return the command that runs it."""
    path = folder / "own_train.py"
    head = "import json, os, sys, time, subprocess, signal\n"
    path.write_text(head + textwrap.dedent(code), encoding="utf-8")
    return [sys.executable, str(path)]


def trained(
    corpus: Corpus,
    files: Path | None,
    run: str | list[str],
    *,
    trial: Trial = TRIAL,
    tokens: int = 1_000,
    report: Callable[[Progress], None] = lambda _: None,
    **options: Any,
) -> TrialResult:
    """Train one trial by a command."""
    proxy = CommandProxy(run, **{"result": "metrics.json"} | options)
    training = Training(tokens, files=None if files is None else str(files))
    (result,) = proxy.train([trial], corpus, training, report)
    return result


def attempts(files: Path) -> list[str]:
    """Return the folders of the attempts at the trial."""
    return sorted(path.name for path in (files / TRIAL.name).glob("attempt-*"))


def alive_below(pid: int) -> list[int]:
    """Return the processes that a process started, and those that they started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *alive_below(child)]
    return found
