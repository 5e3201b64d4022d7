"""What a training process says of a run: lines in its record, and no more.

A process of its own (mixopt.tracking.sender) sends them; it is started with the first step, or by
`mixopt sync`. Nothing is waited for but the end, and nothing that goes wrong is an error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mixopt.errors import MixoptError
from mixopt.system import Say, ServerUri, silent
from mixopt.tracking.record import JOURNAL, WantedRun, append_line, wanted_runs
from mixopt.tracking.sender import LOCAL, LOG, SENT, SQLITE, Sent, check_own

if TYPE_CHECKING:
    from mixopt.config import TrackingConfig

# Longest wait at the end without a sign of life: of a server; of a database in a file, which a busy
# machine may take long to make; and for the first one, since MLflow takes seconds to import.
SERVER_SECONDS, DATABASE_SECONDS, FIRST_SECONDS = 5.0, 60.0, 60.0
AFTER_ERROR_SECONDS = 5.0
ADVISED = "with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD set"


class Tracker:
    """Says what a run directory's runs of MLflow shall be; never raises for it."""

    def __init__(
        self,
        config: TrackingConfig,
        run_name: str,
        path: Path,
        warn: Say = silent,
        *,
        sends: bool = True,
    ) -> None:
        """Prepare; the process starts with the first step."""
        self.enabled = config.enabled
        self._path, self._warn, self._sends = path, warn, sends
        self._uri = None if config.uri is None else ServerUri(absolute_uri(config.uri.given))
        self._experiment = config.experiment or run_name
        self._runs: dict[str, WantedRun] = {}
        self._process: subprocess.Popen[str] | None = None
        self._before, self._warned = 0, False

    def start(
        self,
        step: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
        folder: str | None = None,
    ) -> None:
        """Open a step's parent run, or resume the existing one."""
        if not self.enabled:
            return
        server = None if self._uri is None else str(self._uri)
        texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in params.items()}
        wanted = WantedRun(step, server, self._experiment, name or step, _now(), folder)
        wanted = replace(wanted, params=texts, tags=dict(tags or {}))
        known = wanted_runs(self._path).get(step)
        if known is not None and known.fingerprint == wanted.fingerprint:
            lasting = ("started", "params", "metrics", "objective", "lines", "files")
            wanted = replace(wanted, **{field: getattr(known, field) for field in lasting})
            wanted.tags = known.tags | wanted.tags
        self._write(wanted)
        if self._sends and self._process is None:
            self._begin()
        elif (trouble := Sent.read(self._path).trouble) is not None:
            self.complain(trouble)

    def follow(self, step: str, file: Path) -> None:
        """Send the lines of a file of metrics, those that are there and those that will be."""
        self.add(step, lines=[self._name(file)])

    def files(self, step: str, files: Iterable[Path], folder: str | None = None) -> None:
        """Keep files with a step's run, and again when they have changed."""
        self.add(step, files={self._name(file): folder for file in files})

    def end(self, step: str) -> None:
        """Finish a step's run."""
        self.add(step, status="FINISHED", ended=_now())

    def add(self, step: str, **changes: Any) -> None:
        """Add facts to a step's run, fields of `WantedRun`, or change them."""
        wanted = self._runs.get(step) or wanted_runs(self._path).get(step)
        if not self.enabled or wanted is None:
            return
        for name in ("tags", "metrics", "files"):
            changes[name] = getattr(wanted, name) | dict(changes.get(name, {}))
        changes["lines"] = list(dict.fromkeys([*wanted.lines, *changes.get("lines", ())]))
        self._write(replace(wanted, **changes))

    def close(self, *, patience: float | None = None) -> None:
        """Wait until all is sent; end a process that is silent for `patience` seconds."""
        process, self._process = self._process, None
        if process is None:
            return
        if patience is None:
            patience = patience_for(None if self._uri is None else self._uri.given)
            patience = patience if stamp_of(self._path) != self._before else FIRST_SECONDS
        trouble = wait_for_sender(process, self._path, self._uri or LOCAL, patience)
        if trouble is not None:
            self.complain(trouble)

    def complain(self, what: str) -> None:
        """Warn, once, that the record is not whole."""
        if not self._warned:
            self._warned = True
            command = f"mixopt sync {self._path}"
            if self._uri is not None:
                login = f", {ADVISED}" if self._uri.address != self._uri else ""
                command += f" --uri {self._uri.address}{login}"
            self._warn(
                f"tracking: {what}; the run continues, and what is missing is sent by its next"
                f" start or by: {command}"
            )

    def __enter__(self) -> Self:
        """Return the tracker."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait until all is sent; after an error, less long."""
        self.close(patience=None if kind is None else AFTER_ERROR_SECONDS)

    def _begin(self) -> None:
        if importlib.util.find_spec("mlflow") is None:
            self.complain("MLflow is not installed: pip install 'mixopt[all]'")
            return
        uri = None if self._uri is None else self._uri.given
        try:
            check_own(self._path)
            self._before = stamp_of(self._path)
            self._process = start_sender(self._path, uri, self._experiment)
        except (OSError, MixoptError) as error:
            self.complain(f"cannot be started: {error}")

    def _write(self, wanted: WantedRun) -> None:
        self._runs[wanted.step] = wanted
        try:
            append_line(self._path / JOURNAL, asdict(wanted))
        except OSError as error:
            self.complain(f"the record cannot be written: {error}")

    def _name(self, file: Path) -> str:
        return file.resolve().relative_to(self._path.resolve()).as_posix()


def absolute_uri(uri: str) -> str:
    """Return the name of a store that holds in any working directory."""
    if not uri.startswith(SQLITE):
        return uri
    return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).resolve()}"


def start_sender(path: Path, uri: str | None, experiment: str) -> subprocess.Popen[str]:
    """Start the process that sends a run directory's record, until its standard input is closed."""
    path.mkdir(parents=True, exist_ok=True)
    log = os.open(path / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        # -P: what lies in the run directory is not imported. A session of its own: Ctrl-C ends the
        # sweep, and the record is still closed.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mixopt.tracking.sender", str(path.resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            text=True,
            cwd=path,
            start_new_session=True,
        )
    finally:
        os.close(log)
    assert process.stdin is not None, "the process has a pipe"
    with suppress(BrokenPipeError):  # its log says why it has ended
        process.stdin.write(json.dumps({"uri": uri, "experiment": experiment}) + "\n")
        process.stdin.flush()
    return process


def wait_for_sender(
    process: subprocess.Popen[str], path: Path, server: str, patience: float, heard: Say = silent
) -> str | None:
    """Close a sender's input and wait for its end; return why something is left.

    One that sends nothing for `patience` seconds is killed.
    """
    assert process.stdin is not None, "the process has a pipe"
    with suppress(OSError):
        process.stdin.close()
    alive = spoken = time.monotonic()
    stamp = stamp_of(path)
    while process.poll() is None:
        time.sleep(0.05)
        now = time.monotonic()
        if (here := stamp_of(path)) != stamp:
            alive, stamp = now, here
        if now > alive + patience:
            process.kill()
            process.wait()
            return f"{server}: no answer for {patience:g} s"
        if now > spoken + 2:
            spoken = now
            heard(f"sync: sent {counted(Sent.read(path).sent)} so far")
    if not process.returncode:
        return None
    last = (path / LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
    ended = last[0][20:] if last else f"MLflow's process ended; see {path / LOG}"
    return Sent.read(path).trouble or ended


def patience_for(uri: str | None) -> float:
    """Return how long nothing may be sent to a server, or to a database in a file."""
    return DATABASE_SECONDS if uri is None or uri.startswith(SQLITE) else SERVER_SECONDS


def stamp_of(path: Path) -> int:
    """Return when a sender of a run directory gave its last sign of life."""
    try:
        return (path / SENT).stat().st_mtime_ns
    except OSError:
        return 0


def counted(counts: Mapping[str, int]) -> str:
    """Return counts in words."""
    names = {"points": "points of metrics"}
    parts = [f"{n:,} {names.get(name, name)}" for name, n in counts.items() if n]
    return ", ".join(parts) or "nothing"


def _now() -> int:
    return int(time.time() * 1000)
