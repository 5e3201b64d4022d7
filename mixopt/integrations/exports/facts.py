"""Facts about domains besides their shares: sizes, samples and paths.

A unit that needs an unknown value reports it in one line that names the domain and the option.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixopt.errors import ConfigError, did_you_mean

Paths = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Facts:
    """What an export may need.

    Attributes:
        tool: The tool that messages name.
        inventory: Distinct tokens of each domain.
        tokens: Length of the run in tokens; None where that is not known.
        sample_tokens: Mean tokens of a sample (a document, a row) of each domain, or of all.
        paths: Where each domain's data is, one path or several; a domain that is not there is
            named by itself.
    """

    tool: str
    inventory: Mapping[str, float] = field(default_factory=dict)
    tokens: float | None = None
    sample_tokens: Mapping[str, float] | float = field(default_factory=dict)
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains that have a path, else those with a size, else those with a sample."""
        samples = self.sample_tokens if isinstance(self.sample_tokens, Mapping) else {}
        return tuple(self.paths or self.inventory or samples)

    def size(self, domain: str) -> float:
        """Return the distinct tokens of a domain.

        Raises:
            ConfigError: They are not known.
        """
        if domain not in self.inventory:
            raise ConfigError(
                f"{self.tool}: needs how many tokens domain {domain!r} has; give it in"
                " --inventory FILE (in Python inventory=)"
            )
        return self.inventory[domain]

    def sample(self, domain: str) -> float:
        """Return the mean tokens of a sample of a domain.

        Raises:
            ConfigError: They are not known.
        """
        if isinstance(self.sample_tokens, (int, float)):
            return float(self.sample_tokens)
        if domain not in self.sample_tokens:
            raise ConfigError(
                f"{self.tool}: draws samples, not tokens, and needs the mean tokens of a sample of"
                f" domain {domain!r}; give it in --sample-tokens FILE, or one number for all"
                " (in Python sample_tokens=)"
            )
        return self.sample_tokens[domain]

    def length(self) -> float:
        """Return the length of the run in tokens.

        Raises:
            ConfigError: It is not known.
        """
        if self.tokens is None:
            raise ConfigError(
                f"{self.tool}: needs the length of the run; give --tokens, such as 25e9 (in Python"
                " tokens=)"
            )
        return self.tokens

    def places(self, domain: str) -> tuple[str, ...]:
        """Return where a domain's data is; its name where no path is known."""
        return self.paths.get(domain, (domain,))


def checked_facts(
    tool: str,
    domains: Iterable[str] | None,
    *,
    inventory: Mapping[str, int] | None,
    tokens: float | None,
    paths: Paths | None,
    sample_tokens: Mapping[str, float] | float | None,
) -> Facts:
    """Return what is known, checked.

    Args:
        tool: The tool that messages name.
        domains: The mixture's domains, which paths must be of; None where they are not known yet.
        inventory: Distinct tokens of each domain.
        tokens: Length of the run.
        paths: A path, or several, of each domain.
        sample_tokens: Mean tokens of a sample of each domain, or of all.

    Raises:
        ConfigError: A number that is none, a path that is none, or a path of an unknown domain.
    """
    known = None if domains is None else list(domains)
    for name in paths or {}:
        if known is not None and name not in known:
            raise ConfigError(f"paths: unknown domain {name!r}{did_you_mean(str(name), known)}")
    samples: Mapping[str, float] | float
    if isinstance(sample_tokens, Mapping):
        samples = _numbers("sample_tokens", sample_tokens)
    else:
        samples = {} if sample_tokens is None else _number("sample_tokens", sample_tokens)
    return Facts(
        tool,
        _numbers("inventory", inventory or {}),
        None if tokens is None else _number("tokens", tokens),
        samples,
        {name: _paths(name, value) for name, value in (paths or {}).items()},
    )


def _paths(domain: str, value: Any) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    is_list = isinstance(found, Sequence) and all(isinstance(path, str) for path in found)
    if not is_list or not found or not all(path.strip() for path in found):
        raise ConfigError(f"paths: {domain}: {value!r} is neither a path nor a list of paths")
    if len(set(found)) < len(found):
        raise ConfigError(f"paths: {domain}: a path is given twice; each counts once")
    return tuple(found)


def _numbers(where: str, values: Mapping[str, Any]) -> dict[str, float]:
    return {name: _number(f"{where}: {name}", value) for name, value in values.items()}


def _number(where: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(f"{where}: {value!r} is not a number above 0")
    return number
