"""A loop that logs to a run of MLflow, for tests of the record."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mixopt.config import TrackingConfig
from mixopt.system import silent
from mixopt.tracking import Tracker
from mixopt.tracking.record import append_line


class RunLog:
    """Writes lines of metrics, which a tracker follows."""

    def __init__(
        self,
        path: Path,
        experiment: str,
        uri: str | None = None,
        warn: Any = silent,
        *,
        sends: bool = True,
    ):
        config = TrackingConfig(uri=uri, experiment=experiment)
        self.path, self.tracker = path, Tracker(config, experiment, path, warn, sends=sends)
        self.tracker.start("log", {}, name=path.name)
        self.tracker.follow("log", path / "metrics.jsonl")

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Write the metrics of a step."""
        append_line(self.path / "metrics.jsonl", {"step": step, "time": time.time(), **metrics})

    def close(self) -> None:
        """Finish."""
        self.tracker.end("log")
        self.tracker.close()
