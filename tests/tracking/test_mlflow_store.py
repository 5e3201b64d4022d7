"""Where a database that came with a directory may keep files."""

import base64
import json
import re
import shutil
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from mixopt.errors import RunError

pytest.importorskip("mlflow")

from mixopt.tracking.database import first_use
from mixopt.tracking.journal import Wanted
from mixopt.tracking.mlflow_store import MlflowStore, _check_within
from mixopt.tracking.process import check_database

PAGE = Path(__file__).parents[2] / "docs" / "mlflow.md"


@pytest.mark.parametrize(
    "location",
    [
        "{outside}",
        "../outside",
        "file:../outside",
        "file://{outside}",
        "file://{inside}/../outside",
        "file://{inside}/%2e%2e/outside",
        "file://host/{inside}",
        "file://{inside}#/../../outside",
        "{inside}?x",
        "http://127.0.0.1/{inside}",
        "dbfs:{inside}",
        "models:/name",
        "fi\nle://{inside}",
    ],
)
def test_a_place_that_is_no_plain_path_in_the_run_is_refused(tmp_path, location):
    given = location.format(inside=tmp_path / "run", outside=tmp_path / "outside")
    with pytest.raises(RunError, match="outside this folder; name the database to allow it"):
        _check_within(given, tmp_path / "run")


def test_a_plain_path_in_the_run_is_allowed(tmp_path):
    kept = tmp_path / "a run #1" / "mlartifacts"
    _check_within(kept.as_uri(), tmp_path / "a run #1")
    _check_within(str(tmp_path / "run" / "mlartifacts"), tmp_path / "run")


def test_nothing_of_a_new_run_is_kept_where_a_foreign_database_says(tmp_path, empty_database):
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    shutil.copy(empty_database, run / "mlflow.db")
    with closing(sqlite3.connect(run / "mlflow.db")) as database:
        database.execute("UPDATE experiments SET artifact_location = ?", (outside.as_uri(),))
        database.commit()
    store = MlflowStore(f"sqlite:///{run / 'mlflow.db'}", "Default", None, run)
    wanted = Wanted("n", None, {}, {}, {"python": "3"}, [], started=1)
    with pytest.raises(RunError, match="outside this folder"):
        store.parent("key", "sweep", wanted)
    assert not outside.exists()


def test_a_folder_in_place_of_a_database_is_not_tried_for_minutes(tmp_path):
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(RunError, match="mlflow.db: is not a file; delete it"):
        check_database(tmp_path, tmp_path / "mlflow.db")


# MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_a_database_that_a_killed_process_left_half_made_is_made_anew(tmp_path):
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('451aebb31d03')")
        database.execute("create table spans (trace_id text)")
    with first_use(f"sqlite:///{path}"):
        store = MlflowStore(f"sqlite:///{path}", "again", None)
    assert not store.has("0" * 32)
    assert not list(tmp_path.glob("*.making*"))


def test_a_database_with_an_experiment_stays_as_it_is(empty_database, tmp_path):
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_database, path)
    before = path.read_bytes()
    with first_use(f"sqlite:///{path}"):
        assert path.read_bytes() == before


def test_an_experiment_that_is_made_has_a_view_of_outcomes_in_the_form_of_mlflow_s_page(
    tmp_path, empty_database
):
    from mlflow import MlflowClient

    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    MlflowStore(uri, "toy", tmp_path / "mlartifacts")
    tags = MlflowClient(tracking_uri=uri).get_experiment_by_name("toy").tags
    view = json.loads(tags["mlflow.sharedViewState.outcomes"])
    assert view["name"] == "Outcomes"
    packed = base64.b64decode(view["state"].removeprefix("deflate;"))
    state = json.loads(zlib.decompress(packed))
    assert state["orderByKey"] == "metrics.`outcome/validated_gain`"
    assert state["selectedColumns"][0] == state["orderByKey"]
    named = {column.split("`")[1] for column in state["selectedColumns"]}
    assert named <= set(re.findall(r"`((?:outcome|spent)/[a-z_]+)`", PAGE.read_text()))
