"""The process that writes a run's record to MLflow: `python -m mixopt.tracking.process`.

It reads a JSON line for each thing that happened (see mixopt.tracking), and answers with
lines: a warning, a sign of life, and `done`. When the lines end, with the training process
finished or killed, it sends what is left and closes the runs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mixopt.tracking.record import StepRecord, TrackingRecord, digest
from mixopt.trial_files import trial_paths

# For this process alone, and only where the user has not said otherwise: a dead server is
# given up after a second (MLflow's own: 249 s), nothing is reported to third parties, and
# there are no bars in the log.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
METRICS = "metrics.jsonl"
# How much this process gives way to training on the same cores.
NICENESS = 5

Answer = Callable[[dict[str, Any]], None]


class Recorder:
    """Carries out the lines; what fails stays to be done, and is tried once more at the end."""

    def __init__(self, path: Path, uri: str | None, experiment: str, answer: Answer) -> None:
        self._path, self._experiment, self._answer = path, experiment, answer
        self._uri = uri or f"sqlite:///{path / 'mlflow.db'}"
        self._record = TrackingRecord.read(path / "tracking.json", uri)
        self._store: Any = None
        self._down = False
        self._open: list[str] = []
        self._read = 0

    def handle(self, message: dict[str, Any]) -> None:
        """Do what a line says."""
        step = message["step"]
        if message["op"] == "start":
            self._open.append(step)
            self._record.start(step, message["folder"], message["params"], message["tags"])
            self._attempt(lambda: self._send(step))
        elif message["op"] == "trial":
            self._attempt(lambda: self._send_trial(self._record.steps[step], message["trial"]))
        elif message["op"] == "metrics":
            self._attempt(lambda: self._send_metrics(self._record.steps[step]))
        elif message["op"] == "files":
            self._record.want(step, message["files"])
        else:
            self._open.remove(step)
            self._finish(step, "FINISHED")

    def close(self) -> None:
        """Close the runs of steps that did not come to their end."""
        for step in self._open:
            self._finish(step, "KILLED")

    def _finish(self, step: str, status: str) -> None:
        def send() -> None:
            self._send(step)
            self._connected().end(self._record.steps[step].run, status)

        self._down = False
        self._attempt(send)

    def _attempt(self, send: Callable[[], None]) -> None:
        """Send unless the server is known to be down; whatever goes wrong is a warning."""
        if self._down:
            return
        try:
            send()
        except Exception as error:
            self._down, self._store = True, None
            lines = str(error).strip().splitlines() or [""]
            self._answer({"warning": f"{self._name}: {type(error).__name__}: {lines[0][:160]}"})

    def _send(self, step: str) -> None:
        """Send the parent run, the trials and the files of a step that are not sent yet."""
        entry = self._record.steps[step]
        store = self._connected()
        if entry.run is None or not store.reopen(entry.run):
            entry.forget()
            entry.run = store.parent(self._record.key, step, entry)
            self._record.write()
        for file in sorted(trial_paths(self._path / entry.folder)):
            self._send_trial(entry, file.stem)
        self._send_metrics(entry)
        for name, sent in entry.files.items():
            file = self._path / name
            if file.exists() and digest(file) != sent:
                store.artifact(entry.run, file)
                entry.files[name] = digest(file)
                self._noted()

    def _send_trial(self, entry: StepRecord, trial: str) -> None:
        file = self._path / entry.folder / f"{trial}.json"
        content = digest(file)
        if entry.run is None or entry.trials.get(trial) == content:
            return
        self._connected().trial(self._record.key, entry.run, file, content)
        entry.trials[trial] = content
        self._noted()

    def _send_metrics(self, entry: StepRecord) -> None:
        """Send the lines of steps after the last that was sent; a run that went on repeats none."""
        file = self._path / METRICS
        if entry.run is None or not file.exists():
            return
        with file.open("rb") as stream:
            stream.seek(self._read)
            lines = [line for line in stream if line.endswith(b"\n")]
        new = [m for m in map(json.loads, lines) if m["step"] > entry.metrics]
        if new:
            self._connected().metrics(entry.run, new)
            entry.metrics = new[-1]["step"]
            self._noted()
        self._read += sum(map(len, lines))

    def _noted(self) -> None:
        self._record.write()
        self._answer({"alive": True})

    def _connected(self) -> Any:
        if self._store is None:
            from mixopt.tracking.mlflow_store import MlflowStore

            self._answer({"alive": True})
            local = self._path / "mlartifacts" if self._uri.startswith("sqlite:") else None
            self._store = MlflowStore(self._uri, self._experiment, local)
        return self._store

    @property
    def _name(self) -> str:
        return "mlflow.db" if self._record.uri is None else self._uri


def main() -> None:
    """Record until the lines end."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)
    # MLflow prints links; answers go where nothing else is printed.
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(message: dict[str, Any]) -> None:
        with suppress(OSError):
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    settings = json.loads(sys.argv[2])
    recorder = Recorder(Path(sys.argv[1]), settings["uri"], settings["experiment"], answer)
    for line in sys.stdin:
        recorder.handle(json.loads(line))
    recorder.close()
    answer({"done": True})


if __name__ == "__main__":
    main()
