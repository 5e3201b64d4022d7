"""Where `mixopt sync` sends to: what the user says, and what the directory says only if trusted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.config import TrackingConfig
from mixopt.errors import ConfigError, RunError
from mixopt.system import ServerUri, checked_as, read_yaml
from mixopt.tracking.database import anywhere, database_file
from mixopt.tracking.sender_settings import ADVISED, Settings

NAMED = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Destination:
    """Where a run directory says that it was tracked.

    Attributes:
        uri: Server or database; None is a database in the run directory.
        experiment: Name of the experiment.
    """

    uri: str | None
    experiment: str


def destination(
    directory: Path,
    recorded: Destination,
    uri: str | None,
    config: str | Path | None,
    *,
    trust: bool,
) -> Settings:
    """Return where to send a run.

    Args:
        directory: The run directory.
        recorded: Where it says that it was tracked.
        uri: What the user says.
        config: The user's configuration, of which `tracking` counts after `uri`.
        trust: Whether the directory is believed.

    Raises:
        RunError: Nobody but the directory names the server.
        ConfigError: The configuration cannot be read.
    """
    experiment = recorded.experiment
    if config is not None:
        tracking, name = _tracking(Path(config))
        experiment = tracking.experiment or name or experiment
        if uri is None and tracking.uri is None:
            return Settings(None, experiment)
        uri = uri or tracking.uri
    uri = uri or os.environ.get(NAMED)
    if uri:
        given = uri.given if isinstance(uri, ServerUri) else uri
        return Settings(anywhere(given), experiment, own=False)
    if recorded.uri is None or _is_within(directory, recorded.uri):
        return Settings(recorded.uri, experiment)
    if trust:
        return Settings(recorded.uri, experiment, own=False)
    raise RunError(_asks(directory, ServerUri(recorded.uri)))


def _asks(directory: Path, server: ServerUri) -> str:
    login = f" {ADVISED}" if server.address != server else ""
    return (
        f"{directory}: only this directory names the server {server}, and nothing is sent to it; if"
        f" it is yours, name it: --uri {server.address}{login} (or {NAMED}, or --config CONFIG);"
        " to believe the directory: --trust"
    )


def _is_within(directory: Path, uri: str) -> bool:
    file = database_file(uri)
    if file is None or "?" in uri or not file.is_absolute():
        return False
    return file.resolve().is_relative_to(directory.resolve())


def _tracking(path: Path) -> tuple[TrackingConfig, str | None]:
    content = read_yaml(path)
    sections: dict[str, Any] = checked_as(dict[str, Any], content, str(path), ConfigError)
    tracking = sections.get("tracking") or {}
    name = sections.get("name")
    found = checked_as(TrackingConfig, tracking, f"{path}: tracking", ConfigError)
    return found, name if isinstance(name, str) else None
