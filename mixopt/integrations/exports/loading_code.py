"""Python that loads a domain with `datasets.load_dataset`, written and read back.

Code is parsed with `ast` and never run: names, calls and literals are all that is looked at.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from mixopt.errors import ConfigError, MixtureError
from mixopt.integrations.exports.export_tool import Entry, Weighed
from mixopt.integrations.exports.facts import Facts

# Builders of `datasets` by the suffix of their files.
_BUILDERS = {
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    ".txt": "text",
}
_PACKED = {".gz", ".zst", ".xz", ".bz2"}


def loading_call(entry: Entry, facts: Facts) -> str:
    """Return the call that loads a domain: its files, or a folder or hub dataset by its name.

    Raises:
        ConfigError: Several paths whose suffix says not what they are.
    """
    builder = builder_of(entry.paths[0])
    if builder is not None:
        files = list(entry.paths)
        return f'load_dataset("{builder}", data_files={files!r}, split="train", streaming=True)'
    if len(entry.paths) > 1:
        raise ConfigError(
            f"{facts.tool}: domain {entry.domain!r}: {entry.paths[0]!r} does not show its format; "
            f"give one folder, or files that end with {', '.join(_BUILDERS)}"
        )
    return f'load_dataset({entry.paths[0]!r}, split="train", streaming=True)'


def builder_of(path: str) -> str | None:
    """Return the builder of `datasets` for a file, by its suffix; None for a folder or a name."""
    suffixes: Sequence[str] = PurePosixPath(path).suffixes
    last = next((suffix for suffix in reversed(suffixes) if suffix not in _PACKED), "")
    return _BUILDERS.get(last)


def bare_name(path: str) -> str:
    """Return the last part of a path without the suffixes of files of text."""
    last = PurePosixPath(path.replace("\\", "/"))
    while last.suffix in _PACKED | _BUILDERS.keys() and last.stem:
        last = PurePosixPath(last.stem)
    return last.name


def parsed(text: str, where: str) -> ast.Module:
    """Return Python as a tree.

    Raises:
        MixtureError: It is no Python.
    """
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        line = getattr(error, "lineno", None) or 1
        raise MixtureError(f"{where}:{line}: cannot be read as Python: {reason}") from None


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    """Yield the calls of functions or classes by these names, in the order of the text."""
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and called(n) in names]
    yield from sorted(found, key=lambda call: (call.lineno, call.col_offset))


def called(call: ast.Call) -> str:
    """Return the last name of what a call calls."""
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def argument(call: ast.Call, name: str, place: int | None = None) -> ast.expr | None:
    """Return an argument by keyword, or by place."""
    by_name = next((word.value for word in call.keywords if word.arg == name), None)
    if by_name is None and place is not None and len(call.args) > place:
        return call.args[place]
    return by_name


def literal(node: ast.expr | None, tree: ast.Module) -> Any:
    """Return the value of a literal, or of a name that is assigned one; None for others."""
    if isinstance(node, ast.Name):
        node = assigned(node, tree)
    try:
        return None if node is None else ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def assigned(name: ast.Name, tree: ast.Module) -> ast.expr | None:
    """Return what was assigned to a name last, on a line before the one where it stands."""
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.lineno < name.lineno
        if any(isinstance(one, ast.Name) and one.id == name.id for one in _targets(node))
    ]
    return max(found, key=lambda node: node.lineno).value if found else None


def _targets(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def loaded_from(call: ast.Call, tree: ast.Module) -> tuple[str, ...]:
    """Return the files or the name that a `load_dataset` call loads."""
    files = literal(argument(call, "data_files"), tree)
    if isinstance(files, dict):
        files = files.get("train")
    if isinstance(files, str):
        return (files,)
    if isinstance(files, (list, tuple)) and files:
        return tuple(map(str, files))
    name = literal(argument(call, "path", 0), tree)
    return (name,) if isinstance(name, str) else ()


def interleaved(text: str, facts: Facts) -> list[Weighed]:
    """Return what `interleave_datasets(..., probabilities=[...])` has.

    Raises:
        MixtureError: There is no such call, or its arguments cannot be read.
    """
    tree = parsed(text, facts.tool)
    found = [c for c in calls(tree, "interleave_datasets") if argument(c, "probabilities", 1)]
    if len(found) != 1:
        raise MixtureError(
            f"{facts.tool}: expected one interleave_datasets(..., probabilities=[...]), found"
            f" {len(found)}"
        )
    chances = literal(argument(found[0], "probabilities", 1), tree)
    sources = _sources(argument(found[0], "datasets", 0), tree, facts.tool)
    if not isinstance(chances, (list, tuple)) or len(chances) != len(sources):
        raise MixtureError(
            f"{facts.tool}: probabilities must be a list of numbers, one for each of"
            f" {len(sources)} datasets"
        )
    return [Weighed(names, chance) for names, chance in zip(sources, chances, strict=True)]


def _sources(node: ast.expr | None, tree: ast.Module, where: str) -> list[tuple[str, ...]]:
    """Return the datasets of a list by what they load; else by the name of their variable."""
    if isinstance(node, ast.Name):
        node = assigned(node, tree)
    if isinstance(node, ast.ListComp):
        return _sources(node.generators[0].iter, tree, where)
    if not isinstance(node, (ast.List, ast.Tuple)):
        return [loaded_from(call, tree) or ("",) for call in calls(tree, "load_dataset")]
    return [_source(element, tree, where) for element in node.elts]


def _source(node: ast.expr, tree: ast.Module, where: str) -> tuple[str, ...]:
    """Return what a dataset loads, else what it is called: `web`, `data["web"]`, `load_web()`."""
    value = assigned(node, tree) if isinstance(node, ast.Name) else node
    loads = [] if value is None else list(calls(value, "load_dataset"))
    if loads and loaded_from(loads[0], tree):
        return loaded_from(loads[0], tree)
    if isinstance(node, ast.Name):
        return (node.id,)
    name = literal(node.slice, tree) if isinstance(node, ast.Subscript) else None
    if isinstance(node, ast.Call):
        name = called(node)
    if isinstance(name, str) and name:
        return (name,)
    raise MixtureError(f"{where}:{node.lineno}: the name of a dataset cannot be read; write it out")
