"""The process that sends a run's record to MLflow: `python -m mixopt.tracking.sender DIR`.

It looks at the run directory every two seconds and sends what is new, by MLflow's public client. A
server that fails is tried again after 1, 2, 4 ... 30 seconds. When standard input ends, with the
training process finished or killed, it sends what is left once more, closes the runs and ends; what
fails then stays on disk for the next one. Its exit code is 1 where something is left.

`tracking_sent.json` says what each server has; sending may be cut off anywhere: runs are found
again by their tags, a metric of the same step, time and value is kept once by MLflow.

The first line of its standard input is `{uri, experiment}`, with the password of the server: an
argument would be seen by everybody on the machine.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import re
import select
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from mixopt.errors import MixoptError, RunError
from mixopt.objective import Objective
from mixopt.sweeps import read_entry, trial_paths
from mixopt.system import ServerUri, checked_as, inside, without_secrets, write_text
from mixopt.tracking.record import (
    ARTIFACTS,
    FINGERPRINT,
    LOCAL,
    LOCK,
    SENT,
    SQLITE,
    MetricPoint,
    Position,
    Sent,
    SentRun,
    WantedRun,
    check_own,
    wanted_runs,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mixopt.trials import TrialResult

FOLDERS = {".parquet": "tables", ".svg": "figures"}
NOTE = "mlflow.note.content"  # the tag that MLflow shows as a description
EXPERIMENT_NOTE = (
    "`NAME/sweep` is a whole run, with its answer; sort its trials by `objective`: lower is better."
)
MAX_KEY, MAX_VALUE, MAX_TAG = 250, 500, 5000  # characters that servers since MLflow 2.0 take
MAX_POINTS = 900  # that are read and sent at once
MAX_RUNS = 50_000  # that one search of MLflow returns
EVERY_SECONDS, MAX_PAUSE_SECONDS, LOCK_SECONDS = 2.0, 30.0, 30.0
NICENESS = 5  # how much this process gives way to training on the same cores
# A dead server is given up at once (MLflow's own: 249 s), and nothing is reported to third parties.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class Sender:
    """Brings one experiment of MLflow to what a run directory wants."""

    def __init__(self, path: Path, uri: str | None, experiment: str) -> None:
        """Prepare."""
        name = ServerUri(uri or f"{SQLITE}{LOCAL}")
        self._path, self._login = path, name.login()
        self.name, self._experiment = str(name) if uri else LOCAL, experiment
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._found: set[str] = set()  # steps whose runs were seen by this process
        self._noted = time.monotonic()
        # The directory's own database is one server, by whatever name it is reached.
        file, local = _database(name.address), path.resolve() / LOCAL
        self._is_own = uri is None or (file is not None and file.resolve() == local)
        server = f"{SQLITE}{LOCAL}" if self._is_own else name.address
        self.sent = Sent.read(path)
        self.sent.sent = dict.fromkeys(("runs", "trials", "points", "files"), 0)
        self._steps = self.sent.servers.setdefault(server, {})

    def run(self, stream: IO[str]) -> str | None:
        """Send what is new, again and again; once more when the stream or the parent has ended."""
        parent, failures, last = os.getppid(), 0, False
        while True:
            last = last or os.getppid() != parent
            trouble = self.attempt(last=last)
            if last:
                return trouble
            failures = failures + 1 if trouble else 0
            pause = min(2.0 ** (failures - 1), MAX_PAUSE_SECONDS) if failures else EVERY_SECONDS
            last = bool(select.select([stream], [], [], pause)[0])

    def attempt(self, *, last: bool) -> str | None:
        """Send what is new; return in a line why that fails."""
        trouble = None
        try:
            for wanted in wanted_runs(self._path).values():
                if last and wanted.status == "RUNNING":
                    wanted.status, wanted.ended = "KILLED", int(time.time() * 1000)
                self._send(self._connected(), wanted)
        except Exception as error:
            self._client = None
            self._found.clear()  # it may be another server that comes back
            first = (str(error).strip().splitlines() or [""])[0]
            name = "" if isinstance(error, MixoptError) else f"{type(error).__name__}: "
            shown = without_secrets(first, self._login.secrets)[:300]
            trouble = f"{self.name}: {name}{shown}"
            _log(trouble)
        self.sent.trouble = trouble
        self._write()
        return trouble

    def _write(self) -> None:
        write_text(self._path / SENT, json.dumps(asdict(self.sent)))

    def _connected(self) -> MlflowClient:
        if self._client is None:
            os.environ.update(self._login.environment)
            from mlflow import MlflowClient

            file = _database(self._login.uri)
            with _made_alone(file):
                self._client = MlflowClient(tracking_uri=self._login.uri)
                self._experiment_id = self._made_experiment(self._client, file)
        return self._client

    def _made_experiment(self, client: MlflowClient, file: Path | None) -> str:
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is not None:
            return str(experiment.experiment_id)
        place = None if file is None else (file.resolve().parent / ARTIFACTS).as_uri()
        # Without its kind, MLflow 3 opens an experiment as one of prompts and traces.
        tags = {"mlflow.experimentKind": "custom_model_development", NOTE: EXPERIMENT_NOTE}
        return str(client.create_experiment(self._experiment, place, tags))

    def _send(self, client: MlflowClient, wanted: WantedRun) -> None:
        sent = self._opened(client, wanted)
        if (sent.tags, sent.metrics) != (wanted.tags, wanted.metrics):
            fresh = wanted.metrics.items() - sent.metrics.items()
            metrics = [
                MetricPoint(name, value, int(time.time() * 1000), 0) for name, value in fresh
            ]
            _log_batch(client, sent.run, metrics, tags=wanted.tags)
            sent.tags, sent.metrics = dict(wanted.tags), dict(wanted.metrics)
        if sent.status != wanted.status == "RUNNING":
            client.update_run(sent.run, status="RUNNING")
            sent.status = "RUNNING"
        self._send_trials(client, sent, wanted)
        for name in wanted.lines:
            self._send_lines(client, sent, name)
        for name, folder in wanted.files.items():
            self._send_file(client, sent, name, folder)
        if sent.status != wanted.status:
            client.set_terminated(sent.run, wanted.status, wanted.ended)
            sent.status = wanted.status

    def _opened(self, client: MlflowClient, wanted: WantedRun) -> SentRun:
        """Return the record of a step whose run is there; a process asks once for each."""
        sent, step = self._steps.get(wanted.step), wanted.step
        if sent and sent.fingerprint == wanted.fingerprint and step in self._found:
            return sent
        key = {"mixopt.key": self.sent.key, "mixopt.step": step, FINGERPRINT: wanted.fingerprint}
        condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in key.items())
        runs = client.search_runs([self._experiment_id], condition, max_results=1)
        if not runs:
            runs = [client.create_run(self._experiment_id, wanted.started, key, wanted.name)]
        run = str(runs[0].info.run_id)
        if sent is None or sent.run != run:
            _log_batch(client, run, params=wanted.params)
            sent = SentRun(run, wanted.fingerprint)
            self._note("runs", 1)
        self._steps[step] = sent
        self._found.add(step)
        return sent

    def _send_trials(self, client: MlflowClient, sent: SentRun, wanted: WantedRun) -> None:
        if wanted.folder is None:
            return
        objective_hash = hashlib.sha256(json.dumps(wanted.objective).encode()).hexdigest()[:8]
        fresh: dict[Path, str] = {}
        for file in sorted(trial_paths(inside(self._path, wanted.folder))):
            if inside(self._path, file.relative_to(self._path)).is_file():
                mark = f"{_mark(file)} {objective_hash}"
                if sent.trials.get(file.stem) != mark:
                    fresh[file] = mark
        if not fresh:
            return
        condition = f"tags.`mlflow.parentRunId` = '{sent.run}'"
        children = client.search_runs([self._experiment_id], condition, max_results=MAX_RUNS)
        known = {run.data.tags.get("mixopt.content"): str(run.info.run_id) for run in children}
        for file, mark in fresh.items():
            content = hashlib.sha256(file.read_bytes()).hexdigest()[:32]
            ended = int(file.stat().st_mtime * 1000)
            trial, result = read_entry(file)
            run = known.get(content)
            if run is None:
                own = {"mixopt.content": content, "mlflow.parentRunId": sent.run}
                started = ended - int(result.seconds * 1000)
                made = client.create_run(self._experiment_id, started, own, trial.name)
                run = str(made.info.run_id)
            params = {
                "seed": str(trial.seed),
                "role": trial.role,
                "round": str(trial.round),
                "mixture": trial.mixture.fingerprint,
                **{f"weight/{name}": repr(share) for name, share in trial.mixture.items()},
            }
            tags = {"mixopt.trial": trial.name, "mixopt.status": result.status}
            tags |= {"mixopt.reason": result.reason} if result.reason else {}
            _log_batch(client, run, _trial_metrics(result, ended, wanted.objective), params, tags)
            status = "FINISHED" if result.status == "finished" else "FAILED"
            client.set_terminated(run, status, ended)
            sent.trials[file.stem] = mark
            self._note("trials", 1)

    def _send_lines(self, client: MlflowClient, sent: SentRun, name: str) -> None:
        file = inside(self._path, name)
        points: list[MetricPoint] | None = None
        while file.is_file() and points != []:
            position = copy.deepcopy(sent.lines.get(name, Position()))
            points = position.take(file, MAX_POINTS)
            if points:
                _log_batch(client, sent.run, points)
                self._note("points", len(points))
            sent.lines[name] = position

    def _send_file(
        self, client: MlflowClient, sent: SentRun, name: str, folder: str | None
    ) -> None:
        file = inside(self._path, name)
        if not file.is_file() or sent.files.get(name) == (mark := _mark(file)):
            return
        if self._is_own:
            _check_artifacts_inside(client, sent.run, self._path)
        client.log_artifact(sent.run, str(file), folder or FOLDERS.get(file.suffix))
        sent.files[name] = mark
        self._note("files", 1)

    def _note(self, what: str, count: int) -> None:
        """Count what was sent; the file is written every second, as a sign of life too."""
        self.sent.sent[what] += count
        if time.monotonic() > self._noted + 1:
            self._noted = time.monotonic()
            self._write()


def _mark(file: Path) -> str:
    """Return what changes when a file is written."""
    return f"{file.stat().st_mtime_ns} {file.stat().st_size}"


def key_of(name: str) -> str:
    """Return a name as a valid MLflow key: itself where MLflow takes it."""
    key = "/".join(_segment(part) for part in name.split("/"))
    if len(key) <= MAX_KEY:
        return key
    return f"{key[: MAX_KEY - 13]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _segment(part: str) -> str:
    odd = r"\." if part in {".", ".."} else r"[^\w\-. :]"
    return re.sub(odd, lambda match: f"_{ord(match[0]):x}_", part) or "_"


def _trial_metrics(
    result: TrialResult, when: int, objective: dict[str, Any] | None
) -> list[MetricPoint]:
    """Return the metrics of a trial, its learning curve included; steps are tokens."""
    curve = {losses.tokens: losses for losses in result.curve}
    if result.losses is not None:
        curve[result.losses.tokens] = result.losses
    metrics: list[MetricPoint] = []
    for step, losses in sorted(curve.items()):
        values = {f"loss/{name}": value for name, value in losses.nats_per_token.items()}
        values |= {f"bpb/{name}": value for name, value in losses.bits_per_byte.items()}
        values |= losses.tasks
        metrics += [MetricPoint(k, v, when, step) for k, v in values.items() if math.isfinite(v)]
    totals: dict[str, Any] = {"trial/tokens": result.tokens, "trial/parameters": result.parameters}
    if result.seconds > 0:
        totals["trial/seconds"] = result.seconds
        totals["trial/tokens_per_second"] = result.tokens / result.seconds
    if objective is not None and result.losses is not None:
        minimised = checked_as(Objective, objective, "objective")
        own = minimised.over(minimised.measured)
        by_name = {**getattr(result.losses, own.unit), **result.losses.tasks}
        row = [by_name.get(name, math.nan) for name in own.evaluation]
        totals["objective"] = own.value([row])[0]
    if result.experts is not None:
        from mixopt.routing import trial_scalars

        totals |= trial_scalars(result.experts)
    points = (MetricPoint(key, float(v), when, result.tokens) for key, v in totals.items())
    return [*metrics, *points]


def _log_batch(
    client: MlflowClient,
    run: str,
    metrics: Sequence[MetricPoint] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write metrics, parameters and tags of a run, by names that MLflow takes."""
    from mlflow.entities import Metric, Param, RunTag

    points = [Metric(key_of(point.key), *point[1:]) for point in metrics]
    pairs = [Param(key_of(name), value[:MAX_VALUE]) for name, value in (params or {}).items()]
    facts = [RunTag(name, value[:MAX_TAG]) for name, value in (tags or {}).items()]
    client.log_batch(run, points, pairs, facts)


def _check_artifacts_inside(client: MlflowClient, run: str, directory: Path) -> None:
    """Check where a database keeps files: it may be somebody else's, or have been moved."""
    location = str(client.get_run(run).info.artifact_uri)
    prefix = directory.resolve().as_uri() + "/"
    if not location.startswith(prefix) or "/../" in location or "%2" in location[len(prefix) :]:
        raise RunError(
            f"{directory}: its database keeps files in {without_secrets(location)}, outside this"
            f" folder; if it was moved, delete {LOCAL} and run: mixopt sync {directory}"
        )


def _database(uri: str) -> Path | None:
    """Return the file of a database, or None of a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


@contextmanager
def _made_alone(file: Path | None) -> Iterator[None]:
    """Have a new database to oneself: MLflow makes its tables without a lock, in steps."""
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f"{file.name}.lock"), timeout=120):
        if not file.exists():
            from mlflow import MlflowClient

            made = file.with_name(f"{file.name}.making")
            made.unlink(missing_ok=True)
            MlflowClient(tracking_uri=f"{SQLITE}{made}").search_experiments(max_results=1)
            made.replace(file)
        yield


def _log(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
    sys.stderr.flush()


def main() -> None:
    """Send until standard input ends."""
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)
    path, settings = Path(sys.argv[1]), json.loads(sys.stdin.readline() or "{}")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    sys.stdout = sys.stderr  # MLflow prints links
    try:
        check_own(path)
        # One that is at its end is waited for.
        with FileLock(path / LOCK, timeout=LOCK_SECONDS):
            sender = Sender(path, settings["uri"], settings["experiment"])
            sys.exit(sender.run(sys.stdin) is not None)
    except Timeout:
        _log(f"{path}: another process is sending from it")
    except (MixoptError, KeyError) as error:
        _log(without_secrets(str(error)))
    sys.exit(1)


if __name__ == "__main__":
    main()
