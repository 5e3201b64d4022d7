"""Runs in MLflow, through its client alone: no global state, every call batched.

Writing twice is harmless: a run is found by its tags before it is made, and a metric with the same
key, step, time and value is kept once. Times are those of the files, not of the call. MLflow would
make infinities 1.8e308, which ruins a chart: they are NaN here, and the tag `mixopt.not_finite`
says what was where first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from mixopt.errors import RunError, is_control
from mixopt.system import without_secrets
from mixopt.tracking.artifact_places import HINT, correct_places, is_relative, local_path
from mixopt.tracking.database import database_file
from mixopt.tracking.journal import Wanted
from mixopt.tracking.keys import NOTE, key_of, name_tags
from mixopt.tracking.lines import MetricPoint
from mixopt.tracking.outcome_view import view_tags
from mixopt.tracking.run_rows import RunRows
from mixopt.tracking.sent_trials import SentTrial
from mixopt.tracking.step_images import IMAGES, IMAGES_TAG, step_images

# MLflow's limits for one log_batch.
METRICS_PER_CALL = 900
PARAMS_PER_CALL = 90
# Without, MLflow 3 opens an experiment as one of prompts and traces.
SHOWN_AS = {"mlflow.experimentKind": "custom_model_development"}
FOLDERS = {".parquet": "tables", ".svg": "figures", ".png": "figures"}


class MlflowStore:
    """One experiment of one MLflow server or database."""

    def __init__(
        self, uri: str, experiment: str, artifacts: Path | None, within: Path | None = None
    ) -> None:
        """Connect, and make the experiment if there is none.

        Args:
            uri: Tracking server or database.
            experiment: Name of the experiment.
            artifacts: Folder for files; where the server keeps them when None.
            within: A folder that no file may leave, whatever the database says; any when None.

        Raises:
            MlflowException: The server cannot be reached.
        """
        self._client = MlflowClient(tracking_uri=uri)
        self._known: dict[str, dict[str, str]] = {}
        self._names: dict[str, dict[str, str]] = {}
        self._within = within
        self._database = database_file(uri)
        self._places: dict[str, str] = {}
        self._experiment = self._experiment_id(experiment, artifacts)
        self._rows = RunRows.of(uri, self._experiment)

    def has(self, run: str) -> bool:
        """Tell whether a run is there, and not deleted."""
        try:
            found: Run = self._client.get_run(run)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return bool(found.info.lifecycle_stage == "active")

    def parent(self, key: str, step: str, wanted: Wanted) -> str:
        """Return the parent run of a step, made if there is none.

        Raises:
            RunError: The database keeps files outside the folder that they may not leave.
        """
        tags = {
            **self._with_hint(wanted.tags),
            **name_tags(wanted.params),
            "mixopt.key": key,
            "mixopt.step": step,
            "mixopt.fingerprint": wanted.mark,
        }
        condition = " and ".join(
            f"tags.`mixopt.{tag}` = '{tags[f'mixopt.{tag}']}'"
            for tag in ("key", "step", "fingerprint")
        )
        found = self._client.search_runs([self._experiment], condition, max_results=1)
        if found:
            run = str(found[0].info.run_id)
        else:
            made = self._client.create_run(self._experiment, wanted.started, tags, wanted.name)
            run = str(made.info.run_id)
        self._log(run, wanted.params, [])
        self._inputs(run, wanted.datasets)
        if wanted.environment:
            self._keep_environment(run, wanted.environment)
        return run

    def trials(
        self, key: str, parent: str, several: Sequence[SentTrial]
    ) -> Iterator[tuple[SentTrial, str]]:
        """Write the child runs of trials; yield each with MLflow's id when it is there.

        Args:
            key: The run directory's.
            parent: MLflow's id of the parent run.
            several: The trials; one that was trained again is another child.
        """
        known = self._children(parent)
        fresh = [one for one in several if one.mark not in known]
        if self._rows is not None and fresh:
            made = self._rows.write(key, parent, fresh)
            known |= {one.mark: run for one, run in made}
            yield from made
            several = [one for one in several if one not in fresh]
        for one in several:
            yield one, self._trial(key, parent, one)

    def _trial(self, key: str, parent: str, one: SentTrial) -> str:
        run = self._children(parent).get(one.mark)
        if run is None:
            created = self._client.create_run(
                self._experiment, one.started, one.tags(key, parent), one.trial.name
            )
            run = self._children(parent)[one.mark] = str(created.info.run_id)
        metrics = [Metric(name, value, one.ended, step) for name, value, step in one.metrics()]
        self._log(run, one.params(), metrics)
        self.status(run, one.status, one.ended)
        return run

    def points(self, run: str, points: Sequence[MetricPoint]) -> None:
        """Write points of metrics, not more than MLflow takes in a call and some of one line."""
        names = self._names.setdefault(run, {})
        fresh = [point.key for point in points if point.key not in names]
        names |= dict.fromkeys(fresh, "")
        bad = {p.key: f"{p.value} at step {p.step}" for p in points if math.isinf(p.value)}
        if any(key_of(name) != name for name in fresh):
            self.tags(run, name_tags(sorted(names)))
        if bad:
            self.tags(run, {"mixopt.not_finite": json.dumps(bad)[:5000]})
        found = [_metric(point) for point in points]
        for at in range(0, len(found), METRICS_PER_CALL):
            self._client.log_batch(run, found[at : at + METRICS_PER_CALL])

    def artifact(self, run: str, file: Path, folder: str | None) -> None:
        """Keep a file with a run: in a folder, that of its kind where None is given.

        Raises:
            RunError: The database keeps files outside the folder that they may not leave, or a
                picture of a step is none.
        """
        if folder != IMAGES:
            self._keep(run, file, folder or FOLDERS.get(file.suffix))
            return
        with step_images(file) as pictures:
            for picture in pictures:
                self._keep(run, picture, IMAGES)
        self.tags(run, IMAGES_TAG)

    def tags(self, run: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        pairs = self._with_hint(tags).items()
        self._client.log_batch(run, tags=[RunTag(name, value) for name, value in pairs])

    def status(self, run: str, status: str, ended: int | None) -> None:
        """Set a run's status: running again, or ended at a time in milliseconds."""
        if status == "RUNNING":
            self._client.update_run(run, status=status)
        else:
            self._client.set_terminated(run, status, ended)

    def _with_hint(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return the tags, with a description that says where the files are found."""
        found = dict(tags)
        if self._within is not None and NOTE in found:
            found[NOTE] = f"{found[NOTE]}\n\n{HINT}"
        return found

    def _keep_environment(self, run: str, environment: Mapping[str, str]) -> None:
        with TemporaryDirectory() as folder:
            file = Path(folder, "environment.json")
            file.write_text(json.dumps(environment, indent=2), encoding="utf-8")
            self._keep(run, file, None)

    def _keep(self, run: str, file: Path, folder: str | None) -> None:
        """Keep a file where the run keeps files: what is relative, is so to the database."""
        if run not in self._places:
            self._places[run] = str(self._client.get_run(run).info.artifact_uri)
        location = self._places[run]
        if self._within is not None:
            _check_within(location, self._within, self._database)
        if self._database is None or not is_relative(location):
            self._client.log_artifact(run, str(file), folder)
            return
        place = local_path(location, self._database.resolve().parent)
        LocalArtifactRepository(place.as_uri()).log_artifact(str(file), folder)

    def _experiment_id(self, name: str, artifacts: Path | None) -> str:
        found = self._client.get_experiment_by_name(name)
        experiment = self._made(name, artifacts) if found is None else str(found.experiment_id)
        if self._database is not None:
            correct_places(self._database, experiment, own=self._within is not None)
        return experiment

    def _made(self, name: str, artifacts: Path | None) -> str:
        location = artifacts.resolve().as_uri() if artifacts else None
        try:
            return str(self._client.create_experiment(name, location, SHOWN_AS | view_tags()))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return str(self._client.get_experiment_by_name(name).experiment_id)

    def _inputs(self, run: str, datasets: Sequence[Mapping[str, Any]]) -> None:
        inputs = [
            DatasetInput(
                Dataset(
                    name=entry["name"],
                    digest=entry["digest"],
                    source_type="mixopt",
                    source=json.dumps(entry["source"]),
                    profile=json.dumps(entry["profile"]),
                ),
                [InputTag("mlflow.data.context", entry["context"])],
            )
            for entry in datasets
        ]
        if inputs:
            self._client.log_inputs(run, inputs)

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

    def _log(self, run: str, params: Mapping[str, str], metrics: list[Metric]) -> None:
        pairs = [Param(key_of(name), value) for name, value in params.items()]
        for at in range(0, max(len(pairs), 1), PARAMS_PER_CALL):
            first = metrics[:METRICS_PER_CALL] if at == 0 else []
            self._client.log_batch(run, first, pairs[at : at + PARAMS_PER_CALL])
        for at in range(METRICS_PER_CALL, len(metrics), METRICS_PER_CALL):
            self._client.log_batch(run, metrics[at : at + METRICS_PER_CALL])


def _check_within(location: str, folder: Path, database: Path | None = None) -> None:
    """Check where a database keeps the files of a run: the directory may be somebody else's.

    MLflow understands more kinds of addresses than a plain path; no other is let through.
    """
    parts = urlsplit(location)
    odd = parts.netloc or set(location) & {"?", "#"} or any(map(is_control, location))
    path = local_path(location, folder if database is None else database.resolve().parent)
    inside = path.is_absolute() and path.resolve().is_relative_to(folder.resolve())
    if parts.scheme not in ("", "file") or odd or not inside:
        raise RunError(
            f"{folder}: its database keeps files in {without_secrets(location)}, which is outside"
            " this folder; name the database to allow it: --uri"
        )


def _metric(point: MetricPoint) -> Metric:
    value = math.nan if math.isinf(point.value) else point.value
    return Metric(key_of(point.key), value, point.time, point.step)
