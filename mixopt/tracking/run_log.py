"""Any training loop's own run in MLflow, kept in a directory first."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mixopt.system import Say, ServerUri, file_record, replacing, silent
from mixopt.tracking.lines import MetricLines
from mixopt.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mixopt.config import TrackingConfig

STEP, METRICS = "log", "metrics.jsonl"
ARTIFACTS = "artifacts"  # copies of files from elsewhere


class RunLog:
    """A run of MLflow that a loop logs to without waiting for it, or failing with it.

        with RunLog("runs/mine", experiment="mine", params={"lr": 3e-4}) as log:
            for step, batch in enumerate(batches):
                log.log({"loss": train(batch)}, step)

    What is logged is in the directory at once: a killed process loses nothing. A process of its own
    sends it; what a server that is down misses is sent by the next RunLog of the directory, which
    continues the same run, or by `mixopt sync`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        experiment: str,
        uri: str | None = None,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        warn: Say = silent,
    ) -> None:
        """Begin, or resume what is in the directory.

        Args:
            path: A directory for this run alone.
            experiment: MLflow's experiment.
            uri: Tracking server or database; a SQLite file in the directory when None.
            name: What the run is called; as the directory when None.
            params: Settings; they never change afterwards.
            tags: Further facts.
            warn: Called with one line if the record cannot be kept.
        """
        self._path = Path(path)
        config = _config(uri, experiment)
        self._tracker = Tracker(config, experiment, self._path, warn)
        self._lines = MetricLines(self._path / METRICS)
        title = name or self._path.resolve().name
        self._tracker.start(STEP, params or {}, tags, name=title)
        self._tracker.follow(STEP, self._path / METRICS)

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log the metrics of a step: numbers, or numbers by name; NaN and infinities too.

        Charts are in sections by what is before the last `/` of a key, and `{"loss": {"web": 2.0}}`
        is `loss/web`.

        Raises:
            OSError: The directory cannot be written.
        """
        self._lines.write(metrics, step)

    def artifact(self, file: str | Path, folder: str | None = None) -> None:
        """Keep a file with the run, as it is now; one from elsewhere is copied to the directory.

        Raises:
            RunError: It cannot be read, or not be copied.
        """
        kept = _kept(Path(file), self._path)
        name = kept.relative_to(self._path).as_posix()
        self._tracker.files(STEP, [kept], folder, records={name: file_record(kept)})

    def tags(self, tags: Mapping[str, str]) -> None:
        """Add facts, or change them."""
        self._tracker.tags(STEP, tags)

    def close(self, *, patience: float | None = None) -> None:
        """Finish the run; wait while it is sent, and leave the rest on disk if that fails.

        Args:
            patience: Seconds without a sign of life after which the rest is left; 5 for a server
                and 60 for a database file when None.
        """
        self._lines.close()
        self._tracker.end(STEP)
        self._tracker.close(patience=patience)

    def __enter__(self) -> Self:
        """Return the log."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Finish; after an error the run is killed in MLflow, and less is waited for."""
        if kind is None:
            self.close()
        else:
            self._lines.close()
            self._tracker.close(patience=2.0)


def _config(uri: str | None, experiment: str) -> TrackingConfig:
    from mixopt.config import TrackingConfig

    return TrackingConfig(uri=None if uri is None else ServerUri(uri), experiment=experiment)


def _kept(file: Path, directory: Path) -> Path:
    """Return a file in the directory: itself, or a copy of it under its own name."""
    if file.resolve().is_relative_to(directory.resolve()):
        return directory / file.resolve().relative_to(directory.resolve())
    copy = directory / ARTIFACTS / file_record(file).sha256[:12] / file.name
    if not copy.exists():
        with replacing(copy) as temporary:
            shutil.copyfile(file, temporary)
    return copy
