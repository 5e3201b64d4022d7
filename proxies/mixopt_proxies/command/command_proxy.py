"""A proxy that is a command of the user's: any trainer that takes a mixture and leaves losses.

For each trial it makes a folder (mixopt_proxies.command.trial_place), writes the mixture there,
runs the command (mixopt_proxies.command.trial_run) and reads its losses
(mixopt_proxies.command.trial_losses). It trains nothing itself and imports no torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from mixopt.corpus import Corpus
from mixopt.errors import ConfigError
from mixopt.trials import Progress, Training, Trial, TrialResult
from mixopt_proxies.command.command_line import CommandLine
from mixopt_proxies.command.mixture_forms import MixtureForm
from mixopt_proxies.command.trial_losses import UNITS, LossNames
from mixopt_proxies.command.trial_place import TrialPlace, hash_of
from mixopt_proxies.command.trial_run import TrainerCommand, TrialRun


class CommandProxy:
    """A command that trains one trial and writes its losses."""

    is_probed = False  # `mixopt check` runs no command

    def __init__(
        self,
        run: str | Sequence[str],
        result: str,
        losses: str | Mapping[str, str] | None = None,
        unit: str = "nats_per_token",
        mixture_format: str | None = None,
        paths: Mapping[str, Any] | None = None,
        folder: str | None = None,
        timeout: float | None = None,
        retries: int = 0,
    ) -> None:
        """Check what can be checked without a corpus."""
        _check_result(result)
        if unit not in UNITS:
            raise ConfigError(f"proxy.unit: {unit!r}; need {' or '.join(UNITS)}")
        self._made_by = {
            "run": run if isinstance(run, str) else list(run),
            "mixture_format": mixture_format,
            "paths": None if paths is None else dict(paths),
            "folder": folder,
        }
        form = MixtureForm(mixture_format, paths)
        place = None if folder is None else Path(folder).expanduser().resolve()
        line, names = CommandLine(run), LossNames(losses)
        self._command = TrainerCommand(line, result, names, unit, place, timeout, retries, form)

    def check_here(self) -> None:
        """Check that the command's folder, program and script are there, on this machine."""
        folder = self._command.folder
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"proxy.folder: {folder}: no such folder")
        self._command.line.check_program(folder)

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return 1: each trial has a command of its own."""
        self.check_here()
        self._command.names.check(corpus.evaluation_names)
        self._command.form.check(corpus, training)
        return 1

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Run the command for each trial that has no result, and return their losses."""
        total, results = len(trials) * training.tokens, list[TrialResult]()
        made_by = hash_of(self._made_by)
        with ExitStack() as stack:
            files = training.files or stack.enter_context(tempfile.TemporaryDirectory())
            for trial in trials:
                alive = partial(report, Progress(len(results) * training.tokens, total))
                place = TrialPlace(Path(files), trial, training.tokens, made_by)
                run = TrialRun(self._command, trial, place, corpus, training)
                results.append(run.result(alive))
        report(Progress(total, total))
        return results


def _check_result(result: str) -> None:
    path = PurePath(result)
    if not result or path.is_absolute() or ".." in path.parts:
        raise ConfigError(
            f"proxy.result: {result!r}; need a file or folder that the command writes below {{out}}"
        )
