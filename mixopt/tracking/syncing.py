"""Send what a run directory has and MLflow has not: `mixopt sync`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.errors import ConfigError, MixoptError, RunError
from mixopt.system import ANSWER_SECONDS, Say, ServerUri, read_yaml, silent
from mixopt.tracking.outcomes import record_again
from mixopt.tracking.record import JOURNAL, parsed
from mixopt.tracking.sender import LOCAL, LOG, check_own, sent_now
from mixopt.tracking.tracker import (
    ADVISED,
    anywhere,
    counted,
    patience_for,
    start_sender,
    wait_for_sender,
)

if TYPE_CHECKING:
    from mixopt.config import TrackingConfig

NAMED = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class SyncResult:
    """What came of sending.

    Attributes:
        server: The server or database.
        sent: How many points of metrics, trials, files and runs were sent.
        trouble: Why something is left, in a line; None where nothing is.
    """

    server: str
    sent: Mapping[str, int]
    trouble: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def sync(
    directory: str | Path,
    uri: str | None = None,
    *,
    config: str | Path | None = None,
    trust: bool = False,
    say: Say = silent,
) -> SyncResult:
    """Send what of a run is not in MLflow yet, in order and once.

    Where to is what the user says: `uri`, else the configuration, else MLFLOW_TRACKING_URI; else a
    database in the directory itself. A server that only the directory names is used with `trust`
    alone: a directory of unknown origin sends nothing anywhere.

    Args:
        directory: The run directory.
        uri: Server or database; it gets all of the run that it has not.
        config: An experiment's or a pretraining's YAML file, of which `tracking` counts.
        trust: Send to the server that the directory names.
        say: Called every few seconds with a line about what is sent.

    Raises:
        RunError: It is not a run directory, or only the directory names the server.
        ConfigError: MLflow is not installed, or `config` cannot be read.
    """
    path = Path(directory)
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigError("sync: needs MLflow: pip install 'mixopt[mlflow]'")
    check_own(path)
    given, experiment = _destination(path, uri, config, trust=trust)
    server = LOCAL if given is None else str(ServerUri(given))
    try:
        process = start_sender(path, given, experiment, own=given is None)
    except OSError as error:
        raise RunError(f"{path / LOG}: cannot be written: {error.strerror or error}") from error
    patience = max(patience_for(given), ANSWER_SECONDS)
    if not wait_for_sender(process, path, patience, say):
        return SyncResult(server, sent_now(path)[0], f"{server}: no answer for {patience:g} s")
    sent, trouble = sent_now(path)
    if process.returncode and trouble is None:
        trouble = _last_line(path / LOG) or f"MLflow's process ended: {path / LOG}"
    return SyncResult(server, sent, trouble)


def sync_line(path: Path, result: SyncResult) -> str:
    """Say in a line what was sent, and whether something is left."""
    line = f"{path}: sent {counted(result.sent) or 'nothing'} to {result.server}"
    return f"{line}; the rest is left: {result.trouble}" if result.trouble else line


def _destination(
    path: Path, uri: str | None, config: str | Path | None, *, trust: bool
) -> tuple[str | None, str]:
    """Return where to send a run, None for its own database; and the experiment's name."""
    server, experiment = _recorded(path)
    if config is not None:
        tracking, name = _tracking(Path(config))
        server = None if tracking.uri is None else tracking.uri.given
        experiment, trust = tracking.experiment or name or experiment, True
    stated = uri or (None if config is not None else os.environ.get(NAMED))
    if stated:
        return anywhere(stated.given if isinstance(stated, ServerUri) else stated), experiment
    if server is None or trust:
        return None if server is None else anywhere(server), experiment
    named = ServerUri(server)
    login = f" {ADVISED}" if named.address != named else ""
    raise RunError(
        f"{path}: only this directory names the server {named}, and nothing is sent to it; if it is"
        f" yours, name it: --uri {named.address}{login} (or {NAMED}, or --config CONFIG); to"
        " believe the directory: --trust"
    )


def _recorded(path: Path) -> tuple[str | None, str]:
    """Return server and experiment of the record; what was not tracked is recorded first."""
    if not (path / JOURNAL).exists():
        _record(path)
    lines = (path / JOURNAL).read_bytes().splitlines()
    starts = [event for event in map(parsed, lines) if event.get("op") == "start"]
    last = starts[-1] if starts else {}
    server, experiment = last.get("server"), last.get("experiment")
    return (
        server if isinstance(server, str) else None,
        experiment if isinstance(experiment, str) else path.resolve().name,
    )


def _tracking(file: Path) -> tuple[TrackingConfig, str | None]:
    from pydantic import ValidationError

    from mixopt.config import TrackingConfig

    content = read_yaml(file)
    sections = content if isinstance(content, dict) else {}
    name = sections.get("name")
    try:
        found = TrackingConfig.model_validate(sections.get("tracking") or {})
    except ValidationError as error:
        raise ConfigError(f"{file}: tracking: {error.errors()[0]['msg']}") from None
    return found, name if isinstance(name, str) else None


def _record(path: Path) -> None:
    """Put a run on record that was not tracked."""
    from mixopt.run_directory import load_run

    if not (path / "config.yaml").exists():
        raise RunError(f"{path}: is not a run directory: it has neither {JOURNAL} nor config.yaml")
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


def _last_line(file: Path) -> str | None:
    lines = (
        file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    )
    return lines[-1][20:] if lines else None
