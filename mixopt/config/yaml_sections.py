"""Read a YAML file of sections, with overrides, into a checked pydantic model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Generic, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mixopt.config.section import FILES
from mixopt.errors import ConfigError, did_you_mean, nearest
from mixopt.system import (
    FieldPlace,
    ServerUri,
    dotted,
    parse_yaml,
    read_text,
    shown_name,
    without_secrets,
    yaml_places,
)

Location = FieldPlace
DATA = {".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".gz", ".zst", ".bz2", ".xz"}
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Sections(Generic[Model]):
    """What a file says, checked field by field."""

    values: Model
    path: Path
    origins: dict[Location, str]

    def mistake(self, location: Location, message: str) -> ConfigError:
        """Return the error for a value that does not go with the others."""
        where = _origin(location, self.path, self.origins)
        return ConfigError(f"{where}: {dotted(location)}: {message}")


def read_sections(
    path: str | Path,
    model: type[Model],
    overrides: Sequence[str] = (),
    *,
    example: str,
    files: bool = True,
) -> Sections[Model]:
    """Read, override and check a file."""
    path = Path(path)
    content, lines = _read(path, example)
    origins: dict[Location, str] = {loc: f"{path}:{line}" for loc, line in lines.items()}
    for override in overrides:
        location = _override(content, override)
        origins[location] = f"--set {without_secrets(override)}"
    try:
        return Sections(model.model_validate(content, context={FILES: files}), path, origins)
    except ValidationError as error:
        found = [
            _explain(one, model, path, origins) for one in _told(error.errors(include_url=False))
        ]
        raise first_of([ConfigError(line) for line in found]) from error


def _told(faults: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Return the faults to tell of: a section that is misspelt is not missing too."""
    misspelt = [one for one in faults if one["type"] == "extra_forbidden"]
    others = [one for one in faults if one["type"] != "extra_forbidden"]
    return misspelt + [one for one in others if not any(_is_meant(one, bad) for bad in misspelt)]


def _is_meant(fault: ErrorDetails, misspelt: ErrorDetails) -> bool:
    """Tell whether a missing field is what another one was meant to be."""
    if fault["type"] != "missing":
        return False  # it may be of the file as a whole, which has no place
    (*where, name), (*place, word) = fault["loc"], misspelt["loc"]
    return where == place and nearest(str(word), [str(name)]) is not None


def first_of(mistakes: Iterable[ConfigError]) -> ConfigError:
    """Return the first of one or more mistakes; the others are its notes, for who lists all."""
    first, *others = mistakes
    for other in others:
        first.add_note(str(other))
    return first


def dump_sections(values: BaseModel) -> dict[str, Any]:
    """Return a model as plain values, defaults included but for null ones; without secrets."""
    content: dict[str, Any] = _without_default_nulls(values)
    return content


def _without_default_nulls(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {
            field.alias or name: _without_default_nulls(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if getattr(value, name) is not None or field.default is not None
        }
    if isinstance(value, dict):
        return {name: _without_default_nulls(inner) for name, inner in value.items()}
    if isinstance(value, ServerUri):
        return str(value)
    return [_without_default_nulls(v) for v in value] if isinstance(value, (list, tuple)) else value


def _read(path: Path, example: str) -> tuple[dict[str, Any], dict[Location, int]]:
    if path.suffix.lower() in DATA and path.exists():
        raise ConfigError(
            f"{path}: is text, not an experiment; write one with: mixopt init {path} OTHER ..."
        )
    text = read_text(path, error=ConfigError, missing=lambda: ConfigError(f"{path}: no such file"))
    content = parse_yaml(text, str(path))
    lines = yaml_places(text, path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections such as {example}")
    return content, lines


def _override(content: dict[str, Any], override: str) -> Location:
    name, sign, text = override.partition("=")
    parts = name.strip().split(".")
    if not sign or not all(parts):
        raise ConfigError(
            f"--set {without_secrets(override)}: expected field=value, such as design.trials=32"
        )
    value = parse_yaml(text, f"--set {shown_name(without_secrets(override))}")
    section = content
    for part in parts[:-1]:
        inner = section.setdefault(part, {})
        if not isinstance(inner, dict):
            said = f"--set {without_secrets(override)}"
            raise ConfigError(f"{said}: {part!r} is a value, not a section")
        section = inner
    section[parts[-1]] = value
    return tuple(parts)


def _explain(
    first: Mapping[str, Any], model: type[BaseModel], path: Path, origins: dict[Location, str]
) -> str:
    location, kind = tuple(first["loc"]), first["type"]
    section, location = _section(model, location, missing=kind == "missing")
    where = _origin(location, path, origins)
    field = dotted(location) or "the file"
    if kind == "extra_forbidden":
        known = _fields(section)
        return f"{where}: {field}: unknown field{did_you_mean(str(location[-1]), known)}"
    if kind == "missing":
        asked = _fields(section).get(str(location[-1]))
        example = f"; for example {asked.examples[0]}" if asked and asked.examples else ""
        return f"{where}: {field}: is missing{example}"
    message = first["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "should be").partition(", unable to parse")[0]
    value = first["input"]
    got = "" if isinstance(value, (dict, list)) else f", got {without_secrets(repr(value))}"
    return f"{where}: {field}: {message}{got}"


def _fields(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a section, by the names that a file has."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _section(
    model: type[BaseModel], location: Location, *, missing: bool
) -> tuple[type[BaseModel], Location]:
    """Return the section that holds the last part, and the location as the file has it."""
    section = model
    current: Any = model
    kept: list[str | int] = []
    for position, part in enumerate(location):
        if isinstance(current, type) and issubclass(current, BaseModel):
            section = current
            fields = _fields(current)
            kept.append(part)
            if part not in fields:
                break
            current = _plain(fields[str(part)].annotation)
        elif get_origin(current) in (dict, list, tuple):
            kept.append(part)
            current = _plain(get_args(current)[-1])
        else:
            break
        if missing and position == len(location) - 1:
            break
    return section, tuple(kept)


def _plain(annotation: Any) -> Any:
    """Strip `None` and metadata from an annotation."""
    origin = get_origin(annotation)
    if origin in (dict, list, tuple) or origin is None:
        return annotation
    inner = [a for a in get_args(annotation) if a is not NoneType]
    return _plain(inner[0]) if inner else annotation


def _origin(location: Location, path: Path, origins: dict[Location, str]) -> str:
    for length in range(len(location), 0, -1):
        if location[:length] in origins:
            return origins[location[:length]]
    return str(path)
