"""The blend of Megatron and its relatives: weight and path, one after the other, in one list.

`get_blend_from_list` of megatron.core.datasets.utils takes a list of even length whose every second
element, from the first, is a number; else the whole list is paths without weights. It strips
spaces around a path. What reads a path may change it: it is refused here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixopt.errors import ConfigError, MixtureError
from mixopt.integrations.exports.export_tool import Entry, Weighed
from mixopt.integrations.exports.facts import Facts


def blend_of(entries: Sequence[Entry], facts: Facts) -> list[tuple[float, str]]:
    """Return weights with paths.

    Raises:
        ConfigError: A path with spaces around it.
    """
    for entry in entries:
        check_stripped(entry, facts)
    return [(entry.amount, entry.paths[0]) for entry in entries]


def check_stripped(entry: Entry, facts: Facts) -> None:
    """Check that nothing of a path is lost where spaces around it are.

    Raises:
        ConfigError: A path begins or ends with a space.
    """
    for path in entry.paths:
        if path != path.strip():
            raise ConfigError(
                f"{facts.tool}: strips the spaces around {path!r} of domain {entry.domain!r}; give"
                " another path with --paths"
            )


def check_no_interpolation(entries: Sequence[Entry], facts: Facts) -> None:
    """Check that no path is taken for a variable by what reads the YAML (OmegaConf and others).

    Raises:
        ConfigError: A path has `${`.
    """
    for entry in entries:
        for text in (entry.label, *entry.paths):
            if "${" in text:
                raise ConfigError(
                    f"{facts.tool}: reads ${{...}} in {text!r} of domain {entry.domain!r} as a"
                    " variable; give another path with --paths"
                )


def found_in_blend(blend: Sequence[Any], where: str) -> list[Weighed]:
    """Return what a flat blend has.

    Raises:
        MixtureError: It is not a list of weights and paths.
    """
    if len(blend) % 2 or not blend:
        raise MixtureError(
            f"{where}: {len(blend)} elements are not a blend; expected a weight before every path"
        )
    pairs = zip(blend[::2], blend[1::2], strict=True)
    return [Weighed((str(path).strip(),), _weight(weight, where)) for weight, path in pairs]


def _weight(weight: Any, where: str) -> float:
    try:
        return float(weight)
    except (TypeError, ValueError):
        raise MixtureError(
            f"{where}: {str(weight)[:80]!r} is not a weight; expected a weight before every path"
        ) from None
