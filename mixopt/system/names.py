"""Names from data: their rule, safe paths from names, and patterns of names."""

import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from numbers import Number
from pathlib import Path
from typing import TypeVar

from mixopt.errors import ConfigError, ErrorType, RunError, did_you_mean, is_control

Value = TypeVar("Value")

MAX_BITS = 128  # of an integer in a message
LONGEST_NAME = 200  # bytes; file systems allow 255, including suffixes and temporary names
MAX_SHOWN = 80  # characters of a value in a message
WILD = "*?["


def check_name(name: object, kind: str, error: ErrorType = ConfigError) -> str:
    """Return a name after checking it."""
    return _checked(name, name_fault(name), kind, error)


def check_names(names: Iterable[object], kind: str, error: ErrorType = ConfigError) -> None:
    """Check each of several names (`check_name`)."""
    for name in names:
        check_name(name, kind, error)


def name_fault(name: object) -> str | None:
    """Return what is wrong with a name, or None."""
    if not isinstance(name, str):
        return f"a name is text, not {type(name).__name__}"
    return _text_fault(name)


def check_path(name: object, kind: str, error: ErrorType = ConfigError) -> str:
    """Return the name of a domain after checking it with `path_fault`."""
    return _checked(name, path_fault(name), kind, error)


def _checked(name: object, fault: str | None, kind: str, error: ErrorType) -> str:
    if fault is not None:
        raise error(f"{kind} {shown_value(name)}: {fault}; rename it")
    return str(name)


def path_fault(name: object) -> str | None:
    """Return what is wrong with a path of names such as `web/science/high`, or None."""
    if not isinstance(name, str) or len(name.encode(errors="replace")) > LONGEST_NAME:
        return name_fault(name)
    for part in name.split("/"):
        fault = name_fault(part)
        if fault is not None:
            return fault
    return None


def tree_fault(names: Iterable[str]) -> tuple[str, str] | None:
    """Return a domain that is also a branch, and a domain below it."""
    domains = set(names)
    for name in names:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            branch = "/".join(parts[:depth])
            if branch in domains:
                return branch, name
    return None


def below_branch(branch: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names below a branch of a tree: `web/science/high` is below `web`."""
    return tuple(name for name in names if name.startswith(f"{branch}/"))


@lru_cache(maxsize=4096)
def _text_fault(name: str) -> str | None:
    if not name.strip():
        return "a name has at least one character that is not a space"
    if "/" in name or "\\" in name:
        return "a name has no '/' and no '\\'"
    if name.startswith("."):
        return "a name does not begin with '.'"
    if any(is_control(character) for character in name):
        return "a name has no control characters"
    size = len(name.encode())
    if size > LONGEST_NAME:
        return f"a name has at most {LONGEST_NAME} bytes, not {size}"
    return None


def shown_value(value: object) -> str:
    """Return an untrusted value as one short line of printable characters."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, Number):
        return str(value)
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    text = repr(value)
    if len(text) > MAX_SHOWN:
        return f"{text[: MAX_SHOWN - 4]}...{text[-1]}"
    return text


def inside(folder: Path, name: str | Path, error: ErrorType = RunError) -> Path:
    """Return the path of a file named by data, inside `folder`."""
    path = below(folder, name, error)
    try:
        root, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError) as reason:  # a circle of links
        text = shown_value(str(name))
        raise error(f"{folder}: {text} cannot be resolved: {reason}") from reason
    if not target.is_relative_to(root):
        raise error(f"{folder}: {shown_value(str(name))} is outside this folder; it is not read")
    return path


def below(folder: Path, name: str | Path, error: ErrorType = RunError) -> Path:
    """Return the path of a file named by data, without resolving links."""
    text = str(name)
    if "\\" in text or any(is_control(character) for character in text):
        raise error(f"{folder}: {shown_value(text)} is not a file name")
    if Path(text).is_absolute() or ".." in Path(text).parts:
        raise error(f"{folder}: {shown_value(text)} is outside this folder; it is not read")
    return folder / text


def check_links(folder: Path, error: ErrorType = RunError) -> None:
    """Raise if a symbolic link in a folder, at any depth, leads out of it."""
    root = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(parent, name)
            if path.is_symlink() and not _leads_into(path, root):
                target = shown_value(os.readlink(path))
                raise error(
                    f"{path}: is a link to {target}, outside this directory; if you trust whoever"
                    " made it, add --trust (in Python trust=True)"
                )


def _leads_into(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a circle of links leads nowhere
        return True


def is_glob(pattern: str) -> bool:
    """Return whether a pattern has wildcards."""
    return any(character in pattern for character in WILD)


def chosen(pattern: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names that match a name, branch or glob, in order."""
    if pattern in names:
        return (pattern,)
    if not is_glob(pattern):
        return below_branch(pattern, names)
    return tuple(name for name in names if fnmatchcase(name, pattern))


def choice_fault(pattern: str, names: Sequence[str], kind: str) -> str | None:
    """Return an error text with the nearest names if a pattern matches nothing, or None."""
    if chosen(pattern, names):
        return None
    hint = did_you_mean(pattern, names)
    if is_glob(pattern):
        return f"{pattern!r} matches no {kind}{hint}"
    return f"unknown {kind} {pattern!r}{hint}"


def given_by(values: Mapping[str, Value], names: Sequence[str]) -> dict[str, dict[str, Value]]:
    """Return for each matched name its patterns and their values."""
    by_name: dict[str, dict[str, Value]] = {}
    for pattern, value in values.items():
        for name in chosen(pattern, names):
            if name == pattern or name not in values:
                by_name.setdefault(name, {})[pattern] = value
    return by_name


def one_value(
    values: Mapping[str, Value], names: Sequence[str], field: str, kind: str
) -> dict[str, Value]:
    """Return the value of each matched name; raise if globs disagree."""
    faults = [choice_fault(pattern, names, kind) for pattern in values]
    faults.append(value_fault(values, names))
    for fault in faults:
        if fault is not None:
            raise ConfigError(f"{field}: {fault}")
    chosen_values = {}
    for name, by_pattern in given_by(values, names).items():
        chosen_values[name] = next(iter(by_pattern.values()))  # all are equal
    return chosen_values


def value_fault(values: Mapping[str, Value], names: Sequence[str]) -> str | None:
    """Return an error text if two globs give one name different values, or None."""
    for name, by_pattern in given_by(values, names).items():
        first, *others = by_pattern
        value = by_pattern[first]
        for glob in others:
            another = by_pattern[glob]
            if another != value:
                return (
                    f"{name!r} is matched by {first!r} ({value}) and by {glob!r} ({another}); "
                    f"name {name!r} itself, which overrides globs"
                )
    return None
