"""What figures take as mixtures: a proposal, a recommendation, a mixture, or several by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

from mixopt.errors import ConfigError
from mixopt.mixture import Mixture

if TYPE_CHECKING:
    from mixopt.proposals import Proposal, Recommendation

    Shares: TypeAlias = Mapping[str, float]
    MixturesLike: TypeAlias = Proposal | Recommendation | Shares | Mapping[str, Shares]


def mixtures_by_name(given: MixturesLike) -> dict[str, Shares]:
    """Return what is shown, by what a figure calls it; the first is what it is about.

    Raises:
        ConfigError: There is nothing to show, or the mixtures are of different domains.
    """
    own = getattr(given, "mixture", None)
    if own is not None:
        return {"recommended" if hasattr(given, "chosen") else "proposed": own}
    several = cast("Mapping[str, Shares]", given)
    if not isinstance(next(iter(several.values()), None), Mapping):
        return {"mixture": cast("Shares", given)} if several else _nothing()
    found = dict(several)
    first = next(iter(found))
    for name, mixture in found.items():
        if set(mixture) != set(found[first]):
            odd = sorted(set(mixture) ^ set(found[first]))[0]
            raise ConfigError(f"mixtures {first!r} and {name!r}: domain {odd!r} is in one of them")
    return found


def natural_of(given: MixturesLike) -> Shares | None:
    """Return the natural mixture that a proposal or a recommendation knows of."""
    natural: Shares | None = getattr(given, "natural", None) if not _is_mapping(given) else None
    return natural


def centre(given: Proposal | Recommendation | Shares, domains: tuple[str, ...]) -> Mixture:
    """Return the mixture that a figure is drawn around, in the order of the domains.

    Raises:
        MixtureError: It is of other domains, or no mixture.
    """
    own = getattr(given, "mixture", given)
    mixture = own if isinstance(own, Mixture) else Mixture(cast("Shares", own))
    return mixture.over(domains)


def _is_mapping(given: object) -> bool:
    return isinstance(given, Mapping)


def _nothing() -> dict[str, Shares]:
    raise ConfigError("a figure of no mixtures was asked for: give it one")
