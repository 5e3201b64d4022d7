"""Send what a run directory has and MLflow has not: `mixopt sync`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from mixopt.errors import ConfigError, MixoptError, RunError
from mixopt.system import ANSWER_SECONDS, Say, ServerUri, checked_as, silent
from mixopt.tracking.destination import Destination, destination
from mixopt.tracking.journal import JOURNAL
from mixopt.tracking.lines import PRIVATE, open_to_append, parsed
from mixopt.tracking.record import RECORD
from mixopt.tracking.run_steps import record_again
from mixopt.tracking.sender_settings import LOCAL, LOCK, LOG, Settings
from mixopt.tracking.sent_files import check_own
from mixopt.tracking.tracker import sender_command

_SAID_EVERY = 2.0  # seconds


@dataclass(frozen=True)
class SyncResult:
    """What came of sending.

    Attributes:
        server: The server or database.
        sent: How many points of metrics, trials, files and runs were sent.
        left: How many were not.
        trouble: Why, in a line; None where nothing is left.
    """

    server: str
    sent: Mapping[str, int]
    left: Mapping[str, int]
    trouble: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**vars(self), "sent": dict(self.sent), "left": dict(self.left)}


def sync(
    directory: str | Path,
    uri: str | None = None,
    *,
    config: str | Path | None = None,
    trust: bool = False,
    say: Say = silent,
) -> SyncResult:
    """Send what of a run is not in MLflow yet, in order and once.

    Where to is what the user says: `uri`, else the configuration, else MLFLOW_TRACKING_URI. What
    only the directory says is believed where that is a database in the directory itself, and else
    with `trust` alone: a directory of unknown origin sends nothing anywhere.

    Args:
        directory: The run directory.
        uri: Server or database; it gets all of the run that it has not.
        config: An experiment's or a pretraining's YAML file, of which `tracking` counts.
        trust: Send to the server that the directory names.
        say: Called every few seconds with a line about what is sent.

    Raises:
        RunError: It is no run directory, only the directory names the server, or another process
            is sending from it.
        ConfigError: MLflow is not installed, or `config` cannot be read.
    """
    path = Path(directory)
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigError("sync: needs MLflow: pip install 'mixopt[mlflow]'")
    check_own(path, JOURNAL, RECORD, LOG, LOCK, "config.yaml")
    settings = destination(path, recorded_destination(path), uri, config, trust=trust)
    answers = list(_answers(path, settings, say))
    trouble = [str(answer["warning"]) for answer in answers if "warning" in answer]
    last: dict[str, Any] = answers[-1] if answers else {}
    if "left" not in last:
        raise RunError(trouble[0] if trouble else f"MLflow's process ended: {path / LOG}")
    name = LOCAL if settings.uri is None else str(ServerUri(settings.uri))
    return SyncResult(name, last["sent"], last["left"], trouble[-1] if trouble else None)


def _answers(path: Path, settings: Settings, say: Say) -> Iterator[dict[str, Any]]:
    """Run the process that sends, and give its answers as they come."""
    said = time.monotonic()
    try:
        with os.fdopen(open_to_append(path / LOG, PRIVATE), "ab") as log:
            command = sender_command(path)
            pipe = subprocess.PIPE
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log) as process:
                _begin(process, settings)
                for line in _in_time(process, settings):
                    answer = parsed(line)
                    yield answer
                    if "alive" in answer and time.monotonic() > said + _SAID_EVERY:
                        said = time.monotonic()
                        say(f"sync: sent {_counted(answer.get('sent', {})) or 'nothing'} so far")
    except OSError as error:
        raise RunError(f"{path / LOG}: cannot be written: {error.strerror or error}") from error


def _in_time(process: subprocess.Popen[bytes], settings: Settings) -> Iterator[bytes]:
    """Give the lines of a process; end it where a server lets nothing get on for too long.

    Raises:
        RunError: It was ended.
    """
    lines: Queue[bytes] = Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, daemon=True).start()
    is_server = settings.uri is not None and settings.uri.startswith("http")
    sent, moved = None, time.monotonic()
    while True:
        left = moved + ANSWER_SECONDS - time.monotonic() if is_server else None
        try:
            line = lines.get(timeout=None if left is None else max(left, 0.0))
        except Empty:
            process.kill()
            raise RunError(
                f"{ServerUri(settings.uri or '')}: no answer in {ANSWER_SECONDS:g} s; what was sent"
                " is kept, and the same command goes on"
            ) from None
        if not line:
            return
        answer = parsed(line)
        if answer.get("sent", sent) != sent:
            sent, moved = answer["sent"], time.monotonic()
        yield line


def _begin(process: subprocess.Popen[bytes], settings: Settings) -> None:
    """Say where to send; a process that has ended already says why in its log."""
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin as stream:
            stream.write(f"{settings.to_json()}\n".encode())


def recorded_destination(path: Path) -> Destination:
    """Return where the run was last tracked; one that was not is put on record first.

    Raises:
        RunError: It is no run directory, or does not say it.
    """
    if not (path / JOURNAL).exists():
        _record(path)
    try:
        lines = (path / JOURNAL).read_bytes().splitlines()
    except OSError as error:
        raise RunError(f"{path / JOURNAL}: cannot be read: {error.strerror or error}") from error
    opened = [event for event in map(parsed, lines) if event.get("op") == "open"]
    if not opened:
        raise RunError(f"{path / JOURNAL}: does not say where the run was tracked")
    return checked_as(Destination, opened[-1], f"{path / JOURNAL}: open")


def _record(path: Path) -> None:
    from mixopt.run_directory import load_run

    if not (path / "config.yaml").exists():
        raise RunError(f"{path}: is no run directory: it has neither {JOURNAL} nor config.yaml")
    try:
        record_again(load_run(path))
    except MixoptError as error:
        raise RunError(
            f"{path}: nothing of it was tracked (tracking.enabled: false, or it came to no step),"
            " and only what is left of a sweep can be recorded afterwards"
        ) from error
    if not (path / JOURNAL).exists():
        raise RunError(
            f"{path}: nothing to send: neither its sweep nor its validation is done; run it first"
        )


def sync_line(path: Path, result: SyncResult) -> str:
    """Say in a line what was sent, and what is left."""
    sent, left = _counted(result.sent), _counted(result.left)
    line = f"{path}: sent {sent or 'nothing'} to {result.server}; {left or 'nothing'} is left"
    return f"{line}: {result.trouble}" if result.trouble else line


def _counted(counts: Mapping[str, int]) -> str:
    names = {"points": "points of metrics"}
    return ", ".join(
        f"{count:,} {names.get(name, name)}" for name, count in counts.items() if count
    )
