"""Where a SQLite database of MLflow's keeps files: so that a run directory can be moved.

MLflow makes every local path absolute as it makes an experiment, and then a folder that is moved,
copied from a cluster or mounted elsewhere shows no files. It reads relative paths all the same,
from the working directory of whoever reads: `mlflow ui --backend-store-uri sqlite:///mlflow.db`,
started in the folder of the database, finds them. So in a run directory's own database the path is
made relative here, by one statement on the tables that MLflow has made, and what is written is
written beside the database.

A database that the user names is not moved with a run, and read from anywhere: its paths stay
absolute. Where the folder that an absolute path names is gone, and the same folder lies beside the
database, it was moved: then the path is corrected, in each of the two in its own way.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mixopt.tracking.sender_settings import ARTIFACTS

BUSY_SECONDS = 30.0
# Shown with each run of a run directory's own database, where a reader looks for the files.
HINT = (
    "No files under Artifacts? Start `mlflow ui --backend-store-uri sqlite:///mlflow.db` in the run"
    " directory: paths are relative to it, so that it can be moved."
)


def correct_places(database: Path, experiment: str, *, own: bool) -> None:
    """Correct the path of an experiment's files, if they are beside its database.

    Args:
        database: The file, with MLflow's tables.
        experiment: MLflow's id.
        own: Whether it is a run directory's own: its paths are relative.
    """
    with closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as opened, opened:
        query = "select artifact_location from experiments where experiment_id = ?"
        row = opened.execute(query, (int(experiment),)).fetchone()
        location = row[0] if row else None
        beside = database.resolve().parent / ARTIFACTS
        if not location or not _is_wrong(location, beside, own=own):
            return
        place = ARTIFACTS if own else beside.as_uri()
        opened.execute(
            "update experiments set artifact_location = ? where experiment_id = ?",
            (place, int(experiment)),
        )
        opened.execute(
            "update runs set artifact_uri = ? || substr(artifact_uri, ?)"
            " where experiment_id = ? and substr(artifact_uri, 1, ?) = ?",
            (place, len(location) + 1, int(experiment), len(location) + 1, f"{location}/"),
        )


def local_path(location: str, folder: Path) -> Path:
    """Return the path that a location is of: one that is relative, from the database's folder."""
    parts = urlsplit(location)
    return folder / (unquote(parts.path) if parts.scheme else location)


def is_relative(location: str) -> bool:
    """Tell whether a location is a path that is relative."""
    return not urlsplit(location).scheme and not Path(location).is_absolute()


def _is_wrong(location: str, beside: Path, *, own: bool) -> bool:
    """Tell whether a location is the folder beside the database: before a move, or in full."""
    if urlsplit(location).scheme not in ("", "file") or is_relative(location):
        return False
    path = local_path(location, beside.parent)
    if path.resolve() == beside:
        return own
    return path.name == ARTIFACTS and not path.exists() and beside.is_dir()
