"""Names that are chosen by patterns: a name as it is, or a glob such as `mmlu_*`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from mixopt.errors import ConfigError, did_you_mean

Value = TypeVar("Value")
WILD = "*?["
NEAREST = 3  # names that an error suggests


def is_glob(pattern: str) -> bool:
    """Tell whether a pattern can match names that it does not equal."""
    return any(character in pattern for character in WILD)


def chosen(pattern: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names that a pattern chooses, in their order; none where it fits none."""
    if pattern in names:
        return (pattern,)
    return tuple(name for name in names if fnmatchcase(name, pattern)) if is_glob(pattern) else ()


def choice_fault(pattern: str, names: Sequence[str], kind: str) -> str | None:
    """Say that a pattern chooses nothing, with the nearest names; None where it chooses some."""
    if chosen(pattern, names):
        return None
    if not is_glob(pattern):
        return f"unknown {kind} {pattern!r}{did_you_mean(pattern, names)}"
    near = ", ".join(repr(name) for name in _nearest(pattern, names))
    return f"{pattern!r} matches no {kind}" + (f"; the nearest are {near}" if near else "")


def given_by(values: Mapping[str, Value], names: Sequence[str]) -> dict[str, dict[str, Value]]:
    """Return for each chosen name the patterns that choose it, and what they give."""
    found: dict[str, dict[str, Value]] = {}
    for pattern, value in values.items():
        for name in chosen(pattern, names):
            if name == pattern or name not in values:
                found.setdefault(name, {})[pattern] = value
    return found


def one_value(
    values: Mapping[str, Value], names: Sequence[str], field: str, kind: str
) -> dict[str, Value]:
    """Return what each chosen name is given, where globs agree."""
    for pattern in values:
        fault = choice_fault(pattern, names, kind)
        if fault is not None:
            raise ConfigError(f"{field}: {fault}")
    fault = value_fault(values, names)
    if fault is not None:
        raise ConfigError(f"{field}: {fault}")
    return {name: next(iter(given.values())) for name, given in given_by(values, names).items()}


def value_fault(values: Mapping[str, Value], names: Sequence[str]) -> str | None:
    """Say which two globs give one name different values, and how to fix it; None where none do."""
    for name, given in given_by(values, names).items():
        (first, value), *others = given.items()
        for other, another in others:
            if another != value:
                return (
                    f"{name!r} is matched by {first!r} ({value}) and by {other!r} ({another}); "
                    f"name {name!r} itself, which overrides globs"
                )
    return None


def _nearest(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the names whose beginning or end is most like the text of a glob."""
    text = "".join(character for character in pattern if character not in "*?[]")

    def likeness(name: str) -> float:
        ends = (name[: len(text)], name[-len(text) :] if text else name)
        return max(difflib.SequenceMatcher(None, text, end).ratio() for end in ends)

    return sorted(names, key=likeness, reverse=True)[:NEAREST]
