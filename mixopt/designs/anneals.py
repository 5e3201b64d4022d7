"""Microanneals: each candidate source at a fixed share of the tokens, and a matched control.

With a share s and a base mixture b, the anneal of source d has s of d and (1 - s) b of the rest;
the control is b alone, so that the two differ in what fills s of the tokens and in nothing else
(the maths of Olmo 3's midtraining was chosen by more than 80 such runs: 5B tokens of a source and
5B of web against 10B of web). Their mixtures are the centre and the axes of an axial design around
the base, which is why a fit can be made of them.

All runs of one seed share it: initial weights, the order of the data, and whatever else a proxy
draws from a trial's seed. Of each base domain an anneal reads the first (1 - s) of what the control
reads, in the same order, where the proxy draws rows so (the decoder does); only which domain comes
at which position differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mixopt.config import AnnealsConfig
from mixopt.constraints import Constraints
from mixopt.errors import DesignError, InfeasibleError
from mixopt.mixture import Mixture
from mixopt.trials import Role, Trial

CONTROL = "control"
ANNEAL = "anneal"
TOLERANCE = 1e-9  # of weights that are products


def make_anneals(
    config: AnnealsConfig, natural: Mixture, constraints: Constraints, seeds: list[int]
) -> list[Trial]:
    """Return the control and an anneal of each source, with all seeds, seed by seed.

    Args:
        config: Sources, share and base.
        natural: Each domain's share of the available tokens.
        constraints: Limits; those of epochs hold for each anneal and the control.
        seeds: One for each repetition.

    Returns:
        Trials named `control-s0`, `anneal_<source>-s0`, ..., `control-s1`, ...

    Raises:
        DesignError: The base has no tokens.
        InfeasibleError: A source has too few tokens for its share, or a domain of the base for its
            weight.
    """
    mixtures = dict(anneal_mixtures(config, natural))
    check_epochs(config, mixtures, constraints)
    return [
        Trial(f"{name}-s{place}", mixture, seed, _role(name))
        for place, seed in enumerate(seeds)
        for name, mixture in mixtures.items()
    ]


def anneal_mixtures(config: AnnealsConfig, natural: Mixture) -> Iterator[tuple[str, Mixture]]:
    """Yield the control's mixture and that of each source, by the first part of their names."""
    base = base_mixture(config, natural)
    yield CONTROL, base
    for source in config.sources:
        rest = {name: (1.0 - config.share) * weight for name, weight in base.items()}
        yield f"{ANNEAL}_{source}", Mixture({**rest, source: config.share})


def base_mixture(config: AnnealsConfig, natural: Mixture) -> Mixture:
    """Return the base over all domains; sources have 0 of it.

    Raises:
        DesignError: The domains that are not sources have no tokens.
    """
    given = natural if config.base == "natural" else config.base
    kept = {n: 0.0 if n in config.sources else float(given.get(n, 0.0)) for n in natural}
    total = sum(kept.values())
    if not total > 0:
        raise DesignError(
            "design.anneals.base: natural: domains that are no sources have no tokens"
        )
    return Mixture({name: weight / total for name, weight in kept.items()})


def check_epochs(
    config: AnnealsConfig, mixtures: Mapping[str, Mixture], constraints: Constraints
) -> None:
    """Check that each domain has tokens enough for its weight in every anneal and the control.

    Raises:
        InfeasibleError: One would be repeated more than `constraints.max_epochs`.
    """
    for cap in sorted(constraints.caps, key=lambda cap: cap.domain not in config.sources):
        most = max(mixture[cap.domain] for mixture in mixtures.values())
        if cap.rate and most > cap.value + TOLERANCE:
            kind = "source" if cap.domain in config.sources else "base domain"
            raise InfeasibleError(f"{kind} {cap.domain!r}: {cap.refuse(most)}")


def source_epochs(
    config: AnnealsConfig, inventory: Mapping[str, int], tokens: int
) -> dict[str, float]:
    """Return how often each source is read in a run of so many tokens at its share."""
    return _epochs(dict.fromkeys(config.sources, config.share), inventory, tokens)


def base_epochs(
    config: AnnealsConfig, natural: Mixture, inventory: Mapping[str, int], tokens: int
) -> dict[str, float]:
    """Return how often each domain of the base is read in a run of so many tokens of it alone."""
    base = base_mixture(config, natural)
    return _epochs({name: base[name] for name in base if base[name] > 0}, inventory, tokens)


def repeated_line(sources: Mapping[str, float], base: Mapping[str, float]) -> str | None:
    """Return a warning of what the full run reads more than once; None where that is nothing.

    Args:
        sources: How often each is read at its share, of those that no limit of epochs holds.
        base: The same of the base's domains in a run of the base alone.
    """
    parts = [("at this share", _often(sources)), ("on the base alone", _often(base))]
    said = [f"{where} the full run reads {often}" for where, often in parts if often]
    if not said:
        return None
    return f"warning: {'; '.join(said)}; set constraints.max_epochs to refuse that"


def _epochs(
    weights: Mapping[str, float], inventory: Mapping[str, int], tokens: int
) -> dict[str, float]:
    return {name: share * tokens / max(inventory[name], 1) for name, share in weights.items()}


def _often(epochs: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {count:.2g} times" for name, count in epochs.items() if count > 1.0)


def _role(name: str) -> Role:
    return "control" if name == CONTROL else "anneal"
