"""Domains as a tree: nested under `corpus.domains`, or the cells of columns of their data.

A domain's name is its path, `web/science/high`; its prefixes `web` and `web/science` are branches.
A source with `by: [topic, quality]` is a branch, with a domain for each pair of values in its rows.
"""

import glob
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationInfo

from mixopt.config.sections import FILES
from mixopt.errors import did_you_mean
from mixopt.system import is_url, local_path, name_fault, shown_value, tree_fault, under_folder

_TABLES = {".parquet": "scan_parquet", ".jsonl": "scan_ndjson", ".csv": "scan_csv"}
MAX_CELLS = 10_000
MAX_REASON = 200  # characters of an error of Polars


def flat_domains(content: Any, info: ValidationInfo, fields: Collection[str]) -> Any:
    """Return domains by path, from nested domains or columns.

    Args:
        content: The content of `domains`.
        info: Validation info of the section; its context states whether files may be read.
        fields: The fields of a domain, which distinguish a domain from a branch.
    """
    if not isinstance(content, Mapping):
        return content
    flat: dict[str, Any] = {}
    for name, value in content.items():
        _add(flat, str(name), value, fields)
    may_read = (info.context or {}).get(FILES, True)
    for name, value in list(flat.items()):
        if isinstance(value, Mapping) and isinstance(value.get("by"), list):
            if not may_read:
                raise ValueError(f"{name}.by: a recorded configuration must list the cells")
            flat |= _cells(name, flat.pop(name), info.data.get("root"))
    clash = tree_fault(flat)
    if clash is not None:
        raise ValueError(f"{clash[0]!r} is a domain and the branch of {clash[1]!r}; rename one")
    return flat


def _add(flat: dict[str, Any], path: str, value: Any, fields: Collection[str]) -> None:
    inner = value if isinstance(value, Mapping) else {}
    stated = [name for name in inner if name in fields]
    parts = [
        name for name, part in inner.items() if name not in fields and isinstance(part, Mapping)
    ]
    if stated and parts:
        raise ValueError(
            f"{path!r} is a domain (it has {stated[0]!r}) and a branch (of {parts[0]!r});"
            " move its own text to a named domain below it"
        )
    if parts and len(parts) == len(inner):
        for name in parts:
            _add(flat, f"{path}/{name}", inner[name], fields)
    elif path in flat:
        raise ValueError(f"domain {path!r} is given twice")
    else:
        flat[path] = value


def _cells(branch: str, source: Mapping[str, Any], root: str | None) -> dict[str, Any]:
    """Return the domains of a source: one for each combination of values of its columns."""
    columns = [str(name) for name in source["by"]]
    for size in ("tokens", "bytes"):
        if size in source:
            raise ValueError(f"{branch}.{size}: each cell has its own; use corpus.inventory")
    values: set[tuple[str, ...]] = set()
    for file in _tables(branch, source, root):
        values |= _values(branch, file, columns)
    for cell in sorted(values):
        for value in cell:
            fault = name_fault(value)
            if fault:
                raise ValueError(
                    f"{branch}.by: a value cannot be part of a name: {shown_value(value)}: {fault}"
                )
    if len(values) > MAX_CELLS:
        raise ValueError(f"{branch}.by: {len(values)} cells; the maximum is {MAX_CELLS}")
    domains: dict[str, Any] = {}
    for cell in sorted(values):
        path = "/".join((branch, *cell))
        domains[path] = {**source, "by": dict(zip(columns, cell, strict=True))}
    return domains


def _tables(branch: str, source: Mapping[str, Any], root: str | None) -> list[Path]:
    source_paths = source.get("data_files") or source.get("path") or []
    patterns = [source_paths] if isinstance(source_paths, str) else list(source_paths)
    if "data_files" in source and root is not None:
        patterns = [under_folder(root, pattern) for pattern in patterns]
    paths: list[Path] = []
    for pattern in patterns:
        path = "" if is_url(pattern) else str(local_path(pattern))
        files = f"{path}/**/*" if Path(path).is_dir() and path else path
        matched = sorted(glob.glob(files, recursive=True))
        paths += [Path(file) for file in matched if Path(file).suffix in _TABLES]
    if not paths:
        raise ValueError(
            f"{branch}.by: {', '.join(patterns) or 'no path'}: no {', '.join(_TABLES)} file here to"
            f" read columns from; name cells one by one, as {branch}/VALUE: {{by: {{COLUMN:"
            " VALUE}}"
        )
    return paths


def _values(branch: str, file: Path, columns: list[str]) -> set[tuple[str, ...]]:
    import polars as pl

    try:
        table: pl.LazyFrame = getattr(pl, _TABLES[file.suffix])(file)
        columns_of_file = table.collect_schema().names()
        for name in columns:
            if name not in columns_of_file:
                near = did_you_mean(name, columns_of_file)
                raise ValueError(f"{branch}.by: {file}: no column {name!r}{near}")
        rows = table.select(pl.col(columns).cast(pl.String)).unique().collect().rows()
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = " ".join(str(error).split())[:MAX_REASON]
        raise ValueError(f"{branch}.by: {file}: {reason}") from error
    for place, name in enumerate(columns):
        if not all(row[place] and row[place].strip() for row in rows):
            raise ValueError(
                f"{branch}.by: {file}: rows without a value in column {name!r}; fill them in,"
                " or remove these rows"
            )
    return set(rows)
