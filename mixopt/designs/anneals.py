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

from collections.abc import Iterator

from mixopt.config import AnnealsConfig
from mixopt.constraints import Constraints
from mixopt.errors import DesignError, InfeasibleError
from mixopt.mixture import Mixture
from mixopt.system import Say, silent
from mixopt.trials import Role, Trial

CONTROL = "control"
ANNEAL = "anneal"


def make_anneals(
    config: AnnealsConfig, natural: Mixture, constraints: Constraints, seeds: list[int]
) -> list[Trial]:
    """Return the control and an anneal of each source, with all seeds, seed by seed.

    Args:
        config: Sources, share and base.
        natural: Each domain's share of the available tokens.
        constraints: Limits; those of epochs hold for an anneal.
        seeds: One for each repetition.

    Returns:
        Trials named `control-s0`, `anneal_<source>-s0`, ..., `control-s1`, ...

    Raises:
        DesignError: The base has no tokens.
        InfeasibleError: A source has too few tokens for its share.
    """
    check_sources(config, constraints)
    mixtures = dict(anneal_mixtures(config, natural))
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


def check_sources(config: AnnealsConfig, constraints: Constraints) -> None:
    """Check that each source has tokens enough for its share.

    Raises:
        InfeasibleError: One would be repeated more than `constraints.max_epochs`.
    """
    for cap in constraints.caps:
        if cap.domain in config.sources and cap.rate and config.share > cap.value:
            raise InfeasibleError(f"source {cap.domain!r}: {cap.refuse(config.share)}")


def source_epochs(
    config: AnnealsConfig, inventory: dict[str, int], tokens: int
) -> dict[str, float]:
    """Return how often each source is read in a run of so many tokens at its share."""
    taken = config.share * tokens
    return {name: taken / max(inventory[name], 1) for name in config.sources}


def say_repeated(epochs: dict[str, float], limited: bool, say: Say = silent) -> None:
    """Say which sources are read more than once, where no limit of epochs refuses it."""
    often = [f"{name} {count:.2g} times" for name, count in epochs.items() if count > 1.0]
    if often and not limited:
        say(
            f"warning: at this share the full run reads {', '.join(often)}; set"
            " constraints.max_epochs to refuse that"
        )


def _role(name: str) -> Role:
    return "control" if name == CONTROL else "anneal"
