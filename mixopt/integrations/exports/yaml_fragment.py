"""YAML with a header, and the part of a YAML file in which a tool keeps its mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from mixopt.errors import MixtureError
from mixopt.system import parse_yaml


def yaml_fragment(header: Sequence[str], content: Any) -> str:
    """Return YAML below a header of comments."""
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000)
    return commented(header) + body


def commented(lines: Sequence[str]) -> str:
    """Return lines as comments of YAML, Python and shells."""
    return "".join(f"# {line}\n" for line in lines)


def read_mapping(text: str, where: str) -> dict[str, Any]:
    """Return YAML that is a mapping.

    Raises:
        MixtureError: It is no YAML, or something else.
    """
    content = parse_yaml(text, where, error=MixtureError)
    if not isinstance(content, dict):
        raise MixtureError(f"{where}: expected YAML with fields, got {type(content).__name__}")
    return content


def part(content: Any, *keys: str) -> Any:
    """Return what is below keys, one after the other; None where there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def plain_list(value: Any) -> list[Any]:
    """Return a list as it is, nothing as an empty one, and anything else as a list of it."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def missing(where: str, expected: str) -> MixtureError:
    """Return the error for a fragment without what a tool's has."""
    return MixtureError(f"{where}: contains no mixture; expected {expected}")


def names_of(value: Any, where: str) -> tuple[str, ...]:
    """Return a path, or several, as text.

    Raises:
        MixtureError: There is none, or one is not text.
    """
    names = plain_list(value)
    if not names or not all(isinstance(name, (str, int, float)) for name in names):
        raise MixtureError(f"{where}: {value!r} is neither a path nor a list of paths")
    return tuple(map(str, names))
