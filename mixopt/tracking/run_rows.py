"""The runs of many trials in MLflow's SQLite tables at once.

MLflow's client takes some 15 ms of CPU for a run of three calls, most of it for checks and objects;
of a sweep of 2,000 trials that is half a minute. Rows in one transaction take a tenth. What is
written is what the client writes (a test compares them, row by row), and only into tables of
exactly the columns that are known here: where a version of MLflow has others, or triggers on them,
the client is used.
"""

from __future__ import annotations

import math
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from mixopt.tracking.database import database_file
from mixopt.tracking.sent_trials import SentTrial

LARGEST = 1.7976931348623157e308  # what MLflow keeps of an infinity
BUSY_SECONDS = 30.0
_METRIC = ("key", "value", "timestamp", "step", "is_nan", "run_uuid")
COLUMNS = {
    "runs": (
        "run_uuid",
        "name",
        "source_type",
        "source_name",
        "entry_point_name",
        "user_id",
        "status",
        "start_time",
        "end_time",
        "source_version",
        "lifecycle_stage",
        "artifact_uri",
        "experiment_id",
        "deleted_time",
    ),
    "tags": ("key", "value", "run_uuid"),
    "params": ("key", "value", "run_uuid"),
    "metrics": _METRIC,
    "latest_metrics": _METRIC,
}
Rows = dict[str, list[Mapping[str, Any]]]


class RunRows:
    """Writes runs of trials to one experiment of a SQLite database."""

    def __init__(self, file: Path, experiment: str, artifacts: str) -> None:
        """Name the database's file, the experiment's id, and where it keeps files."""
        self._file, self._experiment, self._artifacts = file, experiment, artifacts

    @classmethod
    def of(cls, uri: str, experiment: str) -> Self | None:
        """Return the writer of an experiment; None where rows are left to the client."""
        file = database_file(uri)
        if file is None or not file.is_file():
            return None
        with closing(sqlite3.connect(file)) as database:
            if not _is_known(database):
                return None
            query = "select artifact_location from experiments where experiment_id = ?"
            found = database.execute(query, (int(experiment),)).fetchone()
        return cls(file, experiment, found[0]) if found and found[0] else None

    def write(
        self, key: str, parent: str, several: Sequence[SentTrial]
    ) -> list[tuple[SentTrial, str]]:
        """Write runs of trials that have none, in one transaction; return them with their ids."""
        made = [(one, uuid.uuid4().hex) for one in several]
        rows: Rows = {table: [] for table in COLUMNS}
        for one, run in made:
            self._add(rows, one, run, one.tags(key, parent))
        with closing(sqlite3.connect(self._file, timeout=BUSY_SECONDS)) as database, database:
            for table, content in rows.items():
                columns = COLUMNS[table]
                names = ", ".join(f":{name}" for name in columns)
                # The tables and columns are those above; values are bound.
                database.executemany(
                    f"insert into {table} ({', '.join(columns)}) values ({names})", content
                )
        return made

    def _add(self, rows: Rows, one: SentTrial, run: str, tags: Mapping[str, str]) -> None:
        rows["runs"].append(self._run(one, run))
        for table, pairs in (
            ("tags", {**tags, "mlflow.runName": one.trial.name}),
            ("params", one.params()),
        ):
            rows[table] += [{"key": k, "value": v, "run_uuid": run} for k, v in pairs.items()]
        points = {_identity(point): point for point in _points(one, run)}
        rows["metrics"] += points.values()
        rows["latest_metrics"] += _latest(list(points.values()))

    def _run(self, one: SentTrial, run: str) -> dict[str, Any]:
        return {
            "run_uuid": run,
            "name": one.trial.name,
            "source_type": "UNKNOWN",
            "source_name": "",
            "entry_point_name": "",
            "user_id": "unknown",
            "status": one.status,
            "start_time": one.started,
            "end_time": one.ended,
            "source_version": "",
            "lifecycle_stage": "active",
            "artifact_uri": f"{self._artifacts.rstrip('/')}/{run}/artifacts",
            "experiment_id": int(self._experiment),
            "deleted_time": None,
        }


def _is_known(database: sqlite3.Connection) -> bool:
    """Tell whether the tables have the known columns and nothing else happens on a write."""
    for table, columns in COLUMNS.items():
        found = database.execute(f"pragma table_info({table})").fetchall()
        if {row[1] for row in found} != set(columns):
            return False
    query = "select tbl_name from sqlite_master where type = 'trigger'"
    return not {name for (name,) in database.execute(query)} & set(COLUMNS)


def _points(one: SentTrial, run: str) -> list[dict[str, Any]]:
    return [
        {
            "key": key,
            "value": 0.0 if math.isnan(value) else max(min(value, LARGEST), -LARGEST),
            "timestamp": one.ended,
            "step": step,
            "is_nan": math.isnan(value),
            "run_uuid": run,
        }
        for key, value, step in one.metrics()
    ]


def _identity(point: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(point[name] for name in _METRIC)


def _latest(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return of each metric the last by step, time and value, as MLflow does."""
    found: dict[str, Mapping[str, Any]] = {}
    for point in points:
        known = found.get(point["key"])
        if known is None or _order(point) > _order(known):
            found[point["key"]] = point
    return list(found.values())


def _order(point: Mapping[str, Any]) -> tuple[int, int, float]:
    return point["step"], point["timestamp"], point["value"]
