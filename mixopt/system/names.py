"""One rule for names that come from data, and one way from such a name to a path."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from mixopt.errors import ConfigError, MixoptError, RunError, is_control

LONGEST_NAME = 200  # bytes; file systems take 255, of which suffixes and temporary names need some


def check_name(name: object, kind: str, error: type[MixoptError] = ConfigError) -> str:
    """Return a name that holds to the rule."""
    reason = name_fault(name)
    if reason is not None:
        raise error(f"{kind} {shown_name(name)}: {reason}; rename it")
    return str(name)


def check_names(names: Iterable[object], kind: str, error: type[MixoptError] = ConfigError) -> None:
    """Check each of several names (`check_name`)."""
    for name in names:
        check_name(name, kind, error)


def name_fault(name: object) -> str | None:
    """Return what is wrong with a name; None where it holds to the rule."""
    if not isinstance(name, str):
        return f"a name is text, not {type(name).__name__}"
    return _text_fault(name)


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
    return f"a name has at most {LONGEST_NAME} bytes, not {size}" if size > LONGEST_NAME else None


def shown_name(name: object) -> str:
    """Return a name of unknown origin as one short line of plain characters."""
    text = ascii(name) if isinstance(name, str) and not name.isprintable() else repr(name)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"


def inside(folder: Path, name: str | Path, error: type[MixoptError] = RunError) -> Path:
    """Return the path of a file that data names, which is in `folder` or below it.

    Symbolic links are followed before that is judged, so that a link in a foreign directory leads
    nowhere else either.

    Args:
        folder: The folder.
        name: A relative path, as data has it.
        error: What is raised.

    Raises:
        MixoptError: `error`; the path is absolute, or leads out of the folder.
    """
    path = below(folder, name, error)
    try:
        root, found = folder.resolve(), path.resolve()
    except (OSError, RuntimeError) as reason:  # a circle of links
        shown = shown_name(str(name))
        raise error(f"{folder}: {shown} cannot be resolved: {reason}") from reason
    if not found.is_relative_to(root):
        raise error(f"{folder}: {shown_name(str(name))} is outside this folder; it is not read")
    return path


def below(folder: Path, name: str | Path, error: type[MixoptError] = RunError) -> Path:
    """Return the path of a file that data names, by its name alone: links are not looked at."""
    text = str(name)
    if "\\" in text or any(is_control(character) for character in text):
        raise error(f"{folder}: {shown_name(text)} is not a file name")
    if Path(text).is_absolute() or ".." in Path(text).parts:
        raise error(f"{folder}: {shown_name(text)} is outside this folder; it is not read")
    return folder / text


def check_links(folder: Path, error: type[MixoptError] = RunError) -> None:
    """Check that no symbolic link in a folder, at any depth, leads out of it."""
    root = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink() and not _leads_into(path, root):
                target = shown_name(os.readlink(path))
                raise error(
                    f"{path}: is a link to {target}, outside this directory; if you trust whoever"
                    " made it, add --trust (in Python trust=True)"
                )


def _leads_into(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a circle of links leads nowhere
        return True
