"""A SQLite database of MLflow's: made by one process while the others wait.

MLflow makes its tables without a lock: of eight processes that begin on a new file, seven fail
(`table experiments already exists`). Writers do not block readers in the journal mode that is set
here; it stays with the file, and is not for network file systems.

MLflow makes its tables in steps, and fails for good on a file in which a killed process made some
of them. So they are made in a file of another name first, and what is half made is made again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

PREFIX = "sqlite:///"


def database_file(uri: str) -> Path | None:
    """Return the file of a database, or None of a server."""
    return Path(uri.removeprefix(PREFIX)) if uri.startswith(PREFIX) else None


def anywhere(uri: str) -> str:
    """Return the name of a store that holds in any working directory."""
    file = database_file(uri)
    return uri if file is None else f"{PREFIX}{file.resolve()}"


@contextmanager
def first_use(uri: str) -> Iterator[None]:
    """Have a database to oneself while it is opened first; a server needs nothing."""
    file = database_file(uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("ab") as stream:
        _wait_for_lock(stream.fileno())
        if not file.exists() or _is_half_made(file):
            _make(file)
        yield


def _make(file: Path) -> None:
    """Make a database with MLflow's tables, at once."""
    from mlflow import MlflowClient

    temporary = file.with_name(f"{file.name}.making")
    temporary.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"{PREFIX}{temporary.resolve()}").search_experiments(max_results=1)
    os.replace(temporary, file)
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode=WAL")


def _is_half_made(file: Path) -> bool:
    """Tell whether MLflow did not come to its end: it makes the first experiment last of all."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("select name from sqlite_master")}
            if "experiments" not in tables:
                return tables <= {"alembic_version"} or "alembic_version" in tables
            return database.execute("select 1 from experiments limit 1").fetchone() is None
    except sqlite3.Error:
        return False  # MLflow says what is wrong with it


def _wait_for_lock(descriptor: int) -> None:
    """Lock a file when the process that has it is done; nothing where there are no locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except (ImportError, OSError):
        return
