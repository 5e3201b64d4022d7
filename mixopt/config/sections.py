"""Sections of a YAML file: their base, the types of their fields, reading, and errors."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic.fields import FieldInfo

from mixopt.errors import ConfigError, MixoptError, did_you_mean
from mixopt.mixture import Mixture
from mixopt.system import (
    FieldPlace,
    ServerUri,
    choice_fault,
    dotted,
    local_copy,
    local_path,
    naming,
    parse_yaml,
    read_text,
    read_yaml,
    shown_value,
    value_fault,
    without_secrets,
)

Location = FieldPlace
Fault = tuple[Location | str, str]  # the field, as its parts or as `section.field`; the error
FILES = "files"  # key of a validation context: whether files that a section names are read
_DATA = {".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".gz", ".zst", ".bz2", ".xz"}
_COUNT = re.compile(r"([+-]?[\d_.]+(?:e[+-]?\d{1,2})?)([kmbt]?)", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 3, "m": 6, "b": 9, "t": 12}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def as_count(value: Any) -> Any:
    """Parse `25e9`, `50B` or `1T` as a whole number; return any other value unchanged."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return value
    match = _COUNT.fullmatch(value.strip())
    if match is None:
        return value
    try:
        number = Decimal(match[1]).scaleb(_POWERS[match[2].lower()])
    except InvalidOperation:
        return value
    return int(number) if number == number.to_integral_value() else value


def _in_seconds(value: Any) -> Any:
    if not isinstance(value, (str, bool)):
        return value
    match = _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("should be seconds, or a duration such as 90s, 10m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Positive = Annotated[int, Field(gt=0), BeforeValidator(as_count)]
Count = Annotated[int, Field(ge=0), BeforeValidator(as_count)]
Duration = Annotated[float, Field(gt=0, le=31 * 86_400), BeforeValidator(_in_seconds)]  # a month


def is_number(value: Any) -> bool:
    """Return whether a value is a number, and not true or false."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class Section(BaseModel):
    """A section of a file: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def changed(self, *, but: Iterable[str] = ()) -> list[str]:
        """Return the fields whose value differs from the default, except those in `but`."""
        return [
            name
            for name, field in type(self).model_fields.items()
            if name not in but and getattr(self, name) != field.default
        ]


SectionType = TypeVar("SectionType", bound=Section)


def optional(description: str) -> Any:
    """Return a field with the default None."""
    return Field(None, description=description)


def one_given(section: Section, *names: str) -> str:
    """Return the only field of `names` that is given; raise on none or several."""
    present = [name for name in names if getattr(section, name) is not None]
    if len(present) != 1:
        listed = ", ".join(present) or "none"
        raise ValueError(f"give exactly one of {', '.join(names)}; got {listed}")
    return present[0]


def token_count(tokens: float | str | None, name: str = "tokens") -> int | None:
    """Return the length of a run; None for None.

    Args:
        tokens: A number, or text such as `25e9`, `50B` or `1T`.
        name: Its name in errors.

    Raises:
        ConfigError: Not a number, below 1, or >= 1e18.
    """
    if tokens is None:
        return None
    number = as_count(tokens)
    if isinstance(number, bool | str) or not 1 <= number < 10**18:
        raise ConfigError(
            f"{name}: {shown_value(tokens)} is not a number of tokens from 1 to 1e18, such as 25e9"
            " or 50B"
        )
    return int(number)


def pattern_faults(
    place: Location, values: Mapping[str, Any], names: Sequence[str], kind: str
) -> Iterator[Fault]:
    """Yield patterns that match no name; if none, globs that give a name different values."""
    all_match = True
    for pattern in values:
        fault = choice_fault(pattern, names, kind)
        if fault:
            all_match = False
            yield (*place, pattern), fault
    if all_match:
        fault = value_fault(values, names)
        if fault is not None:
            yield place, fault


def checked(section: type[SectionType], content: Any, where: str) -> SectionType:
    """Validate plain values as a section of the configuration."""
    try:
        return section.model_validate(content)
    except ValidationError as error:
        location, message = _fault(error.errors(include_url=False)[0], section)
        place = f"{where}: {dotted(location)}" if location else where
        raise ConfigError(f"{place}: {message}") from error


def from_file(value: Any, info: ValidationInfo) -> Any:
    """Read the weights of a mixture file; return any other value unchanged."""
    if not isinstance(value, str) or value == "natural":
        return value
    if not (info.context or {}).get(FILES, True):
        raise ValueError(f"{value!r} is a file; a recorded configuration must contain the weights")
    try:
        content = read_yaml(local_path(value))
    except MixoptError as error:
        raise ValueError(str(error)) from error
    weights = content.get("weights", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise ValueError(f"{value}: expected 'weights:' with a number for each domain")
    return weights


def share_fault(shares: Mapping[str, Any], domains: Iterable[str]) -> str | None:
    """Return the error of shares; None: every domain has one, and they add up to 1."""
    try:
        Mixture(shares).over(list(domains))
    except MixoptError as error:
        return str(error).partition(", or pass")[0]  # a file has no tolerance to pass
    return None


def given_content(name: str, source: Any) -> tuple[Any, str]:
    """Return a value, or the content of a file, and its name for errors.

    The content may be under the key `name:`, as in an experiment's file.
    """
    where = name
    if isinstance(source, (str, Path)):
        where = str(source)
        path = local_copy(source)
        with naming(path, where):
            source = read_yaml(path)
    if isinstance(source, Mapping) and list(source) == [name]:
        source = source[name]
    return source, where


def read_sections(
    path: str | Path,
    model: type[SectionType],
    overrides: Sequence[str] = (),
    *,
    example: str,
    faults: Callable[[SectionType], Iterable[Fault]] = lambda _: (),
    files: bool = True,
) -> SectionType:
    """Read, override and check a file.

    Args:
        path: YAML.
        model: Model of its sections.
        overrides: `section.field=value`, replacing values of the file.
        example: Example sections for the error of an empty file.
        faults: Yields faults across fields that are valid on their own.
        files: Whether files that a section names are read.

    Raises:
        ConfigError: The first error, with the others as its notes.
    """
    path = Path(path)
    content, lines = _read(path, example)
    origins = {location: f"{path}:{line}" for location, line in lines.items()}
    for override in overrides:
        location = _override(content, override)
        origins[location] = f"--set {without_secrets(override)}"
    all_faults: list[Fault] = []
    try:
        values = model.model_validate(content, context={FILES: files})
        for fault in faults(values):
            all_faults.append(fault)  # noqa: PERF402 (keeps the faults before an error)
    except ValidationError as error:
        details = error.errors(include_url=False)
        details.sort(key=lambda item: item["type"] != "extra_forbidden")  # unknown fields first
        all_faults = [_fault(item, model) for item in details]
    except MixoptError:
        if not all_faults:  # else it may follow from an earlier fault
            raise
    if not all_faults:
        return values
    messages = [_located(fault, path, origins) for fault in all_faults]
    first = ConfigError(messages[0])
    for message in messages[1:]:
        first.add_note(message)
    raise first


def dump_sections(values: Any) -> Any:
    """Return a model as plain values, with defaults that are not null, without secrets."""
    if isinstance(values, BaseModel):
        return {
            field.alias or name: dump_sections(getattr(values, name))
            for name, field in type(values).model_fields.items()
            if getattr(values, name) is not None or field.default is not None
        }
    if isinstance(values, dict):
        return {name: dump_sections(inner) for name, inner in values.items()}
    if isinstance(values, ServerUri):
        return str(values)
    if isinstance(values, (list, tuple)):
        return [dump_sections(inner) for inner in values]
    return values


def _read(path: Path, example: str) -> tuple[dict[str, Any], dict[Location, int]]:
    if path.suffix.lower() in _DATA and path.exists():
        raise ConfigError(
            f"{path}: is text, not an experiment; write one with: mixopt init {path} OTHER ..."
        )
    text = read_text(path, error=ConfigError, missing="no such file")
    content, lines = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections such as {example}")
    return content, lines


def _override(content: dict[str, Any], override: str) -> Location:
    """Apply `section.field=value` to the content, and return the field."""
    name, sign, text = override.partition("=")
    parts = name.strip().split(".")
    where = f"--set {without_secrets(override)}"
    if not sign or not all(parts):
        raise ConfigError(f"{where}: expected field=value, such as design.trials=32")
    section = content
    for part in parts[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{where}: {part!r} is a value, not a section")
    section[parts[-1]] = parse_yaml(text, f"--set {shown_value(without_secrets(override))}")[0]
    return tuple(parts)


def _located(fault: Fault, path: Path, origins: Mapping[Location, str]) -> str:
    """Return the message of a fault with the line of the file, or the override."""
    field, message = fault
    location: Location = tuple(field.split(".")) if isinstance(field, str) else field
    nested: Location = ()  # `web/science` as the nested domains of the file
    for key in location:
        nested += tuple(key.split("/")) if isinstance(key, str) else (key,)
    where = _origin(nested, origins) or _origin(location, origins) or path
    return f"{where}: {dotted(location) or 'the file'}: {message}"


def _origin(location: Location, origins: Mapping[Location, str]) -> str | None:
    """Return the origin of a field, or of the nearest section around it."""
    for end in range(len(location), 0, -1):
        if location[:end] in origins:
            return origins[location[:end]]
    return None


def _fault(details: Mapping[str, Any], model: type[BaseModel]) -> Fault:
    """Convert one of pydantic's errors to a fault."""
    kind = details["type"]
    section, location, field = _as_written(model, details["loc"])
    if kind == "extra_forbidden":
        return location, f"unknown field{did_you_mean(str(location[-1]), _fields(section))}"
    if kind == "missing":
        example = f"; for example {field.examples[0]}" if field and field.examples else ""
        return location, f"is missing{example}"
    message = details["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "should be").partition(", unable to parse")[0]
    value = details["input"]
    if not isinstance(value, (dict, list)):
        message += f", got {without_secrets(repr(value))}"
    if field is not None and field.description and kind != "value_error":
        message += f" ({field.description})"
    return location, message


def _fields(section: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _as_written(
    model: type[BaseModel], location: Location
) -> tuple[type[BaseModel], Location, FieldInfo | None]:
    """Return the section of the last part, the location as in the file, and the field."""
    section = current = model
    field = None
    written: list[str | int] = []
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            section = current
            field = _fields(current).get(str(part))
            written.append(part)
            if field is None:
                break
            current = _plain(field.annotation)
        elif get_origin(current) in (dict, list, tuple):
            written.append(part)
            current = _plain(get_args(current)[-1])
        else:
            break
    return section, tuple(written), field


def _plain(annotation: Any) -> Any:
    if get_origin(annotation) in (dict, list, tuple, None):
        return annotation
    inner = [argument for argument in get_args(annotation) if argument is not NoneType]
    return _plain(inner[0]) if inner else annotation
