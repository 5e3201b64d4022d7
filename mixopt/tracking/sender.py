"""The process that sends a run's record to MLflow: `python -m mixopt.tracking.sender DIR`.

It polls the run directory every two seconds and sends news through MLflow's public client. A
failing server is retried after 1, 2, 4 ... 30 seconds. When standard input ends, because the
training process has finished or was killed, it sends the rest once more, closes the runs and exits;
what fails then stays on disk for the next sender. The exit code is 1 if something remains.

`tracking_sent.json` records what each server has. Sending may be interrupted anywhere: runs are
found again by their tags, and MLflow keeps one of several metrics with equal step, time and value.

The first line of standard input is the server's URI, or empty for the directory's own database.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from mixopt.errors import MixoptError, RunError
from mixopt.objective import Objective
from mixopt.sweeps import read_entry, trial_paths
from mixopt.system import (
    ServerUri,
    checked_as,
    inside,
    one_line,
    replacing,
    without_secrets,
    write_text,
)
from mixopt.tracking.mlflow_names import NOTE, mlflow_key
from mixopt.tracking.record import (
    ARTIFACTS,
    FINGERPRINT,
    LOCAL,
    LOCK,
    LOG_TIME,
    SENT,
    SQLITE,
    MetricPoint,
    Sent,
    SentRun,
    WantedRun,
    read_points,
    wanted_runs,
)
from mixopt.trials import Losses, TrialResult

FOLDERS = {".parquet": "tables", ".svg": "figures"}
EXPERIMENT_NOTE = (
    "`NAME/sweep` is a whole run, with its answer; sort its trials by `objective`: lower is better,"
    " of accuracies higher."
)
MAX_VALUE = 500  # characters of a parameter, since MLflow 2.0
MAX_TAG = 5000  # characters of a tag
MAX_TROUBLE = 300  # characters of an error
MAX_POINTS = 900  # read and sent at once
EVERY_SECONDS = 2.0  # between two looks for news
MAX_PAUSE_SECONDS = 30.0  # before a failing server is tried again
LOCK_SECONDS = 30.0  # for another sender of the directory to finish
DATABASE_LOCK_SECONDS = 120.0  # for another process to create the same database
WRITE_SECONDS = 1.0  # between two signs of life
NICENESS = 5  # of this process, beside training on the same cores
# Give up on a dead server quickly (MLflow's default: 249 s); no telemetry.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Sender:
    """Updates an MLflow experiment to the wanted state of a run directory."""

    def __init__(self, path: Path, uri: str | None) -> None:
        """Store the directory and the server."""
        server = ServerUri(uri or f"{SQLITE}{LOCAL}")
        self.name = str(server) if uri else LOCAL
        self._path = path
        self._login = server.login()
        self._client: Any = None  # MLflow's client, imported when needed
        self._experiment = ""  # id
        self._found = set[str]()  # keys of the runs that this process has looked up
        self._offsets = dict[str, int]()  # bytes of each run's metrics that it has read
        self._written_at = time.monotonic()
        file = Path(server.given.removeprefix(SQLITE))
        self._database = file if server.startswith(SQLITE) else None
        # The directory's own database counts as one server under any name.
        self._is_local = file.resolve() == path.resolve() / LOCAL
        key = f"{SQLITE}{LOCAL}" if self._is_local else server.address
        self.sent = Sent.read(path)
        self.sent.sent = dict.fromkeys(("runs", "trials", "points", "files"), 0)
        self._runs = self.sent.servers.setdefault(key, {})

    def run(self, stream: IO[str]) -> str | None:
        """Send news repeatedly, and once more after the stream or the parent has ended."""
        parent = os.getppid()
        retry_seconds = 1.0
        is_last = False
        while True:
            is_last = is_last or os.getppid() != parent
            trouble = self.attempt(last=is_last)
            if is_last:
                return trouble
            if trouble is None:
                pause = EVERY_SECONDS
                retry_seconds = 1.0
            else:
                pause = retry_seconds
                retry_seconds = min(2.0 * retry_seconds, MAX_PAUSE_SECONDS)
            readable, _, _ = select.select([stream], [], [], pause)
            is_last = bool(readable)

    def attempt(self, *, last: bool) -> str | None:
        """Send news; return an error as one line."""
        trouble = None
        try:
            self._send_all(last=last)
        except Exception as error:
            self._client = None
            self._found.clear()  # the server may have been replaced
            text = without_secrets(one_line(_cause(error), None), self._login.secrets)
            trouble = f"{self.name}: {text[:MAX_TROUBLE]}"
            _log(trouble)
        self.sent.trouble = trouble
        self._write()
        return trouble

    def _send_all(self, *, last: bool) -> None:
        """Send every wanted run; those still running at the last attempt were killed."""
        runs = list(wanted_runs(self._path).values())
        for wanted in runs:
            if last and wanted.status == "RUNNING":
                wanted.status = "KILLED"
                wanted.ended = _now()
            if self._client is None:
                self._connect(runs[-1].experiment)
            self._send(wanted)

    def _write(self) -> None:
        write_text(self._path / SENT, json.dumps(asdict(self.sent)))

    def _connect(self, name: str) -> None:
        """Open an experiment by name, creating it if necessary."""
        os.environ.update(self._login.environment)
        from mlflow import MlflowClient

        with self._locked_database():
            client = MlflowClient(tracking_uri=self._login.uri)
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                artifacts = None
                if self._database is not None:
                    artifacts = (self._database.resolve().parent / ARTIFACTS).as_uri()
                # Without this tag MLflow 3 shows an experiment as one of prompts and traces.
                tags = {"mlflow.experimentKind": "custom_model_development", NOTE: EXPERIMENT_NOTE}
                self._experiment = str(client.create_experiment(name, artifacts, tags))
            else:
                self._experiment = str(experiment.experiment_id)
        self._client = client

    @contextmanager
    def _locked_database(self) -> Iterator[None]:
        """Lock a database file and create it: MLflow creates tables and experiments in steps."""
        from mlflow import MlflowClient

        if self._database is None:
            yield
            return
        lock = self._database.with_name(f"{self._database.name}.lock")
        with FileLock(lock, timeout=DATABASE_LOCK_SECONDS):
            if not self._database.exists():
                with replacing(self._database) as temporary:
                    client = MlflowClient(tracking_uri=f"{SQLITE}{temporary}")
                    client.search_experiments(max_results=1)
            yield

    def _send(self, wanted: WantedRun) -> None:
        sent = self._opened(wanted)
        if sent.tags != wanted.tags or sent.metrics != wanted.metrics:
            now = _now()
            changed = wanted.metrics.items() - sent.metrics.items()
            metrics = [MetricPoint(name, value, now, 0) for name, value in changed]
            self._log_batch(sent.run, metrics, tags=wanted.tags)
            sent.tags = dict(wanted.tags)
            sent.metrics = dict(wanted.metrics)
        if wanted.status == "RUNNING" and sent.status != "RUNNING":
            self._client.update_run(sent.run, status="RUNNING")
            sent.status = "RUNNING"
        if wanted.folder is not None:
            self._send_trials(sent, wanted, wanted.folder)
        if wanted.lines is not None:
            self._send_lines(sent, inside(self._path, wanted.lines))
        for name in wanted.files:
            self._send_file(sent, name)
        if sent.status != wanted.status:
            self._client.set_terminated(sent.run, wanted.status, wanted.ended)
            sent.status = wanted.status

    def _opened(self, wanted: WantedRun) -> SentRun:
        """Return the record of a run that exists, looked up once by a process."""
        entry = f"{wanted.step} {wanted.fingerprint}"
        if entry not in self._found:
            tags = {
                "mixopt.key": self.sent.key,
                "mixopt.step": wanted.step,
                FINGERPRINT: wanted.fingerprint,
            }
            run = self._run_with(tags, wanted.name, wanted.started)
            if entry not in self._runs or self._runs[entry].run != run:
                self._log_batch(run, params=wanted.params)
                self._runs[entry] = SentRun(run)
                self._count("runs", 1)
            self._found.add(entry)
        return self._runs[entry]

    def _run_with(self, tags: dict[str, str], name: str, started: int) -> str:
        """Return the id of the run with these tags, creating it if necessary."""
        condition = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
        runs = self._client.search_runs([self._experiment], condition, max_results=1)
        if not runs:
            runs = [self._client.create_run(self._experiment, started, tags, name)]
        return str(runs[0].info.run_id)

    def _send_trials(self, sent: SentRun, wanted: WantedRun, folder: str) -> None:
        final = wanted.status == "FINISHED"  # before, a stopped trial may continue
        for file in sorted(trial_paths(inside(self._path, folder))):
            name = file.relative_to(self._path).as_posix()
            if not inside(self._path, name).is_file():
                continue
            mark = f"{_mark(file)} {_hash(json.dumps(wanted.objective).encode())[:8]}"
            stopped_mark = f"{mark} stopped"
            last_mark = sent.marks.get(name)
            if last_mark == mark or (last_mark == stopped_mark and not final):
                continue
            is_sent = self._send_trial(sent.run, file, wanted.objective, final=final)
            sent.marks[name] = mark if is_sent else stopped_mark
            self._count("trials", int(is_sent))

    def _send_trial(self, parent: str, file: Path, objective: Any, *, final: bool) -> bool:
        """Send a trial, and return whether it was sent."""
        trial, result = read_entry(file)
        if result.status == "stopped" and not final:
            return False
        end = int(file.stat().st_mtime * 1000)
        found_by = {"mlflow.parentRunId": parent, "mixopt.content": _hash(file.read_bytes())[:32]}
        run = self._run_with(found_by, trial.name, end - int(result.seconds * 1000))
        params = {"seed": str(trial.seed), "role": trial.role, "round": str(trial.round)}
        params |= {f"weight/{name}": repr(share) for name, share in trial.mixture.items()}
        tags = {"mixopt.status": str(result.status)}
        if result.reason:
            tags["mixopt.reason"] = result.reason
        self._log_batch(run, _trial_metrics(result, end, objective), params, tags)
        self._client.set_terminated(run, "FAILED" if result.has_failed else "FINISHED", end)
        return True

    def _send_lines(self, sent: SentRun, file: Path) -> None:
        points: list[MetricPoint] | None = None
        while file.is_file() and points != []:
            points, offset = read_points(file, self._offsets.get(sent.run, 0), MAX_POINTS)
            new_points = list[MetricPoint]()
            last_steps = dict(sent.steps)
            for point in points:
                if point.step > last_steps.get(point.key, -math.inf):
                    new_points.append(point)
                    last_steps[point.key] = point.step
            if new_points:
                self._log_batch(sent.run, new_points)
            sent.steps = last_steps
            self._offsets[sent.run] = offset
            self._count("points", len(new_points))

    def _send_file(self, sent: SentRun, name: str) -> None:
        file = inside(self._path, name)
        if not file.is_file():
            return
        mark = _mark(file)
        if sent.marks.get(name) == mark:
            return
        if self._is_local:
            self._check_artifacts(sent.run)
        self._client.log_artifact(sent.run, str(file), FOLDERS.get(file.suffix))
        sent.marks[name] = mark
        self._count("files", 1)

    def _check_artifacts(self, run: str) -> None:
        """Raise if the directory's database, foreign or moved, keeps files elsewhere."""
        uri = str(self._client.get_run(run).info.artifact_uri)
        folder = self._path.resolve()
        head, _, rest = uri.partition(f"{folder.as_uri()}/")
        if head or "/../" in uri or "%2" in rest:
            raise RunError(
                f"{folder}: its database keeps files in {without_secrets(uri)}, outside this"
                f" folder; if it was moved, delete {LOCAL} and run: mixopt sync {folder}"
            )

    def _log_batch(
        self,
        run: str,
        metrics: Sequence[MetricPoint] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Send metrics, parameters and tags of a run under valid MLflow keys."""
        from mlflow.entities import Metric, Param, RunTag

        values = [
            Metric(mlflow_key(point.key), point.value, point.time, point.step) for point in metrics
        ]
        pairs = [Param(mlflow_key(n), text[:MAX_VALUE]) for n, text in (params or {}).items()]
        run_tags = [RunTag(name, text[:MAX_TAG]) for name, text in (tags or {}).items()]
        self._client.log_batch(run, values, pairs, run_tags)

    def _count(self, kind: str, count: int) -> None:
        """Count what was sent; write the file every second, also as a sign of life."""
        self.sent.sent[kind] += count
        if time.monotonic() > self._written_at + WRITE_SECONDS:
            self._written_at = time.monotonic()
            self._write()


def _cause(error: Exception) -> BaseException:
    """Return the error to report; MLflow quotes an OSError at length, so the first of its chain."""
    cause: BaseException = error
    if not isinstance(error, MixoptError) and isinstance(error.__context__, OSError):
        while cause.__context__ is not None:
            cause = cause.__context__
    return cause


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _mark(file: Path) -> str:
    """Return a mark that changes when a file is written."""
    return f"{file.stat().st_mtime_ns} {file.stat().st_size}"


def _trial_metrics(
    result: TrialResult, when: int, objective: dict[str, Any] | None
) -> list[MetricPoint]:
    """Return the metrics of a trial with its learning curve; steps are tokens."""
    curve = {losses.tokens: _loss_metrics(losses) for losses in result.curve}
    if result.losses is not None:
        curve[result.losses.tokens] = _loss_metrics(result.losses)
    last = curve.setdefault(result.tokens, {})
    last |= {"trial/tokens": result.tokens, "trial/parameters": result.parameters}
    if result.seconds > 0:
        last["trial/seconds"] = result.seconds
        last["trial/tokens_per_second"] = result.tokens / result.seconds
    if objective is not None and result.losses is not None:
        last["objective"] = _objective_value(result.losses, objective)
    if result.experts is not None:
        from mixopt.routing import trial_scalars

        last |= trial_scalars(result.experts)
    points: list[MetricPoint] = []
    for step, values in sorted(curve.items()):
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        points += [MetricPoint(name, value, when, step) for name, value in finite.items()]
    return points


def _loss_metrics(losses: Losses) -> dict[str, Any]:
    """Return the metrics of one point of a learning curve."""
    metrics = {f"loss/{name}": value for name, value in losses.nats_per_token.items()}
    metrics |= {f"bpb/{name}": value for name, value in losses.bits_per_byte.items()}
    return metrics | losses.tasks


def _objective_value(losses: Losses, content: dict[str, Any]) -> float:
    """Return the value of an objective (`Objective.to_json`); NaN if it was not measured."""
    objective = checked_as(Objective, content, "objective")
    measured = objective.over(objective.measured)
    by_name = getattr(losses, measured.unit) | losses.tasks
    row = [by_name.get(name, math.nan) for name in measured.evaluation]
    value = float(measured.value(measured.turned([row]))[0])
    return measured.turned_value(value)


def _now() -> int:
    return int(time.time() * 1000)


def _log(line: str) -> None:
    sys.stderr.write(f"{time.strftime(LOG_TIME)} {line}\n")


def main() -> None:
    """Send until standard input is closed."""
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)
    path = Path(sys.argv[1])
    uri = sys.stdin.readline().strip()
    os.environ.update(ENVIRONMENT | os.environ)
    sys.stdout = sys.stderr  # MLflow prints links
    try:
        # Wait for another sender that is finishing.
        with FileLock(path / LOCK, timeout=LOCK_SECONDS):
            sys.exit(Sender(path, uri or None).run(sys.stdin) is not None)
    except Timeout:
        _log(f"{path}: another process is sending from it")
    except MixoptError as error:
        _log(without_secrets(str(error)))
    sys.exit(1)


if __name__ == "__main__":
    main()
