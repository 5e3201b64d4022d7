"""Check that a result belongs to this trial and this attempt.

A trainer that ignores `{seed}`, a path that two trials share, or a copy of an older run would give
every trial the same losses, and nobody would notice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mixopt.trials import Trial
from mixopt_proxies.command.result_files import LoggedValues
from mixopt_proxies.command.trial_place import command_seed

COARSE = 2.0  # seconds: time stamps of some network file systems are no finer
_FINGERPRINT = re.compile(r"[0-9a-f]{12}")
_WEIGHT_TOLERANCE = 1e-3  # of weights that a trainer has rounded


def foreign_result(values: LoggedValues, trial: Trial, folder: Path) -> str | None:
    """Say in what a result names another trial; None where it names this one, or none."""
    said = values.said
    if str(said.get("trial", trial.name)) != trial.name:
        return f"is for trial {said['trial']!r}, not {trial.name!r}"
    if not _is_seed(said.get("seed", trial.seed), trial):
        hint = "pass {seed} to the trainer, or write its own seed under another name"
        return f"has seed {said['seed']!r}, and the trial has {command_seed(trial)}; {hint}"
    if not _is_mixture(said.get("mixture"), trial, folder):
        shown = str(said["mixture"])[:80]
        return f"is of another mixture ({shown}), not of {trial.mixture.fingerprint}"
    return None


def old_result(files: Iterable[Path], started: float) -> str | None:
    """Say that a result was written before an attempt began; None where it was not."""
    every = [inner for path in files for inner in (path.rglob("*") if path.is_dir() else [path])]
    newest = max((path.stat().st_mtime for path in every if path.is_file()), default=started)
    if newest >= started - COARSE:
        return None
    return (
        f"is {started - newest:.0f} s older than the attempt that should have written it; is it a"
        " copy of another run?"
    )


def _is_seed(said: Any, trial: Trial) -> bool:
    try:
        return int(said) in {trial.seed, command_seed(trial)}
    except (TypeError, ValueError, OverflowError):
        return False


def _is_mixture(said: Any, trial: Trial, folder: Path) -> bool:
    if isinstance(said, Mapping):
        return _are_weights(said, trial)
    text = str(said)
    if _FINGERPRINT.fullmatch(text):
        return text == trial.mixture.fingerprint
    path = Path(text)  # a trainer that logs its arguments says where its mixture was
    if path.is_absolute() and path.parent.name.startswith("attempt-"):
        return path.resolve().is_relative_to(folder.resolve())
    return True


def _are_weights(said: Mapping[str, Any], trial: Trial) -> bool:
    weights = dict(trial.mixture)
    try:
        return all(
            abs(float(said.get(name, 0.0)) - weights.get(name, 0.0)) <= _WEIGHT_TOLERANCE
            for name in {*said, *weights}
        )
    except (TypeError, ValueError):
        return False
