"""The record of a run: what training says of it, in files of its directory, and no more.

A line of `tracking.jsonl` is all that MLflow shall have of a parent run (`WantedRun`); the last one
of each step counts. A line of metrics, in any file that is followed, is
`{step, time, <key>: number, <key>: {<name>: number}}`. Half a line, left by a killed process, is
ended by whoever writes next, and left out by readers.

A process of its own (mixopt.tracking.sender) sends them; it is started with the first step, or by
`mixopt sync`. Nothing is waited for but the end, and nothing that goes wrong is an error.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from mixopt.errors import MixoptError, RunError
from mixopt.system import Say, ServerUri, checked_as, inside, silent

if TYPE_CHECKING:
    from mixopt.config import TrackingConfig

JOURNAL, SENT = "tracking.jsonl", "tracking_sent.json"
LOG, LOCK = "tracking.log", "tracking.lock"
LOCAL, ARTIFACTS = "mlflow.db", "mlartifacts"  # where the user names no server
SQLITE = "sqlite:///"
FINGERPRINT = "mixopt.fingerprint"  # the tag of what results depend on; another is another run
MAX_INTEGER = 1 << 63  # of MLflow's steps and times
TAIL_BYTES = 256  # before a position; they tell whether the file is still the one that was read
# Longest wait at the end without a sign of life: of a server; of a database in a file, which a busy
# machine may take long to make; and for the first one, since MLflow takes seconds to import.
SERVER_SECONDS, DATABASE_SECONDS, FIRST_SECONDS = 5.0, 60.0, 60.0
AFTER_ERROR_SECONDS = 5.0
ADVISED = "with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD set"


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Append a line in one piece; half a line, left by a killed process, is ended first."""
    line = json.dumps(content, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags, 0o644), "r+b", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        is_torn = size > 0 and os.pread(stream.fileno(), 1, size - 1) != b"\n"
        if (stream.write(b"\n" + line if is_torn else line) or 0) < len(line):
            raise OSError(f"{path}: the disk is full")


class MetricPoint(NamedTuple):
    """A value of a metric; `time` is in milliseconds."""

    key: str
    value: float
    time: int
    step: int


@dataclass
class Position:
    """How much of a file of metrics has been sent.

    A training run that resumes from a checkpoint cuts what it wrote after it and writes those steps
    again: they are not new.
    """

    offset: int = 0
    tail: str = ""  # hash of the bytes before it; others there mean that the file was cut
    last: dict[str, int] = field(default_factory=dict)  # step of each metric

    def take(self, file: Path, limit: int) -> list[MetricPoint]:
        """Return points after this position, about `limit` of them, and move behind them."""
        points: list[MetricPoint] = []
        with file.open("rb") as stream:
            if _tail(stream, self.offset) != self.tail:
                self.offset = 0
            stream.seek(self.offset)
            for line in stream:
                if not line.endswith(b"\n") or len(points) >= limit:
                    break
                self.offset += len(line)
                for point in points_of(line):
                    if point.step > self.last.get(point.key, point.step - 1):
                        points.append(point)
                        self.last[point.key] = point.step
            self.tail = _tail(stream, self.offset)
        return points


def points_of(line: bytes) -> Iterator[MetricPoint]:
    """Yield the points of a line; none where it is not a line of metrics."""
    content = parsed(line)
    step, seconds = content.pop("step", None), content.pop("time", None)
    if not (_is_number(step) and isinstance(step, int) and abs(step) < MAX_INTEGER):
        return
    if not (_is_number(seconds) and 0 <= seconds * 1000 < MAX_INTEGER):
        return
    for key, value in content.items():
        for name, number in value.items() if isinstance(value, Mapping) else [("", value)]:
            if _is_number(number):
                full = f"{key}/{name}" if name else key
                yield MetricPoint(full, float(number), int(seconds * 1000), step)


def parsed(line: bytes) -> dict[str, Any]:
    """Return the object of a line; an empty one where it is torn or something else."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass
class WantedRun:
    """What a parent run shall be in MLflow; times are in milliseconds."""

    step: str
    server: str | None  # without a secret; None is the directory's own database
    experiment: str
    name: str
    started: int
    folder: str | None = None  # of its trials' files, in the run directory
    objective: dict[str, Any] | None = None  # of its trials, as `Objective.to_json`
    params: dict[str, str] = field(default_factory=dict)  # of its first start: they cannot change
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)  # of the whole run
    status: str = "RUNNING"  # FINISHED, or KILLED where a training process came to no end
    ended: int | None = None
    lines: list[str] = field(default_factory=list)  # files of metrics to follow
    files: dict[str, str | None] = field(default_factory=dict)  # to keep; the folder to show it in

    @property
    def fingerprint(self) -> str:
        """What its results depend on."""
        return self.tags.get(FINGERPRINT, "")


def wanted_runs(path: Path) -> dict[str, WantedRun]:
    """Return what a run directory wants recorded, by step; a line that is not one is skipped."""
    runs: dict[str, WantedRun] = {}
    if (path / JOURNAL).is_file():
        for line in (path / JOURNAL).read_bytes().split(b"\n"):
            with suppress(RunError):
                wanted = checked_as(WantedRun, parsed(line), JOURNAL)
                if 0 <= wanted.started < MAX_INTEGER and 0 <= (wanted.ended or 0) < MAX_INTEGER:
                    runs[wanted.step] = wanted
    return runs


@dataclass
class SentRun:
    """What a server has of a parent run."""

    run: str  # MLflow's id
    fingerprint: str
    status: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # their marks
    trials: dict[str, str] = field(default_factory=dict)  # marks of their file and the objective
    lines: dict[str, Position] = field(default_factory=dict)


@dataclass
class Sent:
    """What was sent of a run directory: `tracking_sent.json`; one that cannot be read is none."""

    # A tag of every parent run: one that was made but not noted before a kill is found again.
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    sent: dict[str, int] = field(default_factory=dict)  # by the last process, for who waits for it
    trouble: str | None = None  # why something is left
    servers: dict[str, dict[str, SentRun]] = field(default_factory=dict)  # by server and step

    @classmethod
    def read(cls, path: Path) -> Sent:
        """Read that of a run directory."""
        try:
            return checked_as(cls, json.loads((path / SENT).read_bytes()), SENT)
        except (OSError, ValueError, RecursionError, RunError):
            return cls()


def check_own(directory: Path) -> None:
    """Check that what is written beside a run is in its directory, and a file or a folder."""
    database = [f"{LOCAL}{end}" for end in ("", ".lock", ".making", "-wal", "-shm", "-journal")]
    for name in (JOURNAL, SENT, LOG, LOCK, ARTIFACTS, *database):
        path = inside(directory, name)
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise RunError(f"{path}: is not a file; delete it")


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
        self._uri = None if config.uri is None else absolute_uri(config.uri.given)
        self._server = None if self._uri is None else ServerUri(self._uri)
        self._experiment = config.experiment or run_name
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
        texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in params.items()}
        wanted = WantedRun(step, self._server, self._experiment, name or step, _now(), folder)
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
        wanted = wanted_runs(self._path).get(step)
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
            patience = patience_for(self._uri)
            patience = patience if stamp_of(self._path) != self._before else FIRST_SECONDS
        trouble = wait_for_sender(process, self._path, self._server or LOCAL, patience)
        if trouble is not None:
            self.complain(trouble)

    def complain(self, what: str) -> None:
        """Warn, once, that the record is not whole."""
        if not self._warned:
            self._warned = True
            command = f"mixopt sync {self._path}"
            if self._server is not None:
                login = f", {ADVISED}" if self._server.address != self._server else ""
                command += f" --uri {self._server.address}{login}"
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
        try:
            check_own(self._path)
            self._before = stamp_of(self._path)
            self._process = start_sender(self._path, self._uri, self._experiment)
        except (OSError, MixoptError) as error:
            self.complain(f"cannot be started: {error}")

    def _write(self, wanted: WantedRun) -> None:
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


def _is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) < 1e300


def _tail(stream: Any, offset: int) -> str:
    """Return the hash of the bytes before a position; of none at the beginning of a file."""
    if offset == 0:
        return ""
    stream.seek(max(offset - TAIL_BYTES, 0))
    return hashlib.sha256(stream.read(min(offset, TAIL_BYTES))).hexdigest()[:16]
