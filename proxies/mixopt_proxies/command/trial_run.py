"""One trial: its command is run until it ends well, or has failed too often; its result is read.

A command that fails, is killed or takes too long is run again in a folder of its own, as often as
`proxy.retries` says. One that ended well would do the same again: what is wrong with its result
is the trial's failure.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mixopt.corpus import Corpus
from mixopt.errors import MixoptError, RunError
from mixopt.trials import Training, Trial, TrialResult
from mixopt_proxies.command.command_line import CommandLine
from mixopt_proxies.command.mixture_forms import MIXTURE, MixtureForm
from mixopt_proxies.command.result_files import LoggedValues, find_result, read_result
from mixopt_proxies.command.supervised_command import EndedCommand, last_line, run_supervised
from mixopt_proxies.command.trial_losses import LossNames, divergence, losses_of
from mixopt_proxies.command.trial_place import (
    LOG,
    TRIAL,
    EndedAttempt,
    TrialPlace,
    command_seed,
    write_facts,
)

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


_GPUS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_GIVEN = (LOG, MIXTURE, TRIAL)  # to every attempt


@dataclass(frozen=True)
class TrainerCommand:
    """What all trials have in common.

    Attributes:
        line: The command.
        result: What it writes, relative to the trial's folder.
        names: Which of that are losses.
        unit: Of the losses.
        folder: Where the command runs; the trial's own folder when None.
        timeout: Seconds that it has; None for no limit.
        retries: How often it is run again after it failed.
        form: How the mixture is written for it.
    """

    line: CommandLine
    result: str
    names: LossNames
    unit: str
    folder: Path | None
    timeout: float | None
    retries: int
    form: MixtureForm


class TrialRun:
    """A trial, the command that trains it, and where."""

    def __init__(
        self,
        command: TrainerCommand,
        trial: Trial,
        place: TrialPlace,
        corpus: Corpus,
        training: Training,
    ) -> None:
        self._command, self._trial, self._place = command, trial, place
        self._corpus, self._training = corpus, training

    def result(self, alive: Callable[[], None]) -> TrialResult:
        """Return the result that is there, or that of running the command."""
        done = self._place.done()
        if done is not None:
            return self._read(done.folder, done.seconds, started=0.0)
        seconds = 0.0
        for left in range(self._command.retries, -1, -1):
            number, folder = self._place.new_attempt()
            started = time.time()
            ended = self._run(folder, alive)
            seconds += ended.seconds
            reason = None if ended.fault is None else self._told(ended.fault, folder, number)
            spent = round(ended.seconds, 3)
            self._place.note(EndedAttempt(number, started, spent, ended.code, reason))
            if reason is None:
                return self._read(folder, seconds, started)
            if self._has_diverged(folder, started):
                return self._ended("diverged", f"{reason}; its losses are not finite", seconds)
            if not left:
                break
        tries = self._command.retries + 1
        return self._ended(
            "failed", f"tried {tries} times: {reason}" if tries > 1 else reason, seconds
        )

    def _run(self, folder: Path, alive: Callable[[], None]) -> EndedCommand:
        write_facts(folder, self._trial, self._corpus, self._training)
        mixture = self._command.form.write(
            folder, self._trial.mixture, self._corpus, self._training
        )
        values = self._values(folder, mixture)
        named = {f"MIXOPT_{name.upper()}": value for name, value in values.items()}
        return run_supervised(
            self._command.line.filled(values),
            folder=self._command.folder or folder,
            environment={**os.environ, **named},
            log=folder / LOG,
            timeout=self._command.timeout,
            alive=alive,
        )

    def _values(self, folder: Path, mixture: Path) -> dict[str, str]:
        return {
            "mixture": str(mixture.resolve()),
            "trial": self._trial.name,
            "seed": str(command_seed(self._trial)),
            "tokens": str(self._training.tokens),
            "out": str(folder.resolve()),
            "gpus": str(visible_gpus(os.environ)),
            "corpus": str(self._corpus.path.resolve()),
        }

    def _told(self, fault: str, folder: Path, number: int) -> str:
        words = _last_words(folder / LOG)
        return f"the command {fault}{words}; see {self._place.path.name}/attempt-{number}/{LOG}"

    def _read(self, folder: Path, seconds: float, started: float) -> TrialResult:
        """Return the result that a command left which ended well."""
        try:
            files, values = self._values_of(folder, started)
            if started:
                self._place.finish(folder, files, seconds)
            return self._with_losses(values, seconds)
        except (MixoptError, OSError) as error:
            return self._ended("failed", f"{error}{_last_words(folder / LOG)}", seconds)

    def _values_of(self, folder: Path, started: float) -> tuple[list[Path], LoggedValues]:
        files = find_result(folder, self._command.result, _GIVEN)
        values = read_result(folder, files)
        fault = old_result(files, started) or foreign_result(values, self._trial, folder)
        if fault is not None:
            raise RunError(f"{files[0]}: {fault}")
        return files, values

    def _with_losses(self, values: LoggedValues, seconds: float) -> TrialResult:
        result, command = self._command.result, self._command
        tokens = _whole(values.said.get("tokens")) or self._training.tokens
        losses, curve = losses_of(
            values, command.names, self._corpus, tokens=tokens, unit=command.unit, result=result
        )
        fault = divergence(losses, result)
        if fault is not None:
            return self._ended("diverged", fault, seconds)
        parameters = _whole(values.said.get("parameters"))
        return TrialResult(self._trial.name, "finished", tokens, parameters, seconds, losses, curve)

    def _has_diverged(self, folder: Path, started: float) -> bool:
        """Tell whether a command that failed left losses that are no numbers."""
        try:
            _, values = self._values_of(folder, started)
            return self._with_losses(values, 0.0).status == "diverged"
        except (MixoptError, OSError):
            return False

    def _ended(
        self, status: Literal["diverged", "failed"], reason: str | None, seconds: float
    ) -> TrialResult:
        return TrialResult(self._trial.name, status, 0, 0, seconds, reason=reason)


def visible_gpus(environment: Mapping[str, str]) -> int:
    """Count the GPUs that this process was given; 0 where none was named."""
    given = next((environment[name] for name in _GPUS if environment.get(name)), "")
    return len([name for name in given.split(",") if name.strip() not in ("", "-1")])


def _last_words(log: Path) -> str:
    said = last_line(log)
    return f" (last line: {said})" if said else ""


def _whole(value: object) -> int:
    """Return a count that a result says of itself; 0 where it says none that can be."""
    try:
        number = float(str(value))
    except ValueError:
        return 0
    return round(number) if math.isfinite(number) and 0 < number < 2**63 else 0
