"""Append-only record of a run for MLflow, in files of the run directory.

A line of `tracking.jsonl` is the complete wanted state of a parent run (`WantedRun`); the last line
of each step counts. A line of metrics, in any followed file, is
`{step, time, <key>: number, <key>: {<name>: number}}`. Readers skip partial lines.

A separate process (mixopt.tracking.sender) sends the record; it is started with the first step or
by `mixopt sync`. Training waits for it only at the end, and tracking errors are only warnings.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from mixopt.config import TrackingConfig
from mixopt.errors import ConfigError, MixoptError, RunError
from mixopt.system import Count, Say, ServerUri, checked_as, inside, parse_json, silent, writing

JOURNAL = "tracking.jsonl"
SENT = "tracking_sent.json"
LOG = "tracking.log"
LOCK = "tracking.lock"
LOCAL = "mlflow.db"  # used unless the user names a server
LOCAL_ENDINGS = ("", ".lock", "-wal", "-shm", "-journal")  # of its files
ARTIFACTS = "mlartifacts"  # beside it
SQLITE = "sqlite:///"
FINGERPRINT = "mixopt.fingerprint"  # tag: hash of what results depend on
MAX_INTEGER = 1 << 63  # limit of MLflow's steps and times
LOG_TIME = "%Y-%m-%d %H:%M:%S"  # starts each line of the log
LOG_TIME_LENGTH = 20  # characters, with the space after it
# Maximum silence at the end, in seconds.
SERVER_SECONDS = 5.0
DATABASE_SECONDS = 60.0  # a busy machine creates a database file slowly
FIRST_SECONDS = 60.0  # before the first sign of life: MLflow takes seconds to import
REPORT_SECONDS = 2.0  # between two lines of progress


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Append a line atomically, after terminating a partial line of a killed process."""
    line = f"{json.dumps(content, allow_nan=False)}\n".encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags, 0o644), "a+b") as stream:
        is_torn = stream.tell() and os.pread(stream.fileno(), 1, stream.tell() - 1) != b"\n"
        if is_torn:
            line = b"\n" + line
        stream.write(line)


class MetricPoint(NamedTuple):
    """A value of a metric; `time` is in milliseconds."""

    key: str
    value: float
    time: int
    step: int


def read_points(file: Path, offset: int, limit: int) -> tuple[list[MetricPoint], int]:
    """Return about `limit` points after an offset, and the next; a cut file is read anew."""
    points: list[MetricPoint] = []
    with file.open("rb") as stream:
        stream.seek(max(offset - 1, 0))
        if offset and stream.read(1) != b"\n":  # the file was cut and has grown again
            offset = stream.seek(0)
        for line in stream:
            if not line.endswith(b"\n") or len(points) >= limit:
                break
            offset += len(line)
            points += points_of(line)
    return points, offset


def points_of(line: bytes) -> Iterator[MetricPoint]:
    """Yield the points of a line; none if it is not a line of metrics."""
    try:
        content = checked_as(dict[str, Any], parse_json(line, ""), "")
    except RunError:
        return
    step = content.pop("step", None)
    seconds = content.pop("time", None)
    if not (isinstance(step, int) and _is_number(step) and abs(step) < MAX_INTEGER):
        return
    if not (_is_number(seconds) and 0 <= seconds * 1000 < MAX_INTEGER):
        return
    for key, value in content.items():
        numbers = value if isinstance(value, Mapping) else {"": value}
        for name, number in numbers.items():
            if _is_number(number):
                full = f"{key}/{name}" if name else key
                yield MetricPoint(full, float(number), int(seconds * 1000), step)


@dataclass
class WantedRun:
    """Wanted state of a parent run in MLflow; times are in milliseconds."""

    step: str
    server: str | None  # without credentials; None: the directory's own database
    experiment: str
    name: str
    started: Count
    folder: str | None = None  # folder of trial files in the run directory
    objective: dict[str, Any] | None = None  # objective of its trials (`Objective.to_json`)
    params: dict[str, str] = field(default_factory=dict)  # as of its first start
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)  # metrics of the whole run
    status: str = "RUNNING"  # FINISHED, or KILLED if training was killed
    ended: Count | None = None
    lines: str | None = None  # file of metrics to follow
    files: list[str] = field(default_factory=list)  # artifacts

    @property
    def fingerprint(self) -> str:
        """Hash of what its results depend on."""
        return self.tags.get(FINGERPRINT, "")


def wanted_runs(path: Path) -> dict[str, WantedRun]:
    """Return the wanted runs of a directory by step, the last written at the end."""
    journal = path / JOURNAL
    if not journal.is_file():
        return {}
    runs: dict[str, WantedRun] = {}
    for line in journal.read_bytes().split(b"\n"):
        with suppress(RunError):
            wanted = checked_as(WantedRun, parse_json(line, JOURNAL), JOURNAL)
            runs.pop(wanted.step, None)
            runs[wanted.step] = wanted
    return runs


@dataclass
class SentRun:
    """State of a parent run on a server."""

    run: str  # MLflow's id
    status: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)  # marks of change of its files and trials
    # The last step of each metric: a run that resumes from a checkpoint cuts later lines and
    # writes their steps again, which are not sent twice.
    steps: dict[str, int] = field(default_factory=dict)


@dataclass
class Sent:
    """State of each server that a run directory was sent to (`tracking_sent.json`)."""

    # A tag of every parent run, to find one that was created just before a kill.
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    sent: dict[str, int] = field(default_factory=dict)  # counts of the last sender process
    trouble: str | None = None  # why something remains
    # By server, and by step and fingerprint.
    servers: dict[str, dict[str, SentRun]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Sent:
        """Read the file of a run directory; empty if missing or unreadable."""
        try:
            return checked_as(cls, json.loads((path / SENT).read_bytes()), SENT)
        except (OSError, ValueError, RecursionError, RunError):
            return cls()


def sent_words(sent: Mapping[str, int]) -> str:
    """Return what was sent, as text."""
    return ", ".join(f"{n:,} {name}" for name, n in sent.items() if n) or "nothing"


class SenderProcess:
    """The process that sends a directory's record until its standard input is closed."""

    def __init__(self, path: Path, server: ServerUri | None) -> None:
        """Start the process, after checking that the record's files are regular and inside."""
        if importlib.util.find_spec("mlflow") is None:
            raise ConfigError("MLflow is not installed: pip install 'mixopt[all]'")
        _check_files(path)
        self.server = LOCAL if server is None else str(server)
        is_file = server is None or server.startswith(SQLITE)
        self.patience = DATABASE_SECONDS if is_file else SERVER_SECONDS
        self._path = path
        self._first_sign = self._sign_of_life()
        self._process = _start_sender(path)
        # Not an argument, which all users of the machine could see: it may have a password.
        self._input = cast(IO[bytes], self._process.stdin)
        uri = "" if server is None else server.given
        with suppress(BrokenPipeError):  # the log has the reason
            self._input.write(f"{uri}\n".encode())
            self._input.flush()

    def end(self, patience: float | None = None, say: Say = silent) -> str | None:
        """Close its input and wait for its end; return why something remains.

        A process without progress for `patience` seconds is killed.
        """
        with suppress(OSError):
            self._input.close()
        last_progress = last_report = time.monotonic()
        sign = reported_sign = self._sign_of_life()
        while self._process.poll() is None:
            time.sleep(0.05)
            now = time.monotonic()
            latest_sign = self._sign_of_life()
            if latest_sign != sign:
                sign = latest_sign
                last_progress = now
            limit = patience or self._default_patience(sign)
            if now > last_progress + limit:
                self._process.kill()
                self._process.wait()
                return f"{self.server}: no answer for {limit:g} s"
            is_news = sign not in (self._first_sign, reported_sign)
            if is_news and now > last_report + REPORT_SECONDS:
                reported_sign = sign
                last_report = now
                say(f"sync: sent {sent_words(Sent.read(self._path).sent)} so far")
        return self._failure() if self._process.returncode else None

    def _failure(self) -> str:
        """Return why an ended process has failed: what it recorded, or its last line of log."""
        recorded = Sent.read(self._path).trouble
        if recorded:
            return recorded
        log = self._path / LOG
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1][LOG_TIME_LENGTH:] if lines else f"MLflow's process ended; see {log}"

    def _default_patience(self, sign: int) -> float:
        return FIRST_SECONDS if sign == self._first_sign else self.patience

    def _sign_of_life(self) -> int:
        """Return the time of the last update of `tracking_sent.json`."""
        try:
            return (self._path / SENT).stat().st_mtime_ns
        except OSError:
            return 0


def _check_files(path: Path) -> None:
    """Raise on a file of the record that is outside the directory, or a device or pipe."""
    names = [JOURNAL, SENT, LOG, LOCK, ARTIFACTS]
    names += [f"{LOCAL}{ending}" for ending in LOCAL_ENDINGS]
    for name in names:
        file = inside(path, name)
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise RunError(f"{file}: is not a file; delete it")


def _start_sender(path: Path) -> subprocess.Popen[bytes]:
    """Start the sender of a directory, which writes errors to the log."""
    with writing(path / LOG):
        path.mkdir(parents=True, exist_ok=True)
        log = os.open(path / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # -P: nothing is imported from the run directory. A session of its own: Ctrl-C ends the
        # sweep, while the record is still completed.
        with os.fdopen(log, "ab") as stderr:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "mixopt.tracking.sender", str(path.resolve())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=path,
                start_new_session=True,
            )


class Tracker(AbstractContextManager["Tracker"]):
    """Records the wanted MLflow runs of a directory; never raises."""

    def __init__(
        self,
        config: TrackingConfig,
        run_name: str,
        path: Path,
        warn: Say = silent,
        *,
        sends: bool = True,
    ) -> None:
        """Store settings; the process starts with the first step."""
        self.enabled = config.enabled
        self._path = path
        self._warn = warn
        self._sends = sends
        self._server = None if config.uri is None else absolute_uri(config.uri)
        self._experiment = config.experiment or run_name
        self._process: SenderProcess | None = None
        self._warned = False

    def start(
        self,
        step: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
        folder: str | None = None,
    ) -> None:
        """Start or resume a step's parent run."""
        if not self.enabled:
            return
        wanted = WantedRun(
            step=step,
            server=self._server,
            experiment=self._experiment,
            name=name or step,
            started=_now(),
            folder=folder,
            params={name: _param_text(value) for name, value in params.items()},
            tags=dict(tags or {}),
        )
        previous = wanted_runs(self._path).get(step)
        if previous is not None and previous.fingerprint == wanted.fingerprint:
            wanted = replace(
                previous,
                name=wanted.name,
                folder=folder,
                tags=previous.tags | wanted.tags,
                status="RUNNING",
                ended=None,
            )
        self._write(wanted)
        if self._sends and self._process is None:
            self._start_process()
        else:
            trouble = Sent.read(self._path).trouble
            if trouble is not None:
                self.complain(trouble)

    def _start_process(self) -> None:
        try:
            self._process = SenderProcess(self._path, self._server)
        except (OSError, MixoptError) as error:
            self.complain(f"cannot be started: {error}")

    def end(self, step: str, **changes: Any) -> None:
        """Finish a step's run."""
        self.add(step, status="FINISHED", ended=_now(), **changes)

    def add(self, step: str, *, files: Iterable[Path] = (), **changes: Any) -> None:
        """Set fields of a step's `WantedRun`; files are sent again after each change."""
        wanted = wanted_runs(self._path).get(step)
        if not self.enabled or wanted is None:
            return
        changes["tags"] = wanted.tags | changes.get("tags", {})
        changes["metrics"] = wanted.metrics | changes.get("metrics", {})
        folder = self._path.resolve()
        added = [file.resolve().relative_to(folder).as_posix() for file in files]
        changes["files"] = list(dict.fromkeys(wanted.files + added))
        changed = replace(wanted, **changes)
        if changed != wanted:
            self._write(changed)

    def complain(self, trouble: str) -> None:
        """Warn once that the record is incomplete."""
        if not self._warned:
            self._warned = True
            option = "" if self._server is None else f" {uri_option(self._server)}"
            self._warn(
                f"tracking: {trouble}; what is missing is sent by the run's next start or by:"
                f" mixopt sync {self._path}{option}"
            )

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait until all is sent, for a shorter time after an error."""
        process = self._process
        self._process = None
        if process is None:
            return
        patience = None if kind is None else SERVER_SECONDS
        trouble = process.end(patience)
        if trouble is not None:
            self.complain(trouble)

    def _write(self, wanted: WantedRun) -> None:
        destination = {"server": self._server, "experiment": self._experiment}
        try:
            append_line(self._path / JOURNAL, asdict(wanted) | destination)
        except OSError as error:
            self.complain(f"the record cannot be written: {error}")


def absolute_uri(text: str) -> ServerUri:
    """Return a URI that is valid in any working directory."""
    uri = ServerUri(text)
    if not uri.startswith(SQLITE):
        return uri
    return ServerUri(f"{SQLITE}{Path(uri.given.removeprefix(SQLITE)).resolve()}")


def uri_option(server: ServerUri) -> str:
    """Return the `--uri` option for a server, with the variables for its login."""
    option = f"--uri {server.address}"
    if server.address == server:
        return option
    return f"{option} with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD set"


def _now() -> int:
    return int(time.time() * 1000)


def _param_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_number(value: Any) -> bool:
    is_plain = isinstance(value, int | float) and not isinstance(value, bool)
    return is_plain and abs(value) < 1e300
