"""A proxy that runs a command of the user: any trainer that reads a mixture and writes losses.

For each trial it creates a folder, writes the mixture, runs the command and reads its losses. It
trains nothing itself and does not import torch.

    <trial>/done.json              the valid result with its hash; sealed
    <trial>/attempt-1/mixture.yaml, trial.json, log.txt, and files of the command

A command that fails, is killed or exceeds its time limit is rerun up to `proxy.retries` times, each
time in a new folder, so that a command that outlived its worker, on a lost node, cannot write to
another attempt's folder. A command that exits with 0 is not rerun, since it would do the same
again: an invalid result is a failure of the trial.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mixopt.corpus import Corpus
from mixopt.errors import MixoptError, RunError, did_you_mean
from mixopt.mixture import Mixture, Phases
from mixopt.sweeps import Progress, Training, exit_text, last_line
from mixopt.system import check_name, file_hash, inside, read_sealed, write_sealed, writing
from mixopt.trials import Trial, TrialResult
from mixopt_proxies.command import supervisor
from mixopt_proxies.command.result_file import divergence, losses_of, number_of, read_log
from mixopt_proxies.command.trainer_command import MIXTURE, TRIAL, TrainerCommand, command_seed

SHORT_TRIAL = "short-trial"  # name of the first trial of a rehearsal
SHORT_SHARE = 20  # its tokens are 1/20 of a trial's
DONE = "done.json"
LOG = "log.txt"
HEARTBEAT = 0.2  # seconds between two signs of life of the worker
TIMESTAMP_ERROR = 2.0  # seconds; the resolution of some network file systems
MAX_LISTED = 8  # files listed in an error


class CommandProxy(TrainerCommand):
    """A proxy whose command trains one trial and writes its losses."""

    def rehearse(
        self, corpus: Corpus, training: Training, report: Callable[[Progress], None]
    ) -> None:
        """Train a short trial, then a full one if that fails: a trainer may have a minimum length.

        Raises:
            RunError: Both failed.
        """
        self.check_here()
        mixture = Mixture.uniform(corpus.domain_names)
        if training.phases is not None:
            mixture = Phases(training.phases).tied(mixture)
        trial = Trial(SHORT_TRIAL, mixture, seed=0)
        short = replace(training, tokens=max(1, training.tokens // SHORT_SHARE))
        (result,) = self.train([trial], corpus, short, report)
        if result.status == "failed":
            (result,) = self.train([trial], corpus, training, report)
        if result.status == "failed":
            where = f"{training.files}: " if training.files else ""
            raise RunError(
                f"{where}the first trial failed, so no other was started: {result.reason}"
            )

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return 1: each trial has its own command."""
        return 1

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Run the command for each trial without a result, and return the results."""
        total = len(trials) * training.tokens
        results: list[TrialResult] = []
        with tempfile.TemporaryDirectory() as temporary:
            files = Path(training.files or temporary)
            for trial in trials:
                heartbeat = partial(report, Progress(len(results) * training.tokens, total))
                run = _TrialRun(self, trial, files, corpus, training)
                results.append(run.result(heartbeat))
        report(Progress(total, total))
        return results


class _TrialRun:
    """A trial with its command and folder."""

    def __init__(
        self, command: TrainerCommand, trial: Trial, files: Path, corpus: Corpus, training: Training
    ) -> None:
        self._command = command
        self._trial = trial
        self._corpus = corpus
        self._training = training
        self._path = files / check_name(trial.name, "trial", RunError)
        identity = json.dumps(command.identity, sort_keys=True)
        self._identity = {
            "trial": trial.name,
            "mixture": trial.mixture.fingerprint,
            "seed": trial.seed,
            "tokens": training.tokens,
            "command": hashlib.sha256(identity.encode()).hexdigest()[:16],
        }

    def result(self, heartbeat: Callable[[], None]) -> TrialResult:
        """Return the stored result, or run the command."""
        with suppress(MixoptError, OSError):
            return self._stored()
        seconds = 0.0
        reason = ""
        tries = self._command.retries + 1
        for _ in range(tries):
            folder = self._new_folder()
            started = time.time()
            failure = self._run(folder, heartbeat)
            seconds += time.time() - started
            if failure is None:
                return self._read(folder, seconds, started)
            reason = failure
            with suppress(MixoptError, OSError):
                if self._load(folder, seconds, started)[1].status == "diverged":
                    return self._failure("diverged", f"{reason}; losses are not finite", seconds)
        times = f"tried {tries} times: " if tries > 1 else ""
        return self._failure("failed", f"{times}{reason}", seconds)

    def _new_folder(self) -> Path:
        """Return the folder of the next attempt, which does not exist yet."""
        number = 1
        while (self._path / f"attempt-{number}").exists():
            number += 1
        return self._path / f"attempt-{number}"

    def _stored(self) -> TrialResult:
        """Return the result of an earlier run; raise if it is of another trial or has changed."""
        record = read_sealed(self._path / DONE, hint="delete it to run the trial again")
        folder = inside(self._path, str(record.get("attempt")))
        file = inside(folder, str(record.get("file")))
        is_same_trial = self._identity.items() <= record.items()
        if not is_same_trial or file_hash(file) != record.get("file_hash"):
            raise RunError(f"{self._path / DONE}: belongs to another trial, or its file changed")
        return self._read(folder, float(record["seconds"]), started=0.0)

    def _run(self, folder: Path, heartbeat: Callable[[], None]) -> str | None:
        """Run the command once, in a new folder; return the reason of a failure."""
        with writing(folder):
            folder.mkdir(parents=True)
        command = self._command
        log = folder / LOG
        words, environment = command.prepared(self._trial, self._corpus, self._training, folder)
        place = command.place or folder
        error = run_supervised(words, place, environment, log, command.timeout, heartbeat)
        if error is None:
            return None
        name = f"{self._path.name}/{folder.name}/{LOG}"
        return f"the command {error}{_last_line(log)}; see {name}"

    def _read(self, folder: Path, seconds: float, started: float) -> TrialResult:
        """Return the result of a command that exited with 0, and store it."""
        try:
            file, result = self._load(folder, seconds, started)
            if started:
                content = {
                    "attempt": folder.name,
                    "file": file.relative_to(folder).as_posix(),
                    "file_hash": file_hash(file),
                    "seconds": round(seconds, 3),
                }
                write_sealed(self._path / DONE, self._identity | content)
        except (MixoptError, OSError) as error:
            return self._failure("failed", f"{error}{_last_line(folder / LOG)}", seconds)
        return result

    def _load(self, folder: Path, seconds: float, started: float) -> tuple[Path, TrialResult]:
        """Return the command's result file and its content."""
        command = self._command
        file = result_file(folder, command.result)
        log = read_log(file)
        age = started - file.stat().st_mtime  # seconds
        error = _mismatch(log.about, self._trial)
        if age > TIMESTAMP_ERROR:
            error = (
                f"is {age:.0f} s older than the attempt that should have written it; is it a copy"
                " of another run?"
            )
        if error is not None:
            raise RunError(f"{file}: {error}")
        tokens = _count(log.about.get("tokens")) or self._training.tokens
        losses, curve = losses_of(
            log, command.losses, self._corpus,
            tokens=tokens, unit=command.unit, result=command.result,
        )  # fmt: skip
        error = divergence(losses, command.result)
        if error is not None:
            return file, self._failure("diverged", error, seconds)
        result = TrialResult(
            trial=self._trial.name,
            status="finished",
            tokens=tokens,
            parameters=_count(log.about.get("parameters")),
            seconds=seconds,
            losses=losses,
            curve=curve,
        )
        return file, result

    def _failure(
        self, status: Literal["diverged", "failed"], reason: str, seconds: float
    ) -> TrialResult:
        return TrialResult(self._trial.name, status, 0, 0, seconds, reason=reason)


def result_file(folder: Path, result: str) -> Path:
    """Return the file that `result` names; if a glob matches several, the newest."""
    matched = [folder / result]
    if not matched[0].exists():
        matched = sorted(folder.glob(result))
    if not matched:
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
        written = sorted(files - {LOG, MIXTURE, TRIAL})[:MAX_LISTED]
        near = did_you_mean(result, written) or "; it wrote no file there"
        raise RunError(f"{folder}: the command wrote no {result!r}{near}")
    newest = max(matched, key=lambda path: path.stat().st_mtime)
    return inside(folder, newest.relative_to(folder).as_posix(), RunError)


def _mismatch(about: Mapping[str, Any], trial: Trial) -> str | None:
    """Return an error if a result names another trial or seed; None: it does not."""
    if str(about.get("trial", trial.name)) != trial.name:
        return f"is for trial {about['trial']!r}, not {trial.name!r}"
    seeds = {str(trial.seed), str(command_seed(trial))}
    if "seed" in about and str(about["seed"]).removesuffix(".0") not in seeds:
        hint = "pass {seed} to the trainer, or write its own seed under another name"
        return f"has seed {about['seed']!r}, but the trial has {command_seed(trial)}; {hint}"
    return None


def _last_line(log: Path) -> str:
    line = last_line(log)
    return f" (last line: {line})" if line else ""


def _count(value: object) -> int:
    """Return a count stated in a result; 0 if it is missing or invalid."""
    number = number_of(value) or 0.0
    return round(number) if 0 < number < 2**63 else 0


def run_supervised(
    words: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    timeout: float | None,
    heartbeat: Callable[[], None],
) -> str | None:
    """Run a command to its end; return how it failed, or None after exit code 0."""
    started = time.monotonic()
    is_late = False
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-I", supervisor.__file__, str(supervisor.GRACE), *words],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            start_new_session=True,
        )
    try:
        while process.poll() is None and not is_late:
            heartbeat()
            is_late = timeout is not None and time.monotonic() - started > timeout
            with suppress(subprocess.TimeoutExpired):
                process.wait(HEARTBEAT)
    finally:  # when the pipe closes, the supervisor ends the remaining processes
        output, _ = process.communicate()
    report: dict[str, Any] = {}
    for line in output.splitlines():
        report |= json.loads(line)
    if process.returncode and "pid" in report:
        with suppress(OSError):
            os.killpg(report["pid"], signal.SIGKILL)
        return f"lost its supervisor, which ended with {exit_text(process.returncode)}"
    code = report.get("code")
    if code is not None:
        return f"ended with {exit_text(code)}" if code else None
    if is_late:
        return f"took longer than proxy.timeout: {timeout:g} s, and was stopped"
    return report.get("fault") or "ended without an exit code"
