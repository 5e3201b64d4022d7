"""Convert amounts by domain to entries of a fragment, and entries back to shares."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from mixopt.errors import ConfigError, MixtureError
from mixopt.integrations.exports.export_tool import Entry, ExportTool, Weighed
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.loading_code import bare_name
from mixopt.system import name_fault


def entries_of(
    tool: ExportTool, amounts: Mapping[str, float], facts: Facts
) -> tuple[list[Entry], list[str]]:
    """Return the entries of a fragment, and the domains that are left out.

    Raises:
        ConfigError: Two entries would have one name.
    """
    kept = {name: amount for name, amount in amounts.items() if amount > 0 or tool.takes_zero}
    found: list[Entry] = []
    for domain, amount in kept.items():
        found.extend(_entries(tool, domain, amount, facts))
    _check_apart(tool, found)
    return found, [name for name in amounts if name not in kept]


def shares_of(tool: ExportTool, found: Sequence[Weighed], facts: Facts) -> dict[str, float]:
    """Return each domain's share of the tokens.

    Raises:
        ConfigError: The unit needs what is not known.
        MixtureError: Nothing is there, a weight is none, or names are not clear.
    """
    parts: dict[str, list[float]] = {}
    for domain, one in zip(named_domains(tool, found, facts), found, strict=True):
        amount = checked_amount(tool, domain, one.amount)
        if one.passes:
            pieces = len(facts.places(domain)) if tool.single_path and tool.unit.divides else 1
            amount += one.passes * tool.unit.whole(domain, facts, pieces)
        parts.setdefault(domain, []).append(amount)
    amounts = {
        name: math.fsum(values) / (1 if tool.unit.divides else len(values))
        for name, values in parts.items()
    }
    tokens = {
        name: tool.unit.tokens(name, amount, facts) if amount > 0 else 0.0
        for name, amount in amounts.items()
    }
    total = math.fsum(tokens.values())
    if not 0 < total < math.inf:
        raise MixtureError(f"{tool.name}: all weights are 0; a mixture needs one above 0")
    # Dividing shares that add up to 1 already would change their last digit.
    scale = 1.0 if abs(total - 1.0) < 1e-12 else total
    return {name: value / scale for name, value in tokens.items()}


def named_domains(tool: ExportTool, found: Sequence[Weighed], facts: Facts) -> list[str]:
    """Return the domain of each thing that a fragment has.

    A path that `paths` has is its domain's; another is named by itself, or by its last part.

    Raises:
        MixtureError: Two paths would be one domain.
    """
    by_path = {path: name for name, paths in facts.paths.items() for path in paths}
    by_label = {entry: name for name in facts.paths for entry in _labels(name, facts)}
    names: list[str] = []
    guessed: dict[str, str] = {}
    for one in found:
        known = next((by_path[path] for path in one.names if path in by_path), None)
        known = known or next((by_label[path] for path in one.names if path in by_label), None)
        name = known or _name_of(one.names[0])
        if known is None and guessed.setdefault(name, one.names[0]) != one.names[0]:
            raise MixtureError(
                f"{tool.name}: {guessed[name]!r} and {one.names[0]!r} would both be domain "
                f"{name!r}; give their domains with --paths FILE (in Python paths=)"
            )
        names.append(name)
    return names


def checked_amount(tool: ExportTool, domain: str, amount: object) -> float:
    """Return a weight as a number.

    Raises:
        MixtureError: It is none, or negative.
    """
    try:
        number = math.nan if isinstance(amount, bool) else float(amount)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise MixtureError(f"{tool.name}: {domain!r}: weight {amount!r} is not a number >= 0")
    return number


def _entries(tool: ExportTool, domain: str, amount: float, facts: Facts) -> Iterator[Entry]:
    paths, named = facts.places(domain), domain not in facts.paths
    if not tool.single_path or len(paths) == 1:
        yield Entry(domain, domain, paths, amount, named)
        return
    whole = tool.unit.divides and float(amount).is_integer() and amount >= len(paths)
    for number, (label, path) in enumerate(zip(_labels(domain, facts), paths, strict=True)):
        part = amount / len(paths) if tool.unit.divides else amount
        if whole:
            part = float(int(amount) // len(paths) + (number < int(amount) % len(paths)))
        yield Entry(domain, label, (path,), part, named)


def _labels(domain: str, facts: Facts) -> tuple[str, ...]:
    paths = facts.places(domain)
    if len(paths) == 1:
        return (domain,)
    return tuple(f"{domain}.{number}" for number in range(len(paths)))


def _check_apart(tool: ExportTool, entries: Sequence[Entry]) -> None:
    labels: dict[str, Entry] = {}
    paths: dict[str, Entry] = {}
    for entry in entries:
        other = labels.setdefault(entry.label, entry)
        if other is not entry:
            raise ConfigError(
                f"{tool.name}: a path of domain {entry.domain!r} and domain {other.domain!r} would"
                f" both be named {entry.label!r}; rename one"
            )
        for path in entry.paths:
            other = paths.setdefault(path, entry)
            if other.domain != entry.domain:
                raise ConfigError(
                    f"{tool.name}: domains {other.domain!r} and {entry.domain!r} have one path,"
                    f" {path!r}"
                )


def _name_of(key: str) -> str:
    return key if name_fault(key) is None else bare_name(key) or key
