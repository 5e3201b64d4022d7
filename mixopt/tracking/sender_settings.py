"""What a process that talks to MLflow is told: by a pipe, so that no one else sees a password."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from mixopt.system import ServerUri, checked_as, parse_json, without_secrets

# For this process alone, and only where the user has not said otherwise: a dead server is
# given up at once (MLflow's own: 249 s), nothing is reported to third parties, and there are no
# bars in the log.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
ADVISED = "with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD set"
# In the run directory, the last beside a database.
LOCAL, LOCK, LOG, ARTIFACTS = "mlflow.db", "tracking.lock", "tracking.log", "mlartifacts"


@dataclass(frozen=True)
class Settings:
    """Where a run directory is sent to.

    Attributes:
        uri: Server or database, with its secret; a file in the run directory when None.
        experiment: Name of the experiment.
        own: Whether only the directory itself names it: nothing may leave the directory then.
    """

    uri: str | None
    experiment: str
    own: bool = True

    def to_json(self) -> str:
        """Return it as a line; with the secret."""
        uri = self.uri.given if isinstance(self.uri, ServerUri) else self.uri
        return json.dumps({"uri": uri, "experiment": self.experiment, "own": self.own})


class _Hiding:
    """A stream that shows no secret, a line at a time."""

    def __init__(self, stream: TextIO, secrets: Sequence[str]) -> None:
        self._stream, self._secrets, self._begun = stream, secrets, ""

    def write(self, text: str) -> int:
        """Write the lines that are whole."""
        whole, end, self._begun = (self._begun + text).rpartition("\n")
        if end:
            self._stream.write(without_secrets(whole, self._secrets) + end)
            self._stream.flush()
        return len(text)

    def __getattr__(self, name: str) -> Any:
        """Be the stream in all else."""
        return getattr(self._stream, name)


def take_settings() -> Settings:
    """Read the settings from standard input, and prepare this process for MLflow.

    Raises:
        MixoptError: There are none.
    """
    content = parse_json(sys.stdin.readline(), "settings")
    settings: Settings = checked_as(Settings, content, "settings")
    login = ServerUri(settings.uri or "").login()
    os.environ.update(login.environment)
    known = tuple(os.environ[name] for name in SECRETS if os.environ.get(name))
    sys.stderr = _Hiding(sys.stderr, (*login.secrets, *known))
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return settings
