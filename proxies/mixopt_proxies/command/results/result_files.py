"""Find the files that a trial's result is in, and read them, each by its own kind.

| result | read as |
|---|---|
| `.json` | JSON, names nested by dots |
| `.jsonl`, `.ndjson` | one mapping a line |
| `.csv`, `.tsv` | a table with a header |
| `*.tfevents.*`, or a folder with some | TensorBoard; a folder within it is part of the name |
| `.wandb`, or a folder with one | a W&B run |
| `.db`, `.sqlite`, or a folder of MLflow's | an MLflow run |

Where a glob matches several files, the path of each, without suffix, is part of its names:
`eval/web.json` with a `loss` has `eval/web/loss`. Event files are taken together, as TensorBoard
does with those of one folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from mixopt.errors import RunError, did_you_mean
from mixopt.system import inside
from mixopt_proxies.command.results.event_files import MARK, read_event_file
from mixopt_proxies.command.results.logged_values import LoggedValues
from mixopt_proxies.command.results.mlflow_runs import file_runs, read_database, read_file_run
from mixopt_proxies.command.results.text_logs import (
    read_json_lines,
    read_json_log,
    read_table_log,
)
from mixopt_proxies.command.results.wandb_files import read_wandb_file

_READERS: dict[str, Callable[[Path], LoggedValues]] = {
    ".json": read_json_log,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_table_log,
    ".tsv": read_table_log,
    ".wandb": read_wandb_file,
    ".db": read_database,
    ".sqlite": read_database,
}
KINDS = "JSON, JSONL, CSV, event files of TensorBoard, a W&B or MLflow run"
_MOST_LISTED = 8  # files that an error names


def find_result(folder: Path, result: str, given: Collection[str] = ()) -> list[Path]:
    """Return the files and folders of a trial that `result` names, sorted.

    Args:
        folder: Where the command ran.
        result: A path in it, or a glob.
        given: Files that were there before.

    Raises:
        RunError: There is none, or one leads out of the folder.
    """
    exact = folder / result
    found = [exact] if exact.exists() else sorted(folder.glob(result))
    if not found:
        written = [path.relative_to(folder).as_posix() for path in _files(folder)]
        there = [name for name in written if name not in given][:_MOST_LISTED]
        near = did_you_mean(result, there) if there else "; it wrote nothing there"
        raise RunError(f"{folder}: the command wrote no {result!r}{near}")
    return [inside(folder, path.relative_to(folder).as_posix(), RunError) for path in found]


def read_result(folder: Path, paths: list[Path]) -> LoggedValues:
    """Read the files of a result together.

    Args:
        folder: Where the command ran.
        paths: What `find_result` found there.

    Raises:
        RunError: One cannot be read or is of no kind that is known, or two say different things
            of themselves.
    """
    found = LoggedValues()
    for path in paths:
        prefix = "" if len(paths) == 1 or MARK in path.name else _stem(path.relative_to(folder))
        for values in _read(path):
            for name, points in values.series.items():
                found.series.setdefault(prefix + name, []).extend(points)
            for name, value in values.said.items():
                if found.said.setdefault(name, value) != value:
                    both = f"{found.said[name]!r} in one file and {value!r} in {path.name}"
                    raise RunError(f"{folder}: {name} is {both}; name one as 'result'")
    return found


def _read(path: Path) -> Iterator[LoggedValues]:
    if path.is_dir():
        yield from _read_folder(path)
    elif MARK in path.name:
        yield read_event_file(path)
    elif path.suffix.lower() in _READERS:
        yield _READERS[path.suffix.lower()](path)
    else:
        raise RunError(f"{path}: is not a kind of result that can be read: {KINDS}")


def _read_folder(folder: Path) -> Iterator[LoggedValues]:
    files = list(_files(folder))
    events = [path for path in files if MARK in path.name]
    runs = [path for path in files if path.suffix == ".wandb"]
    databases = [path for path in files if path.name == "mlflow.db"]
    if events:
        for path in events:
            inner = path.parent.relative_to(folder).as_posix()
            yield read_event_file(path, "" if inner == "." else f"{inner}/")
    elif len(runs) > 1:
        raise RunError(f"{folder}: holds {len(runs)} W&B runs; log a trial to one")
    elif runs:
        yield read_wandb_file(runs[0])
    elif databases:
        yield read_database(databases[0])
    elif file_runs(folder):
        yield read_file_run(folder)
    else:
        raise RunError(f"{folder}: holds no result that can be read as a folder: {KINDS}")


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, links to folders not followed."""
    for place, inner, names in os.walk(folder):
        inner.sort()
        yield from (Path(place, name) for name in sorted(names))


def _stem(path: Path) -> str:
    return f"{path.with_suffix('').as_posix()}/"
