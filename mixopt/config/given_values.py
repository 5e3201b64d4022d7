"""Values that are given on their own, not in an experiment's YAML: as Python has them, or as files.

A file is YAML with the fields that an experiment has. An error names the file, or the argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from mixopt.config.constraints_section import ConstraintsConfig
from mixopt.config.objective_section import ObjectiveConfig
from mixopt.config.section import Section
from mixopt.errors import ConfigError, did_you_mean
from mixopt.system import local_copy, naming, read_yaml

Given = TypeVar("Given", bound=Section)
Unit = Literal["tokens", "bytes"]  # what a size is of


def read_inventory(
    source: str | Path | Mapping[str, Any],
    domains: Sequence[str],
    *,
    tokens_per_byte: Mapping[str, float] | None = None,
) -> dict[str, int]:
    """Return the distinct tokens of each domain, in the order of `domains`.

    Args:
        source: Sizes by domain, `{"web": 5e9, ...}` (tokens), `{"web": {"bytes": 2e10}, ...}`, or
            a YAML file of them.
        domains: Every domain that must be there.
        tokens_per_byte: Of each domain's text, which turns bytes into tokens.

    Raises:
        ConfigError: The file cannot be read, or there are other domains or no numbers of tokens.
    """
    where = str(source) if isinstance(source, (str, Path)) else "inventory"
    sizes, rates = domain_sizes(source, domains), tokens_per_byte or {}
    for name in domains:
        if name not in sizes:
            raise ConfigError(f"{where}: domain {name!r} is missing; give its tokens")
        if sizes[name][0] == "bytes" and name not in rates:
            raise ConfigError(
                f"{where}: {name}: converting bytes to tokens needs a prepared corpus of its "
                "text, and there is none; state tokens"
            )
    return {
        name: sizes[name][1] if sizes[name][0] == "tokens" else round(sizes[name][1] * rates[name])
        for name in domains
    }


def domain_sizes(
    source: str | Path | Mapping[str, Any], domains: Iterable[str]
) -> dict[str, tuple[Unit, int]]:
    """Return what is stated of each domain that has a size: `tokens` or `bytes`, and how many.

    Args:
        source: Sizes by domain, `{"web": 5e9}` or `{"web": {"bytes": 2e10}}`, or a YAML file.
        domains: The known domains.

    Raises:
        ConfigError: The file cannot be read, has an unknown domain, or a value that is not a size.
    """
    where, content = _content("inventory", source)
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{where}: expected a number of tokens for each domain, such as `web: 5e9`"
        )
    known = list(domains)
    for name in content:
        if name not in known:
            raise ConfigError(f"{where}: unknown domain {name!r}{did_you_mean(str(name), known)}")
    return {name: _size(content[name], name, where) for name in known if name in content}


def read_constraints(source: str | Path | Mapping[str, Any]) -> ConstraintsConfig:
    """Return constraints as checked values.

    Args:
        source: The fields of `constraints:` in an experiment, or a YAML file of them.

    Raises:
        ConfigError: The file cannot be read, or a field is unknown or cannot be right.
    """
    where, content = _content("constraints", source)
    return checked(ConstraintsConfig, content, where)


def read_objective(source: str | Path | Mapping[str, Any]) -> ObjectiveConfig:
    """Return an objective as checked values.

    Args:
        source: The fields of `objective:` in an experiment, or a YAML file of them.

    Raises:
        ConfigError: The file cannot be read, or a field is unknown or cannot be right.
    """
    where, content = _content("objective", source)
    if isinstance(content, Mapping) and set(content) == {"objective"}:
        content = content["objective"]
    return checked(ObjectiveConfig, content, where)


def token_count(tokens: float | str | None, name: str = "tokens") -> int | None:
    """Return the length of a run; None where none is given.

    Args:
        tokens: A number of tokens, or its text, such as `25e9`.
        name: What the error calls it.

    Raises:
        ConfigError: It is not a number of tokens.
    """
    if tokens is None:
        return None
    try:
        number = float(tokens)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{name} {tokens!r}: is not a number of tokens, such as 25e9") from None
    if not 1 <= number < 1e18:
        raise ConfigError(f"{name} {number:g}: must be at least 1, and less than 1e18")
    return int(tokens) if isinstance(tokens, int) else int(number)


def one_of(name: str, value: str, known: Sequence[str]) -> str:
    """Check that a value is a known one.

    Raises:
        ConfigError: It is not, with the nearest.
    """
    if value not in known:
        raise ConfigError(f"{name} {value}: unknown{did_you_mean(str(value), known)}")
    return value


def checked(section: type[Given], content: Any, where: str) -> Given:
    """Return a section of the configuration from plain values.

    Args:
        section: The section.
        content: Its fields.
        where: What the error calls it.

    Raises:
        ConfigError: A field is unknown or cannot be right.
    """
    try:
        return section.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = did_you_mean(field, section.model_fields)
            raise ConfigError(f"{where}: {field}: unknown field{near}") from error
        place = f"{where}: {field}" if field else where
        raise ConfigError(f"{place}: {first['msg']}, got {first['input']!r}") from error


def _content(name: str, source: Any) -> tuple[str, Any]:
    """Return what an error calls a value, and the value; a file's content where it is one."""
    if not isinstance(source, (str, Path)):
        return name, source
    path = local_copy(source, ConfigError)
    with naming(path, str(source)):
        return str(source), read_yaml(path)


def _size(value: Any, name: str, where: str) -> tuple[Unit, int]:
    if not isinstance(value, Mapping):
        return "tokens", _whole(value, f"{where}: {name}", "tokens")
    given = sorted(value)
    if given not in (["bytes"], ["tokens"]):
        found = ", ".join(map(str, given)) or "nothing"
        raise ConfigError(f"{where}: {name}: give exactly one of tokens and bytes, got {found}")
    unit: Unit = given[0]
    return unit, _whole(value[unit], f"{where}: {name}.{unit}", unit)


def _whole(value: Any, where: str, unit: Unit) -> int:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # YAML takes 5e9 for text
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 1 <= number < 1e18:
        raise ConfigError(f"{where}: {value!r} is not a number of {unit}, such as 5e9")
    return value if isinstance(value, int) else int(number)
