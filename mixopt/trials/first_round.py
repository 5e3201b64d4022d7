"""The mixtures of the first round: anchors, replicates, axial and sampled ones; or microanneals.

Sampled mixtures come from RegMix's draws, or from Sobol points where rejection finds too few.
Anchors are the natural and the uniform mixture, kept also where they are beyond a cap. Replicates
train the uniform mixture again under other seeds: how far they differ is the noise of a trial.

Microanneals give each candidate source a fixed share of the tokens. With a share s and a base b,
the anneal of source d has s of d and (1 - s) b of the rest; the control is b alone, so that the two
differ in what fills s of the tokens and in nothing else (the maths of Olmo 3's midtraining was
chosen by more than 80 such runs). All runs of one seed share it. Of each base domain an anneal
reads the first (1 - s) of what the control reads, in the same order, where the proxy draws rows so
(the decoder does); only which domain comes at which position differs.

Shapes: N mixtures, D domains, P axial mixtures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mixopt.config import AnnealsConfig, DesignConfig
from mixopt.constraints import Constraints, cap
from mixopt.errors import ConfigError, DesignError, InfeasibleError, MixtureError
from mixopt.mixture import Mixture
from mixopt.system import (
    Array,
    Say,
    check_name,
    check_names,
    read_table,
    shown_name,
    silent,
    write_table,
)
from mixopt.trials.mixture_draws import (
    MIN_WEIGHT,
    MULTIPLIER,
    AxialMixtures,
    DirichletDraws,
    axial_mixtures,
    draw_mixtures,
    sobol_mixtures,
)
from mixopt.trials.proxy import Role, Trial

CONTROL = "control"
ANNEAL = "anneal"
AXIAL_SHARE = 0.5  # how far an axial mixture moves from the uniform one to its domain
TOLERANCE = 1e-9  # of weights that are products


def make_anneals(
    config: AnnealsConfig, natural: Mixture, constraints: Constraints, seeds: list[int]
) -> list[Trial]:
    """Return the control and an anneal of each source, with all seeds, seed by seed."""
    mixtures = dict(anneal_mixtures(config, natural))
    _check_epochs(config, mixtures, constraints)
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
    """Return the base over all domains; sources have 0 of it."""
    given = natural if config.base == "natural" else config.base
    kept = {n: 0.0 if n in config.sources else float(given.get(n, 0.0)) for n in natural}
    total = sum(kept.values())
    if not total > 0:
        raise DesignError(
            "design.anneals.base: natural: domains that are no sources have no tokens"
        )
    return Mixture({name: weight / total for name, weight in kept.items()})


def _check_epochs(
    config: AnnealsConfig, mixtures: Mapping[str, Mixture], constraints: Constraints
) -> None:
    """Check that each domain has tokens enough for its weight in every anneal and the control."""
    epochs = [limit for limit in constraints.linear if limit.rate or limit.target_tokens]
    for limit in sorted(epochs, key=lambda one: one.domains[0] not in config.sources):
        (domain,) = limit.domains
        most = max(mixture[domain] for mixture in mixtures.values())
        if most > limit.value + TOLERANCE:
            kind = "source" if domain in config.sources else "base domain"
            raise InfeasibleError(f"{kind} {domain!r}: {limit.refusal(most)}")


def _role(name: str) -> Role:
    return "control" if name == CONTROL else "anneal"


WEIGHT = "weight/"
COLUMNS = {
    "trial": pl.String,
    "role": pl.String,
    "seed": pl.Int64,
    "round": pl.Int32,
    "mixture": pl.String,
}


def design_table(trials: Sequence[Trial]) -> pl.DataFrame:
    """Return the trials of a design as a table, in their order."""
    if not trials:
        raise DesignError("a design needs at least one trial")
    domains = trials[0].mixture.domains
    names: set[str] = set()
    for trial in trials:
        check_name(trial.name, "trial", DesignError)
        if trial.name in names:
            raise DesignError(f"trial {trial.name!r} is in the design twice")
        if trial.mixture.domains != domains:
            raise DesignError(f"trial {trial.name!r} has other domains than {trials[0].name!r}")
        names.add(trial.name)
    rows = [(t.name, t.role, t.seed, t.round, t.mixture.fingerprint) for t in trials]
    weights = {WEIGHT + name: [t.mixture[name] for t in trials] for name in domains}
    table = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    return table.with_columns(pl.Series(name, column) for name, column in weights.items())


def write_design(trials: Sequence[Trial], path: Path) -> None:
    """Write `design.parquet` at once."""
    write_table(path, design_table(trials))


def read_design(path: Path) -> list[Trial]:
    """Read what `write_design` wrote, in the same order."""
    table = read_table(path, mend="make it again with mixopt run --from design", error=DesignError)
    missing = [name for name in COLUMNS if name not in table.columns]
    domains = [name.removeprefix(WEIGHT) for name in table.columns if name.startswith(WEIGHT)]
    if missing or not domains:
        raise DesignError(f"{path}: not a design: no column {(missing or ['weight/...'])[0]!r}")
    check_names(domains, f"{path}: domain", DesignError)
    for name, kind in COLUMNS.items():
        if table[name].dtype != kind or table[name].null_count():
            raise DesignError(f"{path}: {name}: expected {kind} in every row")
    return [_trial(path, row, domains) for row in table.iter_rows(named=True)]


def _trial(path: Path, row: dict[str, Any], domains: Sequence[str]) -> Trial:
    name = check_name(row["trial"], f"{path}: trial", DesignError)
    try:
        mixture = Mixture({d: row[WEIGHT + d] for d in domains})
    except MixtureError as error:
        raise DesignError(f"{path}: trial {name!r}: {error}") from error
    if mixture.fingerprint != row["mixture"]:
        raise DesignError(
            f"{path}: trial {name!r}: its weights are not those of {shown_name(row['mixture'])}"
        )
    return Trial(name, mixture, row["seed"], row["role"], row["round"])


AXIAL_BY_DEFAULT = False  # where the first round has room for the centre and all domains
NAMED = 5  # domains that a line names


def make_design(
    config: DesignConfig,
    natural: Mixture,
    constraints: Constraints | None,
    seed: int,
    *,
    say: Say = silent,
) -> list[Trial]:
    """Return the trials: anchors, replicates, axial and sampled mixtures, in this order."""
    allowed = design_constraints(config, natural, constraints)
    if config.anneals is not None:
        seeds = trial_seeds([f"s{k}" for k in range(config.anneals.seeds)], seed=seed)
        return make_anneals(config.anneals, natural, allowed, list(seeds.values()))
    references = _references(config, natural)
    axial_PD = _axial(config, natural, allowed, references, say)
    sampled_ND = sample_mixtures(
        config, natural, allowed, seed=seed, count=config.first_round - len(axial_PD), say=say
    )
    tried: list[tuple[Array, Role]] = [(weights_D, "axial") for weights_D in axial_PD]
    tried += [(weights_D, "sampled") for weights_D in sampled_ND]
    trials = references + [
        (f"t{i:04d}", Mixture.from_array(natural.domains, weights_D), role)
        for i, (weights_D, role) in enumerate(tried)
    ]
    seeds = trial_seeds([name for name, _, _ in trials], seed=seed)
    return [Trial(n, mixture, seeds[n], role) for n, mixture, role in trials]


def design_constraints(
    config: DesignConfig, natural: Mixture, constraints: Constraints | None = None
) -> Constraints:
    """Return the constraints with the design's caps: `max_usage` x natural."""
    base, usage = constraints or Constraints(natural.domains), config.max_usage
    if usage is None:
        return base
    return base.with_limits(
        cap(name, usage * share, "design.max_usage", setting=usage, rate=share)
        for name, share in natural.items()
    )


def sample_mixtures(
    config: DesignConfig,
    natural: Mixture,
    constraints: Constraints,
    *,
    seed: int,
    count: int | None = None,
    say: Say = silent,
) -> Array:
    """Return distinct sampled mixtures, shape (N, D), all allowed."""
    allowed, count = constraints.simplex, config.first_round if count is None else count
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    if allowed.dimensions == 0 and config.trials > 1:
        only = Mixture.from_array(natural.domains, allowed.project(natural.array))
        raise DesignError(
            f"design.trials: {config.trials} requested, but only {only} is possible; add a "
            "domain, or widen the limits"
        )
    if count == 0:
        return np.empty((0, len(natural.domains)))
    if config.method == "sobol":
        return sobol_mixtures(allowed, count, minimum=MIN_WEIGHT, rng=rng)
    found = draw_mixtures(
        natural.over(constraints.domains).array,
        allowed,
        draws=MULTIPLIER * count,
        rng=rng,
    )
    if len(found.weights_ND) < count:
        say(_too_few(found, count))
        return sobol_mixtures(allowed, count, minimum=MIN_WEIGHT, rng=rng)
    return found.weights_ND[rng.choice(len(found.weights_ND), count, replace=False)]


def trial_seeds(names: Sequence[str], *, seed: int) -> dict[str, int]:
    """Return a seed for each trial, no two alike: 48 bits that depend on its name and `seed`."""
    seeds: dict[str, int] = {}
    for name in names:
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        value = int.from_bytes(digest[:6], "big")
        while value in seeds.values():
            value = (value + 1) % 2**48
        seeds[name] = value
    return seeds


def _references(config: DesignConfig, natural: Mixture) -> list[tuple[str, Mixture, Role]]:
    for anchor in config.anchors:
        if config.anchors.count(anchor) > 1:
            raise ConfigError(f"design.anchors: {anchor!r} is given twice; see design.replicates")
    uniform = Mixture.uniform(natural.domains)
    mixtures = {"natural": natural, "uniform": uniform}
    anchors: list[tuple[str, Mixture, Role]] = [(n, mixtures[n], "anchor") for n in config.anchors]
    repeats = range(1, config.replicates + 1)
    return anchors + [(f"uniform_r{i}", uniform, "replicate") for i in repeats]


def _axial(
    config: DesignConfig,
    natural: Mixture,
    constraints: Constraints,
    references: Sequence[tuple[str, Mixture, Role]],
    say: Say,
) -> Array:
    """Return the axial mixtures that the design has, shape (P, D)."""
    domains, most = natural.domains, config.first_round
    by_default = config.method is None and AXIAL_BY_DEFAULT and most > len(domains)
    if config.method != "axial" and not by_default:
        return np.empty((0, len(domains)))
    center = Mixture.uniform(domains)
    taken = [mixture.array for _, mixture, _ in references]
    allowed = constraints.simplex
    found = axial_mixtures(center.array, allowed, AXIAL_SHARE, taken=taken)
    if len(found.weights_PD) > most:
        raise DesignError(
            f"design.trials: {most} in the first round, but design.method: axial has "
            f"{len(found.weights_PD)} mixtures for {len(domains)} domains; raise design.trials, "
            "or set design.method: dirichlet"
        )
    if found.left_out:
        say(_left_out(found, domains))
    return found.weights_PD


def _left_out(found: AxialMixtures, domains: Sequence[str]) -> str:
    names = [domains[place] for place in found.left_out]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (
        f"no axial mixture for {len(names)} of {len(domains)} domains, whose limits keep it near"
        f" the uniform mixture: {', '.join(names[:NAMED])}{more}"
    )


def _too_few(found: DirichletDraws, count: int) -> str:
    accepted = found.accepted / found.draws
    return (
        f"Dirichlet draws found {len(found.weights_ND)} of {count} distinct mixtures"
        f" ({found.accepted} of {found.draws} draws, {accepted:.2g}, met the limits); Sobol points"
        " are tried instead (design.method: sobol)"
    )
