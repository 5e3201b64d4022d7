"""Where a SQLite database of MLflow's keeps files: by a relative path, so that both can be moved.

MLflow makes every local path absolute as it makes an experiment, and then a folder that is moved,
copied from a cluster or mounted elsewhere shows no files. It reads relative paths all the same,
from the working directory of whoever reads: `mlflow ui --backend-store-uri sqlite:///mlflow.db`,
started in the folder of the database, finds them. So the path is made relative here, by one
statement on the tables that MLflow has made, and what is written is written beside the database.

An absolute path of an older version is made relative too where it is of a run directory's own
database, and where the folder that it names is gone and the same folder lies beside the database.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mixopt.tracking.sender_settings import ARTIFACTS

BUSY_SECONDS = 30.0


def make_relative(database: Path, experiment: str, *, own: bool) -> None:
    """Make the path of an experiment's files relative to its database, if they are beside it.

    Args:
        database: The file, with MLflow's tables.
        experiment: MLflow's id.
        own: Whether it is a run directory's own.
    """
    with closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as opened, opened:
        query = "select artifact_location from experiments where experiment_id = ?"
        row = opened.execute(query, (int(experiment),)).fetchone()
        location = row[0] if row else None
        if not location or not _belongs(location, database.resolve().parent / ARTIFACTS, own=own):
            return
        opened.execute(
            "update experiments set artifact_location = ? where experiment_id = ?",
            (ARTIFACTS, int(experiment)),
        )
        opened.execute(
            "update runs set artifact_uri = ? || substr(artifact_uri, ?)"
            " where experiment_id = ? and substr(artifact_uri, 1, ?) = ?",
            (ARTIFACTS, len(location) + 1, int(experiment), len(location) + 1, f"{location}/"),
        )


def local_path(location: str, folder: Path) -> Path:
    """Return the path that a location is of: one that is relative, from the database's folder."""
    parts = urlsplit(location)
    return folder / (unquote(parts.path) if parts.scheme else location)


def is_relative(location: str) -> bool:
    """Tell whether a location is a path that is relative."""
    return not urlsplit(location).scheme and not Path(location).is_absolute()


def _belongs(location: str, beside: Path, *, own: bool) -> bool:
    """Tell whether a location is the folder beside the database, now or before a move."""
    if urlsplit(location).scheme not in ("", "file") or is_relative(location):
        return False
    path = local_path(location, beside.parent)
    if path.resolve() == beside:
        return own
    return path.name == ARTIFACTS and not path.exists() and beside.is_dir()
