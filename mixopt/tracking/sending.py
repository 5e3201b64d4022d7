"""Send what a run directory has and MLflow has not: `mixopt sync`."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import ConfigError, MixoptError, RunError
from mixopt.tracking.database import anywhere
from mixopt.tracking.journal import JOURNAL
from mixopt.tracking.lines import parsed
from mixopt.tracking.process import LOCAL
from mixopt.tracking.run_steps import record_again
from mixopt.tracking.tracker import sender_command


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


def sync(path: str | Path, uri: str | None = None) -> SyncResult:
    """Send what of a run is not in MLflow yet, in order and once.

    Args:
        path: The run directory.
        uri: Another server or database than the run's; it gets all of the run.

    Raises:
        RunError: It is no run directory, or another process is sending from it.
        ConfigError: MLflow is not installed.
    """
    path = Path(path)
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigError("sync: needs MLflow: pip install 'mixopt[mlflow]'")
    settings = _settings(path)
    settings |= {"uri": anywhere(uri)} if uri else {}
    command = sender_command(path, settings)
    with (path / "tracking.log").open("ab") as log:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, check=False
        )
    answers = [parsed(line) for line in ended.stdout.splitlines()]
    trouble = [answer["warning"] for answer in answers if "warning" in answer]
    last: dict[str, Any] = answers[-1] if answers else {}
    if "left" not in last:
        raise RunError(trouble[0] if trouble else f"MLflow's process ended: {path}/tracking.log")
    return SyncResult(
        settings["uri"] or LOCAL, last["sent"], last["left"], trouble[-1] if trouble else None
    )


def _settings(path: Path) -> dict[str, str | None]:
    """Return where the run was last tracked; one that was not is put on record first."""
    if not (path / JOURNAL).exists():
        _record(path)
    events = [parsed(line) for line in (path / JOURNAL).read_bytes().splitlines()]
    opened = [event for event in events if event.get("op") == "open"]
    if not opened:
        raise RunError(f"{path / JOURNAL}: does not say where the run was tracked")
    return {name: opened[-1][name] for name in ("uri", "experiment")}


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
