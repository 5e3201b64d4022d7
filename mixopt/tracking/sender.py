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
import posixpath
import re
import select
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
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
from mixopt.tracking.record import (
    ARTIFACTS,
    FINGERPRINT,
    LOCAL,
    LOCK,
    SENT,
    SQLITE,
    MetricPoint,
    Sent,
    SentRun,
    WantedRun,
    read_points,
    wanted_runs,
)
from mixopt.trials import TrialResult

FOLDERS = {".parquet": "tables", ".svg": "figures"}
NOTE = "mlflow.note.content"  # the tag that MLflow shows as description
EXPERIMENT_NOTE = (
    "`NAME/sweep` is a whole run, with its answer; sort its trials by `objective`: lower is better."
)
MAX_KEY, MAX_VALUE, MAX_TAG = 250, 500, 5000  # limits in characters since MLflow 2.0
MAX_POINTS = 900  # read and sent at once
EVERY_SECONDS, MAX_PAUSE_SECONDS, LOCK_SECONDS = 2.0, 30.0, 30.0
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
        name = ServerUri(uri or f"{SQLITE}{LOCAL}")
        self._path, self._login, self.name = path, name.login(), str(name) if uri else LOCAL
        self._client: Any = None  # MLflow's client, imported when needed
        self._experiment = ""  # id
        # Runs that this process has looked up, and how much of their metrics it has read.
        self._seen, self._offsets = set[str](), dict[str, int]()
        self._noted = time.monotonic()
        # The directory's own database counts as one server under any name.
        file = Path(name.given.removeprefix(SQLITE))
        self._file = file if name.startswith(SQLITE) else None
        self._is_own = file.resolve() == path.resolve() / LOCAL
        self.sent = Sent.read(path)
        self.sent.sent = dict.fromkeys(("runs", "trials", "points", "files"), 0)
        server = f"{SQLITE}{LOCAL}" if self._is_own else name.address
        self._runs = self.sent.servers.setdefault(server, {})

    def run(self, stream: IO[str]) -> str | None:
        """Send news repeatedly, and once more after the stream or the parent has ended."""
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
        """Send news; return an error as one line."""
        trouble = None
        try:
            runs = list(wanted_runs(self._path).values())
            for wanted in runs:
                if last and wanted.status == "RUNNING":
                    wanted.status, wanted.ended = "KILLED", int(time.time() * 1000)
                if self._client is None:
                    self._connect(runs[-1].experiment)
                self._send(wanted)
        except Exception as error:
            self._client = None
            self._seen.clear()  # the server may have been replaced
            cause: BaseException = error
            if not isinstance(error, MixoptError) and isinstance(error.__context__, OSError):
                while cause.__context__ is not None:  # which MLflow's error quotes at length
                    cause = cause.__context__
            text = without_secrets(one_line(cause, None), self._login.secrets)
            trouble = f"{self.name}: {text[:300]}"
            _log(trouble)
        self.sent.trouble = trouble
        self._write()
        return trouble

    def _write(self) -> None:
        write_text(self._path / SENT, json.dumps(asdict(self.sent)))

    def _connect(self, name: str) -> None:
        """Open an experiment by name, creating it if necessary."""
        os.environ.update(self._login.environment)
        from mlflow import MlflowClient

        with ExitStack() as alone:
            if (file := self._file) is not None:  # MLflow creates tables and experiments in steps
                alone.enter_context(FileLock(file.with_name(f"{file.name}.lock"), timeout=120))
                if not file.exists():
                    with replacing(file) as temporary:
                        uri = f"{SQLITE}{temporary}"
                        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
            client = MlflowClient(tracking_uri=self._login.uri)
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                place = None if file is None else (file.resolve().parent / ARTIFACTS).as_uri()
                # Without this tag MLflow 3 shows an experiment as one of prompts and traces.
                tags = {"mlflow.experimentKind": "custom_model_development", NOTE: EXPERIMENT_NOTE}
                self._experiment = str(client.create_experiment(name, place, tags))
            else:
                self._experiment = str(experiment.experiment_id)
        self._client = client

    def _send(self, wanted: WantedRun) -> None:
        sent = self._opened(wanted)
        if (sent.tags, sent.metrics) != (wanted.tags, wanted.metrics):
            now, fresh = int(time.time() * 1000), wanted.metrics.items() - sent.metrics.items()
            metrics = [MetricPoint(name, value, now, 0) for name, value in fresh]
            self._log_batch(sent.run, metrics, tags=wanted.tags)
            sent.tags, sent.metrics = dict(wanted.tags), dict(wanted.metrics)
        if sent.status != wanted.status == "RUNNING":
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
        if entry not in self._seen:
            key = {"mixopt.key": self.sent.key, "mixopt.step": wanted.step}
            key[FINGERPRINT] = wanted.fingerprint
            run = self._run_with(key, wanted.name, wanted.started)
            if entry not in self._runs or self._runs[entry].run != run:
                self._log_batch(run, params=wanted.params)
                self._runs[entry] = SentRun(run)
                self._note("runs", 1)
            self._seen.add(entry)
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
            if sent.marks.get(name) not in ((mark,) if final else (mark, f"{mark} stopped")):
                is_sent = self._send_trial(sent.run, file, wanted.objective, final=final)
                sent.marks[name] = mark if is_sent else f"{mark} stopped"
                self._note("trials", is_sent)

    def _send_trial(self, parent: str, file: Path, objective: Any, *, final: bool) -> bool:
        """Send a trial, and return whether it was sent."""
        trial, result = read_entry(file)
        if result.status == "stopped" and not final:
            return False
        end = int(file.stat().st_mtime * 1000)
        key = {"mlflow.parentRunId": parent, "mixopt.content": _hash(file.read_bytes())[:32]}
        run = self._run_with(key, trial.name, end - int(result.seconds * 1000))
        params = {"seed": str(trial.seed), "role": trial.role, "round": str(trial.round)}
        params |= {f"weight/{name}": repr(share) for name, share in trial.mixture.items()}
        tags = {"mixopt.status": str(result.status)}
        tags |= {"mixopt.reason": result.reason} if result.reason else {}
        self._log_batch(run, _trial_metrics(result, end, objective), params, tags)
        self._client.set_terminated(run, "FAILED" if result.has_failed else "FINISHED", end)
        return True

    def _send_lines(self, sent: SentRun, file: Path) -> None:
        points: list[MetricPoint] | None = None
        while file.is_file() and points != []:
            points, offset = read_points(file, self._offsets.get(sent.run, 0), MAX_POINTS)
            fresh, last = list[MetricPoint](), dict(sent.steps)
            for point in points:
                if point.step > last.get(point.key, -math.inf):
                    fresh.append(point)
                    last[point.key] = point.step
            if fresh:
                self._log_batch(sent.run, fresh)
            sent.steps, self._offsets[sent.run] = last, offset
            self._note("points", len(fresh))

    def _send_file(self, sent: SentRun, name: str) -> None:
        file = inside(self._path, name)
        if not file.is_file() or sent.marks.get(name) == (mark := _mark(file)):
            return
        # The directory's database may be foreign, or have been moved.
        place = str(self._client.get_run(sent.run).info.artifact_uri) if self._is_own else ""
        folder = self._path.resolve()
        head, _, rest = place.partition(f"{folder.as_uri()}/")
        if head or "/../" in place or "%2" in rest:
            raise RunError(
                f"{folder}: its database keeps files in {without_secrets(place)}, outside this"
                f" folder; if it was moved, delete {LOCAL} and run: mixopt sync {folder}"
            )
        self._client.log_artifact(sent.run, str(file), FOLDERS.get(file.suffix))
        sent.marks[name] = mark
        self._note("files", 1)

    def _log_batch(
        self,
        run: str,
        metrics: Sequence[MetricPoint] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Send metrics, parameters and tags of a run under valid MLflow keys."""
        from mlflow.entities import Metric, Param, RunTag

        points = [Metric(key_of(point.key), *point[1:]) for point in metrics]
        pairs = [Param(key_of(name), value[:MAX_VALUE]) for name, value in (params or {}).items()]
        facts = [RunTag(name, value[:MAX_TAG]) for name, value in (tags or {}).items()]
        self._client.log_batch(run, points, pairs, facts)

    def _note(self, kind: str, count: int) -> None:
        """Count what was sent; write the file every second, also as a sign of life."""
        self.sent.sent[kind] += count
        if time.monotonic() > self._noted + 1:
            self._noted = time.monotonic()
            self._write()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _mark(file: Path) -> str:
    """Return a mark that changes when a file is written."""
    return f"{file.stat().st_mtime_ns} {file.stat().st_size}"


def key_of(name: str) -> str:
    """Return a name as a valid MLflow key, unchanged if possible."""
    key = re.sub(r"[^\w\-. :/]", lambda match: f"_{ord(match[0]):x}_", name) or "_"
    if posixpath.normpath(key) != key or key.startswith(("..", "/")) or key == ".":
        key = re.sub("[./]", "_", key)  # MLflow would read it as a path
    return key if len(key) <= MAX_KEY else f"{key[: MAX_KEY - 13]}_{_hash(name.encode())[:12]}"


def _trial_metrics(
    result: TrialResult, when: int, objective: dict[str, Any] | None
) -> list[MetricPoint]:
    """Return the metrics of a trial with its learning curve; steps are tokens."""
    curve: dict[int, dict[str, Any]] = {
        losses.tokens: {
            **{f"loss/{name}": value for name, value in losses.nats_per_token.items()},
            **{f"bpb/{name}": value for name, value in losses.bits_per_byte.items()},
            **losses.tasks,
        }
        for losses in (*result.curve, result.losses)
        if losses is not None
    }
    last = curve.setdefault(result.tokens, {})
    last |= {"trial/tokens": result.tokens, "trial/parameters": result.parameters}
    if result.seconds > 0:
        last["trial/seconds"] = result.seconds
        last["trial/tokens_per_second"] = result.tokens / result.seconds
    if objective is not None and result.losses is not None:
        minimised = checked_as(Objective, objective, "objective")
        measured = minimised.over(minimised.measured)
        by_name = {**getattr(result.losses, measured.unit), **result.losses.tasks}
        row = [by_name.get(name, math.nan) for name in measured.evaluation]
        last["objective"] = measured.value([row])[0]
    if result.experts is not None:
        from mixopt.routing import trial_scalars

        last |= trial_scalars(result.experts)
    return [
        MetricPoint(name, float(value), when, step)
        for step, values in sorted(curve.items())
        for name, value in values.items()
        if math.isfinite(value)
    ]


def _log(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


def main() -> None:
    """Send until standard input is closed."""
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)
    path, uri = Path(sys.argv[1]), sys.stdin.readline().strip()
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
