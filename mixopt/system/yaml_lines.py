"""Line numbers of the fields of a YAML file, and keys that are given twice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from mixopt.errors import ConfigError, MixoptError
from mixopt.system.names import shown_name

FieldPlace = tuple[str | int, ...]


def yaml_places(
    text: str, path: str | Path, *, error: type[MixoptError] = ConfigError
) -> dict[FieldPlace, int]:
    """Return the line of each field of YAML that was parsed already."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return {} if node is None else dict(_lines(node, (), str(path), error))


def dotted(location: FieldPlace) -> str:
    """Write a location as `stages.2.tokens`."""
    parts = [str(part) for part in location]
    return ".".join(part if part.isprintable() else shown_name(part) for part in parts)


def _lines(
    node: yaml.Node, location: FieldPlace, path: str, error: type[MixoptError]
) -> Iterable[tuple[FieldPlace, int]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            inner = (*location, key.value)
            if key.value in seen:
                line = key.start_mark.line + 1
                raise error(f"{path}:{line}: {dotted(inner)}: given twice")
            seen.add(key.value)
            yield inner, key.start_mark.line + 1
            yield from _lines(value, inner, path, error)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            inner = (*location, position)
            yield inner, value.start_mark.line + 1
            yield from _lines(value, inner, path, error)
