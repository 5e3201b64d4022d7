"""One clear line for an option of a proxy that cannot be right."""

from __future__ import annotations

from collections.abc import Iterable

from mixopt.errors import ConfigError, did_you_mean


def check_names(options: Iterable[str], known: type) -> None:
    """Refuse an option that is no field of a TypedDict, which no signature does.

    Raises:
        ConfigError: There is one; the message has the nearest that is known.
    """
    names = known.__annotations__
    for option in options:
        if option not in names:
            near = did_you_mean(option, names)
            raise ConfigError(f"proxy.options.{option}: unknown option{near}")


def check(option: str, value: object, good: bool, want: str) -> None:
    """Refuse a value unless it is good.

    Raises:
        ConfigError: It is not; the message says what the option must be.
    """
    if not good:
        raise ConfigError(f"proxy.options.{option}: {value!r} must be {want}")


def of_kind(option: str, value: object, kind: type) -> object:
    """Return a value of an option as its kind: whole numbers as floats, lists as pairs.

    Raises:
        ConfigError: It is of another kind.
    """
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is tuple and isinstance(value, list | tuple) and len(value) == 2:
        return tuple(of_kind(option, entry, float) for entry in value)
    check(option, value, type(value) is kind, f"a {kind.__name__}")
    return value
