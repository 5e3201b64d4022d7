"""Read the metrics of an MLflow run, from a folder of files or from a SQLite database.

    mlruns/<experiment>/<run>/metrics/<name>     lines of time stamp, value and step
    mlruns/<experiment>/<run>/params/<name>      a text
    mlflow.db                                    tables `metrics` and `params`

Both forms are MLflow's own since 1.0. They are read as they are: the client takes seconds to
import, and upgrades a database that it opens.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mixopt.errors import RunError
from mixopt.system import read_text
from mixopt_proxies.command.results.logged_values import OF_ITSELF, LoggedPoint, LoggedValues

Line = tuple[str, float, int]  # name, value, step


def file_runs(folder: Path) -> list[Path]:
    """Return the runs of a folder of files that have metrics; it may be a run itself."""
    found = [path.parent for path in (folder, *folder.rglob("*")) if path.name == "metrics"]
    if (folder / "metrics").is_dir():
        found = [folder]
    return sorted({run for run in found if (run / "meta.yaml").is_file()})


def read_file_run(folder: Path) -> LoggedValues:
    """Read a run that is a folder of files; the only one that is in `folder`, or `folder` itself.

    Raises:
        RunError: There are several, or a file is not as MLflow writes it.
    """
    (run,) = _only(file_runs(folder), folder)
    metrics = run / "metrics"
    lines: list[Line] = []
    for path in sorted(path for path in metrics.rglob("*") if path.is_file()):
        name = path.relative_to(metrics).as_posix()
        lines += [_line(name, line, path) for line in _lines(path)]
    said = {name: read_text(run / "params" / name, error=RunError) for name in OF_ITSELF
            if (run / "params" / name).is_file()}  # fmt: skip
    return _values(lines, said)


def read_database(path: Path) -> LoggedValues:
    """Read the only run of a database that has metrics.

    Raises:
        RunError: There are several, or it is no database of MLflow's.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
            runs = [row[0] for row in database.execute("SELECT DISTINCT run_uuid FROM metrics")]
            (run,) = _only(runs, path)
            metrics = database.execute(
                "SELECT key, value, step, is_nan FROM metrics WHERE run_uuid = ?"
                " ORDER BY step, timestamp",
                (run,),
            ).fetchall()
            params = database.execute(
                "SELECT key, value FROM params WHERE run_uuid = ?", (run,)
            ).fetchall()
    except sqlite3.Error as error:
        raise RunError(f"{path}: is not a database of MLflow: {error}") from error
    lines = [(str(k), float("nan") if nan else float(v), int(step)) for k, v, step, nan in metrics]
    return _values(lines, {str(k): v for k, v in params if k in OF_ITSELF})


def _only(runs: list[Any], where: Path) -> list[Any]:
    if len(runs) == 1:
        return runs
    how_many = f"{len(runs)} runs have" if runs else "no run has"
    raise RunError(f"{where}: {how_many} metrics; log the losses of a trial to one run")


def _lines(path: Path) -> Iterable[str]:
    return (line for line in read_text(path, error=RunError).splitlines() if line.strip())


def _line(name: str, line: str, path: Path) -> Line:
    fields = line.split()
    try:
        return name, float(fields[1]), int(fields[2]) if len(fields) > 2 else 0
    except (ValueError, IndexError) as error:
        raise RunError(f"{path}: {line[:60]!r} is not a time stamp, value and step") from error


def _values(lines: list[Line], said: dict[str, Any]) -> LoggedValues:
    found = LoggedValues(said=said)
    for name, value, step in lines:
        found.series.setdefault(name, []).append(LoggedPoint(value, step))
    return found
