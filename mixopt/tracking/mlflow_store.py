"""Runs of a sweep in MLflow, through its client alone: no global state, every call batched.

Writing twice is harmless: a run is found by its tags before it is made, and a metric with the
same key, step, time and value is kept once. Times are those of the trial's file, not of the
call.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException

from mixopt.files import read_json
from mixopt.proxy import Trial, TrialResult
from mixopt.tracking.record import StepRecord
from mixopt.trial_files import result_from_json, trial_from_json

# MLflow's limits for one log_batch.
METRICS_PER_CALL = 900
PARAMS_PER_CALL = 90


class MlflowStore:
    """One experiment of one MLflow server or database."""

    def __init__(self, uri: str, experiment: str, artifacts: Path | None) -> None:
        """Connect, and make the experiment if there is none.

        Args:
            uri: Tracking server or database.
            experiment: Name of the experiment.
            artifacts: Folder for files; where the server keeps them when None.

        Raises:
            MlflowException: The server cannot be reached.
        """
        self._client = MlflowClient(tracking_uri=uri)
        self._known: dict[str, dict[str, str]] = {}
        found = self._client.get_experiment_by_name(experiment)
        if found is None:
            location = artifacts.resolve().as_uri() if artifacts else None
            self._experiment = self._client.create_experiment(experiment, location)
        else:
            self._experiment = found.experiment_id

    def reopen(self, run: str) -> bool:
        """Set a run to running again; False where there is no such run."""
        try:
            self._client.update_run(run, status="RUNNING")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def parent(self, key: str, step: str, entry: StepRecord) -> str:
        """Return the parent run of a step, made if there is none."""
        mark = entry.tags.get("mixopt.fingerprint", "")
        tags = {**entry.tags, "mixopt.key": key, "mixopt.step": step, "mixopt.fingerprint": mark}
        run = self._find(
            f"{_is('key', key)} and {_is('step', step)} and {_is('fingerprint', mark)}"
        )
        if run is None:
            run = self._client.create_run(self._experiment, tags=tags, run_name=step)
        self._log(run.info.run_id, entry.params, [])
        return str(run.info.run_id)

    def trial(self, key: str, parent: str, file: Path, content: str) -> None:
        """Write a trial's child run from its file.

        Args:
            key: The run directory's.
            parent: MLflow's id of the parent run.
            file: The trial's JSON file.
            content: Its hash; a trial that was trained again is another child.
        """
        entry = read_json(file)
        trial, result = trial_from_json(entry["trial"]), result_from_json(entry["result"])
        ended = int(file.stat().st_mtime * 1000)
        tags = {
            "mixopt.key": key,
            "mixopt.trial": trial.name,
            "mixopt.content": content,
            "mixopt.status": result.status,
            "mlflow.parentRunId": parent,
        }
        if result.reason:
            tags["mixopt.reason"] = result.reason[:5000]
        renamed = _renamed(trial, result)
        if renamed:
            tags["mixopt.names"] = json.dumps(renamed)
        run = self._children(parent).get(content)
        if run is None:
            started = ended - int(result.seconds * 1000)
            created = self._client.create_run(self._experiment, started, tags, trial.name)
            run = str(created.info.run_id)
        self._log(run, _trial_params(trial), list(_trial_metrics(result, ended)))
        status = "FINISHED" if result.status == "finished" else "FAILED"
        self._client.set_terminated(run, status, ended)

    def metrics(self, run: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write lines of metrics of a run: numbers, and numbers by name."""
        found = [metric for line in lines for metric in _line_metrics(line)]
        for at in range(0, len(found), METRICS_PER_CALL):
            self._client.log_batch(run, found[at : at + METRICS_PER_CALL])

    def artifact(self, run: str, file: Path) -> None:
        """Keep a file with a run: tables and figures in folders of that name."""
        folder = {".parquet": "tables", ".svg": "figures"}.get(file.suffix)
        self._client.log_artifact(run, str(file), folder)

    def end(self, run: str, status: str) -> None:
        """Finish a run."""
        self._client.set_terminated(run, status)

    def _children(self, parent: str) -> dict[str, str]:
        """Return the runs of a parent by content; asked once, before the first is added."""
        if parent not in self._known:
            found: dict[str, str] = {}
            page = None
            while page is None or page.token:
                page = self._client.search_runs(
                    [self._experiment],
                    f"tags.`mlflow.parentRunId` = '{parent}'",
                    max_results=1000,
                    page_token=page.token if page else None,
                )
                found |= {run.data.tags["mixopt.content"]: run.info.run_id for run in page}
            self._known[parent] = found
        return self._known[parent]

    def _find(self, condition: str) -> Run | None:
        runs = self._client.search_runs([self._experiment], condition, max_results=1)
        return runs[0] if runs else None

    def _log(self, run: str, params: Mapping[str, str], metrics: list[Metric]) -> None:
        pairs = [Param(_key(name), value) for name, value in params.items()]
        for at in range(0, max(len(pairs), 1), PARAMS_PER_CALL):
            first = metrics[:METRICS_PER_CALL] if at == 0 else []
            self._client.log_batch(run, first, pairs[at : at + PARAMS_PER_CALL])
        for at in range(METRICS_PER_CALL, len(metrics), METRICS_PER_CALL):
            self._client.log_batch(run, metrics[at : at + METRICS_PER_CALL])


def _trial_params(trial: Trial) -> dict[str, str]:
    weights = {f"weight/{name}": repr(share) for name, share in trial.mixture.items()}
    return {
        "seed": str(trial.seed),
        "role": trial.role,
        "round": str(trial.round),
        "mixture": trial.mixture.fingerprint,
        **weights,
    }


def _trial_metrics(result: TrialResult, when: int) -> Iterator[Metric]:
    points = {losses.tokens: losses for losses in result.curve}
    if result.losses is not None:
        points[result.losses.tokens] = result.losses
    for step, losses in sorted(points.items()):
        for kind, values in (("loss", losses.nats_per_token), ("bpb", losses.bits_per_byte)):
            for name, value in values.items():
                if math.isfinite(value):
                    yield Metric(_key(f"{kind}/{name}"), value, when, step)
    totals: dict[str, Any] = {"tokens": result.tokens, "parameters": result.parameters}
    if result.seconds > 0:
        totals |= {"seconds": result.seconds, "tokens_per_second": result.tokens / result.seconds}
    for name, value in totals.items():
        yield Metric(name, float(value), when, result.tokens)


def _line_metrics(line: Mapping[str, Any]) -> Iterator[Metric]:
    when, step = int(line["time"] * 1000), line["step"]
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from (Metric(_key(f"{name}/{n}"), float(v), when, step) for n, v in value.items())
        elif name not in {"time", "step"} and isinstance(value, int | float):
            yield Metric(_key(name), float(value), when, step)


def _renamed(trial: Trial, result: TrialResult) -> dict[str, str]:
    """Return the names that keys do not spell, by how keys spell them."""
    targets = result.losses.nats_per_token if result.losses else {}
    return {_key(n): n for n in (*trial.mixture, *targets) if _key(n) != n}


def _is(tag: str, value: str) -> str:
    return f"tags.`mixopt.{tag}` = '{value}'"


def _key(name: str) -> str:
    """Write a name with the characters that MLflow allows in keys; others by their code."""
    return re.sub(r"[^\w\-. :/]", lambda found: f"_{ord(found[0]):x}_", name)[:250]
