"""Read the runs of an MLflow experiment, in a process of its own (mixopt.tracking.read_process)."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import ConfigError, TrialsError, did_you_mean
from mixopt.system import ServerUri, without_secrets
from mixopt.tracking.sender_settings import Settings

SQLITE = "sqlite:///"


@dataclass(frozen=True)
class LoggedRun:
    """A run as MLflow has it; of a metric, its last value.

    Attributes:
        id: MLflow's id.
        name: What it is called.
        status: RUNNING, FINISHED, FAILED, KILLED or SCHEDULED.
        started: In milliseconds.
        params: Parameters.
        metrics: Metrics.
        tags: Tags.
    """

    id: str
    name: str
    status: str
    started: int
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    @property
    def parent(self) -> str | None:
        """Id of the run that it is nested in."""
        return self.tags.get("mlflow.parentRunId")


def read_runs(uri: str, experiment: str) -> list[LoggedRun]:
    """Read all runs of an experiment, in the order in which they started.

    Args:
        uri: Tracking server or database; a database file, or a folder with `mlflow.db`.
        experiment: Its name.

    Raises:
        ConfigError: There is no such database or experiment, or MLflow is not installed.
        TrialsError: MLflow cannot read them.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigError("import: needs MLflow: pip install 'mixopt[mlflow]'")
    settings = Settings(tracking_uri(uri), experiment).to_json()
    # -P: what lies in the working directory is not imported.
    command = [sys.executable, "-P", "-m", "mixopt.tracking.read_process"]
    ended = subprocess.run(
        command, input=f"{settings}\n", capture_output=True, text=True, check=False
    )
    uri = ServerUri(uri)
    messages = [json.loads(line) for line in ended.stdout.splitlines()]
    last = messages[-1] if messages else {"error": _last_line(ended.stderr)}
    if "error" in last:
        raise TrialsError(f"{uri}: MLflow cannot read it: {last['error']}")
    if "experiments" in last:
        near = did_you_mean(experiment, last["experiments"])
        raise ConfigError(f"{uri}: no experiment {experiment!r}{near}")
    runs = [_run(message["run"]) for message in messages if "run" in message]
    return sorted(runs, key=lambda run: (run.started, run.id))


def tracking_uri(uri: str) -> str:
    """Return MLflow's name of a store; a file or a folder with `mlflow.db` is a database.

    Raises:
        ConfigError: A database file that is not there, which MLflow would make.
    """
    path = Path(uri.removeprefix(SQLITE))
    if path.is_dir() and (path / "mlflow.db").is_file():
        path = path / "mlflow.db"
    if path.is_file():
        return f"{SQLITE}{path.resolve()}"
    if uri.startswith(SQLITE) or "://" not in uri:
        raise ConfigError(
            f"--uri {without_secrets(uri)}: no such database; give a server, a database"
            " file, or a folder with mlflow.db"
        )
    return uri


def _run(content: dict[str, Any]) -> LoggedRun:
    return LoggedRun(**content)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "its process ended"
