"""Keep a record in MLflow, without ever waiting for it or failing with it.

MLflow runs in a process of its own (mixopt.tracking.process): its start takes seconds, its
client retries a dead server for minutes, and it changes settings of the process that it is
in. The training process only says what happened, a line each. What is to be recorded is in
the run directory already, so a server that is down costs one warning: whatever the record
(`tracking.json`) does not have yet is sent at the end of the step or by the next one, and
nothing is sent twice.

A sweep is one parent run with a child for each trial; validation is a second one. Pretraining is a
run without children, whose metrics are the lines of `metrics.jsonl`.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from mixopt.config import TrackingConfig
    from mixopt.proxy import Trial, TrialResult
    from mixopt.run_directory import Run

Warn = Callable[[str], None]

# Longest wait for a sign of life of the process: it is past every timeout of a dead server.
SILENCE_SECONDS = 60.0
# Files of each parent run, as patterns in the run directory.
FILES: dict[str, tuple[str, ...]] = {
    "sweep": (
        "config.yaml",
        "design.parquet",
        "trials.parquet",
        "fit/fit.json",
        "fit/report.parquet",
        "fit/held_out.parquet",
        "proposal.yaml",
        "figures/[!v]*.svg",
        "report.html",
    ),
    "validate": ("validation.parquet", "figures/v*.svg"),
}
FOLDERS = {"sweep": "trials", "validate": "validation", "pretrain": "trials"}


class Tracker:
    """Says what happens in a run to the process that records it; never raises for it."""

    def __init__(
        self, config: TrackingConfig, run_name: str, path: Path, warn: Warn = lambda line: None
    ) -> None:
        """Prepare; the process starts with the first step.

        Args:
            config: Where MLflow keeps the record.
            run_name: Name of the experiment unless `config` has one.
            path: The run directory.
            warn: Called with one line if the record cannot be kept.
        """
        self._config, self._path, self._warn = config, path, warn
        self._experiment = config.experiment or run_name
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._step, self._alive, self._warned = "", time.monotonic(), False

    def start(
        self, step: str, params: Mapping[str, Any], tags: Mapping[str, str] | None = None
    ) -> None:
        """Open a step's parent run, or go on with the one that there is.

        Args:
            step: `sweep`, `validate` or `pretrain`.
            params: Settings to show beside the run; they never change afterwards.
            tags: Further facts. Another `mixopt.fingerprint` than before begins a new run.
        """
        self._step = step
        if self._process is None and self._config.enabled:
            self._launch()
        text = {name: _text(value) for name, value in params.items()}
        self._send(op="start", step=step, folder=FOLDERS[step], params=text, tags=dict(tags or {}))

    def trial(self, trial: Trial, result: TrialResult) -> None:
        """Note that a trial's file is there."""
        self._send(op="trial", step=self._step, trial=trial.name)

    def metrics(self) -> None:
        """Note that `metrics.jsonl` has new lines."""
        self._send(op="metrics", step=self._step)

    def files(self, step: str, files: Iterable[Path]) -> None:
        """Note files of the run directory to keep with a step's parent run."""
        names = [file.relative_to(self._path).as_posix() for file in files]
        self._send(op="files", step=step, files=names)

    def end(self, step: str) -> None:
        """Send what is not sent yet and finish a step's parent run."""
        self._send(op="end", step=step)

    def close(self, *, patience: float = SILENCE_SECONDS) -> None:
        """Wait until all is sent; end a process that gives no sign of life for `patience` s."""
        process, reader = self._process, self._reader
        if process is None or reader is None:
            return
        with suppress(OSError):
            _stream(process.stdin).close()
        self._alive = max(self._alive, time.monotonic())
        while reader.is_alive() and time.monotonic() - self._alive < patience:
            reader.join(0.1)
        if reader.is_alive():
            process.kill()
            self._complain(f"no answer from MLflow for {patience:g} s")
        reader.join()
        process.wait()
        _stream(process.stdout).close()
        self._process = self._reader = None

    def __enter__(self) -> Self:
        """Return the tracker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close; after an error, without patience."""
        self.close(patience=SILENCE_SECONDS if kind is None else 2.0)

    def _launch(self) -> None:
        if not _installed("mlflow"):
            self._complain("MLflow is not installed: pip install 'mixopt[mlflow]'")
            return
        settings = {"uri": self._config.uri, "experiment": self._experiment}
        arguments = [str(self._path.resolve()), json.dumps(settings)]
        command = [sys.executable, "-m", "mixopt.tracking.process", *arguments]
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            with (self._path / "tracking.log").open("ab") as log:
                # A session of its own: Ctrl-C ends the sweep, and the record is still closed.
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,
                )
        except OSError as error:
            self._complain(f"cannot be started: {error}")
            return
        self._reader = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._reader.start()

    def _send(self, **message: Any) -> None:
        if self._process is not None:
            # A process that is gone has been noticed by the thread that listens.
            with suppress(OSError, ValueError):
                stream = _stream(self._process.stdin)
                stream.write(json.dumps(message) + "\n")
                stream.flush()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        done = False
        for line in _stream(process.stdout):
            self._alive = time.monotonic()
            answer = json.loads(line)
            done = done or "done" in answer
            if "warning" in answer:
                self._complain(answer["warning"])
        if not done:
            self._complain(f"MLflow's process ended; see {self._path / 'tracking.log'}")

    def _complain(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"tracking: {what}; the run goes on, and what is missing is sent when it is back"
            )


def open_tracker(run: Run, warn: Warn = lambda line: None) -> Tracker:
    """Return the tracker of a run; its process starts with the first step that is tracked."""
    return Tracker(run.config.tracking, run.config.name, run.path, warn)


@contextmanager
def tracked(run: Run, step: str, tracker: Tracker) -> Iterator[Tracker]:
    """Track a step of a run: `sweep`, `validate`, or `report`, which adds to those two.

    Args:
        run: The run.
        step: What is done in the block; trials of the block are reported to the tracker.
        tracker: The run's; it is not closed, and serves the next step too.
    """
    steps = [step] if step in FILES else [name for name in FILES if run.is_done(name)]
    for name in steps:
        tracker.start(name, _params(run, name), code_tags(run.fingerprint(name)))
    yield tracker
    for name in steps:
        found = (file for pattern in FILES[name] for file in sorted(run.path.glob(pattern)))
        tracker.files(name, found)
        tracker.end(name)


def sync(run: Run, warn: Warn = lambda line: None) -> None:
    """Send what the record of a run does not have yet: trials, tables and figures."""
    with open_tracker(run, warn) as tracker, tracked(run, "sync", tracker):
        pass


def _params(run: Run, step: str) -> dict[str, Any]:
    config = run.config
    length = config.validation.tokens or 2 * config.proxy.tokens
    params: dict[str, Any] = {
        "seed": config.seed,
        "domains": len(config.corpus.domains),
        "tokenizer": config.corpus.tokenizer,
        "proxy": config.proxy.name,
        "tokens": config.proxy.tokens if step == "sweep" else length,
        **{f"proxy/{name}": value for name, value in config.proxy.options.items()},
    }
    if step == "sweep":
        params |= {f"design/{name}": value for name, value in config.design}
    else:
        params |= {"seeds": config.validation.seeds, "baselines": config.validation.baselines}
    return params


def code_tags(fingerprint: str) -> dict[str, str]:
    """Return tags that say what made a run: configuration, version, commit."""
    from mixopt import __version__
    from mixopt.provenance import git_commit

    commit = git_commit()
    tags = {"mixopt.fingerprint": fingerprint, "mixopt.version": __version__}
    return tags | ({"mixopt.git_commit": commit} if commit else {})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "the process has pipes"
    return stream


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # blocked in sys.modules
        return False
