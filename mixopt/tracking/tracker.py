"""What the training process says of a run: a line in the journal each time, and no more.

A process of its own (mixopt.tracking.process) sends; it is started with the first step. Here
nothing is waited for but the end, and nothing that goes wrong is an error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from mixopt.errors import MixoptError
from mixopt.system import FileRecord, Say, ServerUri, silent
from mixopt.tracking.database import anywhere, database_file
from mixopt.tracking.journal import JOURNAL
from mixopt.tracking.lines import PRIVATE, LineFile, open_to_append, parsed
from mixopt.tracking.sender_settings import ADVISED, LOCAL, LOG, Settings
from mixopt.tracking.sent_files import check_own

if TYPE_CHECKING:
    from mixopt.config import TrackingConfig


# Longest wait at the end for a sign of life of the process: of a server, and of a database in a
# file, which no server can hold up and which a machine that is busy may take long to make.
SERVER_SECONDS, SILENCE_SECONDS = 5.0, 60.0


class Tracker:
    """Says what happens in a run to the process that records it; never raises for it."""

    def __init__(
        self,
        config: TrackingConfig,
        run_name: str,
        path: Path,
        warn: Say = silent,
        *,
        sends: bool = True,
    ) -> None:
        """Prepare; the process starts with the first step.

        Args:
            config: Where MLflow keeps the record.
            run_name: Name of the experiment unless `config` has one.
            path: The run directory.
            warn: Called with one line if the record cannot be kept.
            sends: Whether to start the process; without, `mixopt sync` sends what is said here.
        """
        self._config, self._path, self._warn = config, path, warn
        self._uri = None if config.uri is None else ServerUri(anywhere(config.uri.given))
        self._experiment, self._sends = config.experiment or run_name, sends
        self._journal: LineFile | None = None
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._alive, self._warned, self._opened = time.monotonic(), False, False

    @property
    def enabled(self) -> bool:
        """Whether a record is kept."""
        return self._config.enabled

    def start(
        self,
        step: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
        folder: str | None = None,
        datasets: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Open a step's parent run, or resume the existing one.

        Args:
            step: What the run is called in the run directory: `sweep`, `validate`, `pretrain`.
            params: Settings to show beside the run; they never change afterwards.
            tags: Further facts. Another `mixopt.fingerprint` than before begins a new run.
            name: What the run is called in MLflow; as the step when None.
            folder: Folder of the run directory with a file for each trial.
            datasets: What is read (mixopt.tracking.datasets).
        """
        if not self._config.enabled:
            return
        if not self._opened:
            self._open()
        self._say(
            op="start",
            step=step,
            name=name or step,
            folder=folder,
            params={key: _text(value) for key, value in params.items()},
            tags=dict(tags or {}),
            environment=_environment(),
            datasets=list(datasets),
        )

    def follow(self, step: str, file: Path, trial: str | None = None) -> None:
        """Send the lines of a file of metrics, those that are there and those that will be.

        Args:
            step: The step that it belongs to.
            file: Lines as `MetricLines` writes them; it may come later.
            trial: The trial that it belongs to, if not to the step as a whole.
        """
        self._say(op="follow", step=step, file=self._name(file), trial=trial)

    def files(
        self,
        step: str,
        files: Iterable[Path],
        folder: str | None = None,
        trial: str | None = None,
        records: Mapping[str, FileRecord] | None = None,
    ) -> None:
        """Keep files with a step's run, and again when they have changed.

        Of mixopt's steps, the files that they make are sent (mixopt.tracking.sent_files).

        Args:
            step: The step that they belong to.
            files: Files that are whole, or will be; one that is not there is not kept.
            folder: Where MLflow shows them; tables and figures in folders of that name when None.
            trial: The trial that they belong to, if not to the step as a whole.
            records: Of a step of your own: what they are, by their path in the run directory;
                they are not sent if they are something else then.
        """
        names = [self._name(file) for file in files]
        event = {"op": "files", "step": step, "files": names, "folder": folder, "trial": trial}
        known = {name: record.to_json() for name, record in (records or {}).items()}
        self._say(**event, **({"records": known} if known else {}))

    def tags(self, step: str, tags: Mapping[str, str]) -> None:
        """Add facts to a step's run, or change them.

        In a process that has started no step, they are noted beside what the journal has already,
        and sent by the next one that starts one, or by `mixopt sync`.
        """
        if self._journal is None and self.enabled and (self._path / JOURNAL).exists():
            self._journal = LineFile(self._path / JOURNAL, PRIVATE)
        self._say(op="tags", step=step, tags=dict(tags))

    def end(self, step: str) -> None:
        """Finish a step's run."""
        self._say(op="end", step=step)

    def close(self, *, patience: float | None = None) -> None:
        """Wait until all is sent; end a process that gives no sign of life for `patience` s.

        Args:
            patience: Seconds; 5 for a server and 60 for a database file when None.
        """
        if patience is None:
            is_file = self._uri is None or database_file(self._uri.given) is not None
            patience = SILENCE_SECONDS if is_file else SERVER_SECONDS
        if self._journal is not None:
            self._journal.close()
            self._journal, self._opened = None, False
        process, reader = self._process, self._reader
        if process is None or reader is None:
            return
        with suppress(OSError), _stream(process.stdin) as stream:
            stream.write("end\n")
        self._alive = max(self._alive, time.monotonic())
        while reader.is_alive() and time.monotonic() - self._alive < patience:
            reader.join(0.1)
        if reader.is_alive():
            process.kill()
            self.complain(f"{self._uri or LOCAL}: no answer for {patience:g} s")
        reader.join()
        process.wait()
        _stream(process.stdout).close()
        self._process = self._reader = None

    def __enter__(self) -> Self:
        """Return the tracker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close; after an error, without patience."""
        self.close(patience=None if kind is None else 2.0)

    def _open(self) -> None:
        self._opened = True
        if self._journal is not None:
            self._journal.close()
        self._journal = LineFile(self._path / JOURNAL, PRIVATE)
        uri = None if self._uri is None else str(self._uri)
        self._say(op="open", uri=uri, experiment=self._experiment)
        if not self._sends:
            return
        if _installed("mlflow"):
            self._launch()
        else:
            self.complain("MLflow is not installed: pip install 'mixopt[mlflow]'")

    def _launch(self) -> None:
        settings = Settings(self._uri, self._experiment, own=self._uri is None)
        try:
            check_own(self._path, LOG)
            with os.fdopen(open_to_append(self._path / LOG, PRIVATE), "ab") as log:
                # A session of its own: Ctrl-C ends the sweep, and the record is still closed.
                self._process = subprocess.Popen(
                    sender_command(self._path),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,
                )
            stream = _stream(self._process.stdin)
            stream.write(f"{settings.to_json()}\n")
            stream.flush()
        except (OSError, MixoptError) as error:
            self.complain(f"cannot be started: {error}")
            return
        self._reader = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._reader.start()

    def _say(self, **event: Any) -> None:
        if self._journal is not None:
            try:
                self._journal.append({**event, "time": round(time.time(), 3)})
            except OSError as error:
                self.complain(f"{self._path / JOURNAL} cannot be written: {error}")

    def _name(self, file: Path) -> str:
        if file.is_relative_to(self._path):
            return file.relative_to(self._path).as_posix()
        return file.resolve().as_posix()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        done = False
        for line in _stream(process.stdout):
            self._alive = time.monotonic()
            answer = parsed(line.encode())
            done = done or "done" in answer
            if "warning" in answer:
                self.complain(answer["warning"])
        if not done:
            self.complain(f"MLflow's process ended; see {self._path / 'tracking.log'}")

    def complain(self, what: str) -> None:
        """Warn, once, that the record is not whole."""
        if not self._warned:
            self._warned = True
            self._warn(
                f"tracking: {what}; the run continues, and what is missing is sent by its next"
                f" start or by: {self._sync_command()}"
            )

    def _sync_command(self) -> str:
        if self._uri is None:
            return f"mixopt sync {self._path}"
        login = f", {ADVISED}" if self._uri.address != self._uri else ""
        return f"mixopt sync {self._path} --uri {self._uri.address}{login}"


def sender_command(path: Path) -> list[str]:
    """Return the command of the process that sends a run directory's record.

    Where it sends to is its first line of input, and never an argument.
    """
    # -P: what lies in the working directory, which may be the run's, is not imported.
    return [sys.executable, "-P", "-m", "mixopt.tracking.process", str(path.resolve())]


def _environment() -> dict[str, str]:
    from mixopt.system import machine, package_versions

    return {**package_versions(), "machine": machine()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "the process has pipes"
    return stream


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # blocked in sys.modules
        return False
