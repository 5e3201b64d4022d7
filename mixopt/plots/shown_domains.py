"""Which domains a figure shows, and in which size: all of sixty, of more those that matter most.

A figure with a row for each domain has up to `ROWS` of them, low ones where they are many; one with
a panel for each has up to `PANELS`, since hundreds of panels take minutes to lay out and nobody
reads them. What is left out is said on the axis, and can be asked for by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from mixopt.errors import ConfigError, did_you_mean
from mixopt.plots.figure_style import LETTER

ROWS = 64
PANELS = 24
FEW = 20  # rows up to which they are high, with numbers beside all bars


def row_height(rows: int) -> float:
    """Return the height of a domain's row, in inches."""
    return 0.42 if rows <= FEW else 0.17


def row_letter(rows: int) -> float:
    """Return the size of the letters in a domain's row, in points."""
    return LETTER if rows <= FEW else LETTER - 2.5


def largest(domains: Iterable[str], shares: Iterable[Mapping[str, float]], most: int) -> list[str]:
    """Return the domains with the largest share in any of some mixtures, in their order."""
    names, mixtures = list(domains), list(shares)
    order = sorted(names, key=lambda name: -max(mixture[name] for mixture in mixtures))
    kept = set(order[:most])
    return [name for name in names if name in kept]


def asked_domains(
    asked: Sequence[str] | None,
    domains: Collection[str],
    shares: Iterable[Mapping[str, float]],
    most: int,
) -> list[str]:
    """Return the domains that are asked for; else those with the largest shares.

    Raises:
        ConfigError: One that is not there, with the nearest name, or none at all.
    """
    if asked is None:
        return largest(domains, shares, most)
    check_known(asked, domains, "domain")
    if not asked:
        raise ConfigError("a figure of no domains was asked for: name one, or leave domains out")
    return list(dict.fromkeys(asked))


def check_known(asked: Iterable[str], known: Collection[str], what: str) -> None:
    """Check that names are known.

    Raises:
        ConfigError: One is not, with the nearest name.
    """
    for name in asked:
        if name not in known:
            raise ConfigError(f"unknown {what} {name!r}{did_you_mean(name, known)}")


def of_all(shown: Collection[str], domains: Collection[str]) -> str:
    """Say how many of the domains are shown, where not all are."""
    if len(shown) == len(domains):
        return ""
    return f" ({len(shown)} of {len(domains)} domains)"
