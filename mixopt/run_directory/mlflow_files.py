"""What an MLflow server leaves in the directory where it was started, before there is a run in it.

`mlflow server` and `mlflow ui` make a database and folders of artifacts where they are started. A
run's own record goes into the same database, which it adds to as any client does.
"""

from __future__ import annotations

from pathlib import Path

DATABASE = "mlflow.db"
_BESIDE = tuple(f"{DATABASE}{end}" for end in ("-wal", "-shm", "-journal"))  # SQLite's own
_FOLDERS = ("mlartifacts", "mlruns")
_SQLITE = b"SQLite format 3\0"


def is_of_mlflow(path: Path) -> bool:
    """Tell whether a file or folder is one that MLflow makes; links are none."""
    if path.is_symlink():
        return False
    if path.is_dir():
        return path.name in _FOLDERS
    if path.name == DATABASE:
        return _is_sqlite(path)
    return path.name in _BESIDE and _is_sqlite(path.with_name(DATABASE))


def _is_sqlite(path: Path) -> bool:
    """Tell whether a file is a database, or one that is not begun yet."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) in (_SQLITE, b"")
    except OSError:
        return False
