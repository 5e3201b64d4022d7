"""Make, open and lock a run directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from mixopt.errors import RunError, is_control
from mixopt.run_directory.run import Run
from mixopt.run_directory.step import STEPS
from mixopt.system import (
    check_links,
    check_sealed_text,
    is_leftover,
    only_one,
    read_bytes,
    sealed_text,
    write_text,
)

if TYPE_CHECKING:
    from mixopt.config import Config

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


RECORD = "config.yaml"
MAX_RUNS = 20  # that a message lists
HEADER = "The resolved configuration of this run; written by mixopt."


def open_run(
    config: Config,
    path: str | Path,
    *,
    source: str = "",
    redo: str | None = None,
    trust: bool = False,
) -> Run:
    """Make the run directory, or open one that is of the same configuration."""
    run = Run(Path(path), config, source, trust)
    record = run.path / RECORD
    if redo is not None:
        run.check_before(redo)
        run.discard(redo, files=not run.only_reads_otherwise)
    if record.exists():
        for step in STEPS:
            run.is_done(step.name)
    text = sealed_text(yaml.safe_dump(run.content, sort_keys=False, allow_unicode=True), HEADER)
    if not record.exists() or read_bytes(record) != text.encode():
        write_text(record, text)
    return run


@contextmanager
def working_in(path: Path) -> Iterator[None]:
    """Have a run directory to oneself while the block runs."""
    _check_path(path)
    found = path.iterdir() if path.is_dir() else ()
    others = [e.name for e in found if not (is_leftover(e.name) or is_of_mlflow(e))]
    if others and not (path / RECORD).exists():
        raise RunError(f"{path}: is not empty and not a run directory; use another --out")
    with only_one(path):
        yield


def _check_path(path: Path) -> None:
    """Check that a database or a URL with this path names this directory, and no other."""
    text = str(path.absolute())
    odd = next((one for one in text if one in "?#%" or is_control(one)), None)
    if odd is not None:
        raise RunError(f"{text}: a run directory's path cannot have {odd!r}; use another --out")


def load_run(path: str | Path, *, trust: bool = False) -> Run:
    """Open a run directory to look at what it holds.

    Nothing that the directory names is imported, and no link in it that leads out is followed,
    unless it is trusted.

    Args:
        path: The directory.
        trust: Whether its maker is trusted.

    Raises:
        RunError: The directory is not a run's, its record has changed, or a link leads out of it.
    """
    from mixopt.config import load_config

    path = Path(path)
    record = path / RECORD
    if not record.exists():
        raise RunError(f"{path}: has no config.yaml; {_instead_of(path)}")
    if not trust:
        check_links(path)
    mend = (
        "edit the file that the run was made from, and rewrite this one: mixopt run CONFIG --out "
        f"{path}"
    )
    check_sealed_text(record, HEADER, mend=mend)
    return Run(path, load_config(record, trust=trust), str(record), trust)


def _instead_of(path: Path) -> str:
    """Say what to do where a directory is not a run's: it may be one of several runs."""
    runs = sorted(record.parent.name for record in path.glob(f"*/{RECORD}"))
    if runs:
        return f"give one of the runs in it: {', '.join(runs[:MAX_RUNS])}"
    return f"create it with mixopt run CONFIG --out {path}"
