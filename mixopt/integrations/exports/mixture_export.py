"""Write a mixture as a trainer's configuration has it, and read such a configuration as a mixture.

A `Mixture` is shares of the tokens. Trainers take probabilities of sequences or of samples, numbers
of samples, or epochs (mixopt.integrations.exports.units). An export whose unit needs
what is not known is an error; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mixopt.errors import ConfigError, MixtureError, did_you_mean
from mixopt.integrations.exports.entries import entries_of, shares_of
from mixopt.integrations.exports.export_tool import ExportTool, left_out
from mixopt.integrations.exports.facts import Paths, checked_facts
from mixopt.integrations.exports.tools import EXPORT_TOOLS
from mixopt.mixture import Mixture
from mixopt.system import read_text


def export_mixture(
    mixture: Mixture,
    to: str,
    *,
    inventory: Mapping[str, int] | None = None,
    tokens: float | None = None,
    paths: Paths | None = None,
    sample_tokens: Mapping[str, float] | float | None = None,
) -> str:
    """Write a mixture as a fragment of a tool's configuration, in the tool's unit.

    Args:
        mixture: Shares of the tokens.
        to: The tool, one of `EXPORT_TOOLS`.
        inventory: Distinct tokens of each domain, which epochs need.
        tokens: Length of the run in tokens, which epochs and numbers of samples need.
        paths: Where each domain's data is, one path or several; its name where none is given.
        sample_tokens: Mean tokens of a sample of each domain, or of all, which samples need.

    Returns:
        The fragment; its header says tool, version, unit and command.

    Raises:
        ConfigError: An unknown tool, what the unit needs is not known, or a name or path that the
            tool's format cannot carry.
    """
    tool = export_tool(to)
    facts = checked_facts(
        tool.name,
        mixture.domains,
        inventory=inventory,
        tokens=tokens,
        paths=paths,
        sample_tokens=sample_tokens,
    )
    entries, zeros = entries_of(tool, tool.unit.amounts(mixture, facts), facts)
    divided = len(entries) > len({entry.domain for entry in entries})
    return tool.write(entries, tool.header(zeros, divided=divided), facts)


def import_mixture(
    source: str | Path,
    tool: str,
    *,
    inventory: Mapping[str, int] | None = None,
    paths: Paths | None = None,
    sample_tokens: Mapping[str, float] | float | None = None,
) -> Mixture:
    """Read a fragment of a tool's configuration, also one written by hand, as a mixture.

    Python is parsed, never run.

    Args:
        source: The text of the fragment; a `Path` is the file of it.
        tool: The tool, one of `EXPORT_TOOLS`.
        inventory: Distinct tokens of each domain, which epochs need.
        paths: As in `export_mixture`: which domain a path is of. Without it, a path's last part is
            the domain's name.
        sample_tokens: Mean tokens of a sample of each domain, or of all, which samples need.

    Returns:
        Shares of the tokens; domains of `paths` (else `inventory`, else `sample_tokens`) that the
        fragment does not have get 0.

    Raises:
        ConfigError: An unknown tool, or what the unit needs is not known.
        MixtureError: The fragment cannot be read.
    """
    found = export_tool(tool)
    where = str(source) if isinstance(source, Path) else found.name
    text = read_text(source, error=MixtureError) if isinstance(source, Path) else source
    facts = checked_facts(
        where, None, inventory=inventory, tokens=None, paths=paths, sample_tokens=sample_tokens
    )
    shares = shares_of(found, found.read(text, facts), facts)
    zeros = [name for name in (*left_out(text), *facts.domains) if name not in shares]
    return _ordered({**shares, **dict.fromkeys(zeros, 0.0)}, facts.domains)


def export_tool(name: str) -> ExportTool:
    """Return a tool by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in EXPORT_TOOLS:
        raise ConfigError(f"unknown tool {name!r}{did_you_mean(str(name), EXPORT_TOOLS)}")
    return EXPORT_TOOLS[name]


def _ordered(shares: dict[str, float], domains: tuple[str, ...]) -> Mixture:
    first = [name for name in domains if name in shares]
    names = [*first, *(name for name in shares if name not in first)]
    return Mixture({name: shares[name] for name in names}, tolerance=1e-6)
