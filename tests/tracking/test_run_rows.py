"""Rows of trials in MLflow's tables are those that its client writes."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from mixopt.mixture import Mixture
from mixopt.tracking.run_rows import COLUMNS, RunRows
from mixopt.tracking.sent_trials import read_sent_trial
from mixopt.trials import Losses, Trial, TrialFolder, TrialResult

pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def sent_trials(path):
    """Return trials that finished, with a curve and an odd name, and one that diverged."""
    trials, results = [], []
    for number, name in enumerate(("t0", "t1", "t 2: ü")):
        trials.append(Trial(name, Mixture({"web": 0.25, "c++": 0.75}), seed=number))
        curve = tuple(
            Losses(at, {"web": 1 / at, "c++": float(number)}, {"web": 1.0, "c++": 0.5})
            for at in (500, 1000)
        )
        result = TrialResult(name, "finished", 1000, 42, 2.0, curve[-1], curve)
        if name == "t1":
            result = TrialResult(name, "diverged", 500, 42, 0.0, reason="loss is nan")
        results.append(result)
    TrialFolder(path / "trials").write(0, trials, results)
    return [read_sent_trial(path, file) for file in sorted((path / "trials").glob("t*.json"))]


def rows(file):
    """Return the rows of each table, runs by their names."""
    with closing(sqlite3.connect(file)) as database:
        names = dict(database.execute("select run_uuid, name from runs"))

        def plain(value):
            for run, name in names.items():
                value = value.replace(run, name) if isinstance(value, str) else value
            return value

        return {
            table: sorted(
                (
                    tuple(map(plain, row))
                    for row in database.execute(f"select {', '.join(c)} from {table}")
                ),
                key=repr,
            )
            for table, c in COLUMNS.items()
        }


def test_rows_are_those_of_the_client(tmp_path, empty_database):
    from mixopt.tracking.mlflow_store import MlflowStore

    several, kept = sent_trials(tmp_path), tmp_path / "mlartifacts"
    found = []
    for name in ("client", "rows"):
        file = tmp_path / f"{name}.db"
        shutil.copy(empty_database, file)
        store = MlflowStore(f"sqlite:///{file}", "toy", kept)
        assert store._rows is not None
        store._rows = store._rows if name == "rows" else None
        done = list(store.trials("key", "parent", several))
        assert [one for one, _ in done] == several
        assert list(store.trials("key", "parent", several)) == done, "none is made twice"
        found.append(rows(file))
    assert found[1] == found[0]
    assert all(found[0].values())


@pytest.mark.parametrize(
    "change",
    [
        "alter table runs add column more text",
        "create trigger t after insert on params begin delete from params; end",
    ],
)
def test_tables_that_are_not_known_are_left_to_the_client(tmp_path, empty_database, change):
    file = tmp_path / "mlflow.db"
    shutil.copy(empty_database, file)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "insert into experiments (name, artifact_location, lifecycle_stage) values (?, ?, ?)",
            ("toy", "file:///a", "active"),
        )
        (experiment,) = database.execute("select max(experiment_id) from experiments").fetchone()
    assert RunRows.of(f"sqlite:///{file}", str(experiment)) is not None
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(change)
    assert RunRows.of(f"sqlite:///{file}", str(experiment)) is None
    assert RunRows.of("http://127.0.0.1:9", "1") is None
