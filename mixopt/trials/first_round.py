"""The mixtures of the first round: anchors, replicates, axial and sampled ones; or microanneals.

Anchors are the natural and the uniform mixture, kept also where they are beyond a cap. Replicates
train the uniform mixture again under other seeds: how far they differ is the noise of a trial.

Sampled mixtures come from RegMix's Dirichlet draws, by `mixture_config/synthesize_mixture.py` in
github.com/sail-sg/regmix at commit b004d3a (Liu et al. 2024, arXiv:2407.01492), or from Sobol
points where rejection finds too few. With p the natural mixture:

1. The cap of domain j is u_j = min(max_usage p_j, 1); further caps of the user lower it.
2. The prior is tempered: q_j = p_j^(1/temperature) / sum_k p_k^(1/temperature).
3. `multiplier` x N times, draw x ~ Dirichlet(s q), where s is one of 15 strengths, log-spaced from
   min_strength to max_strength, each as likely as another.
4. A draw with any x_j > u_j is rejected.
5. x_j < minimum becomes 0, x is rescaled and rounded to multiples of `minimum`; ours is rescaled
   again, and the caps are checked once more.
6. A row within an L1 distance of 1e-5 of another is dropped, and N of what is left are chosen.

Axial: few trials tell most where each of them moves one domain (Cornell, Experiments with
Mixtures). With a share s and a centre c, the mixture of domain d has s + (1 - s) c_d of it and
(1 - s) c_j of every other domain j. A domain whose cap is lower takes its cap, and the others share
what is left in proportion to the centre; where that is nearly the centre, there is no mixture for
it. A design of at least 2 D + 2 mixtures begins with them unless it says otherwise.

Microanneals give each candidate source a fixed share of the tokens. With a share s and a base b,
the anneal of source d has s of d and (1 - s) b of the rest; the control is b alone. All runs of one
seed share it.

Shapes: N mixtures, D domains, R draws, K dimensions of the cube, P axial mixtures.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mixopt.config import AnnealsConfig, DesignConfig
from mixopt.constraints import Allowed, CappedSimplex, Constraints, cap
from mixopt.errors import ConfigError, DesignError, InfeasibleError, MixtureError
from mixopt.mixture import Mixture, Phases
from mixopt.system import (
    Array,
    BoolArray,
    Say,
    check_name,
    check_path,
    read_table,
    shown_value,
    silent,
    write_table,
)
from mixopt.trials.columns import WEIGHT, check_once
from mixopt.trials.proxy import Role, Trial
from mixopt.trials.stages import stage_limits

CONTROL = "control"
ANNEAL = "anneal"
AXIAL_SHARE = 0.5  # how far an axial mixture moves from the uniform one to its domain


def make_anneals(
    config: AnnealsConfig, natural: Mixture, constraints: Constraints, seeds: list[int]
) -> list[Trial]:
    """Return the control and an anneal of each source, with all seeds, seed by seed."""
    mixtures = dict(anneal_mixtures(config, natural))
    _check_epochs(config, mixtures, constraints)
    return [
        Trial(f"{name}-s{place}", mixture, seed, "control" if name == CONTROL else "anneal")
        for place, seed in enumerate(seeds)
        for name, mixture in mixtures.items()
    ]


def anneal_mixtures(config: AnnealsConfig, natural: Mixture) -> Iterator[tuple[str, Mixture]]:
    """Yield the control's mixture and that of each source, by the first part of their names."""
    base = base_mixture(config, natural)
    yield CONTROL, base
    for source in config.sources:
        rest = {name: (1.0 - config.share) * weight for name, weight in base.items()}
        yield f"{ANNEAL}_{source.replace('/', '.')}", Mixture({**rest, source: config.share})


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
        most = max(mixtures.values(), key=lambda mixture: mixture[domain])
        line = limit.violation(most)
        if line is not None:
            kind = "source" if domain in config.sources else "base domain"
            raise InfeasibleError(f"{kind} {line.removeprefix('domain ')}")


COLUMNS = {
    "trial": pl.String,
    "role": pl.String,
    "seed": pl.Int64,
    "round": pl.Int32,
    "mixture": pl.String,
}


def write_design(trials: Sequence[Trial], path: Path) -> None:
    """Write the trials of a design, in their order, as `design.parquet` at once."""
    domains = trials[0].mixture.domains if trials else ()
    names = [check_name(trial.name, "trial", DesignError) for trial in trials]
    check_once(names, "the design")
    rows = [(t.name, t.role, t.seed, t.round, t.mixture.fingerprint) for t in trials]
    weights = {WEIGHT + name: [t.mixture[name] for t in trials] for name in domains}
    table = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    write_table(path, table.with_columns(pl.Series(n, column) for n, column in weights.items()))


def read_design(path: Path) -> list[Trial]:
    """Read what `write_design` wrote, in the same order."""
    table = read_table(path, hint="make it again with mixopt run --from design", error=DesignError)
    missing = [name for name in COLUMNS if name not in table.columns]
    domains = [name.removeprefix(WEIGHT) for name in table.columns if name.startswith(WEIGHT)]
    if missing or not domains:
        raise DesignError(f"{path}: not a design: no column {(missing or ['weight/...'])[0]!r}")
    for name in domains:
        check_path(name, f"{path}: domain", DesignError)
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
            f"{path}: trial {name!r}: its weights are not those of {shown_value(row['mixture'])}"
        )
    return Trial(name, mixture, row["seed"], row["role"], row["round"])


NAMED = 5  # domains that a line names


def make_design(
    config: DesignConfig,
    natural: Mixture,
    constraints: Constraints | None,
    seed: int,
    *,
    unknown: Sequence[str] = (),
    say: Say = silent,
) -> list[Trial]:
    """Return the trials: anchors, replicates, axial and sampled mixtures, in this order.

    Beside trials of an earlier corpus, axial ones are of the domains that these do not know.
    """
    allowed = design_constraints(config, natural, constraints)
    if config.stages:
        allowed = first_stage(config, natural, allowed)
    if config.anneals is not None:
        seeds = trial_seeds([f"s{k}" for k in range(config.anneals.seeds)], seed=seed)
        return make_anneals(config.anneals, natural, allowed, list(seeds.values()))
    references = _references(config, natural)
    axial_PD = _axial(config, natural, allowed, references, unknown, say)
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


def first_stage(config: DesignConfig, natural: Mixture, allowed: Constraints) -> Constraints:
    """Return what the first stage may try: what it holds is as in the natural mixture."""
    assert config.stages
    nearest = Mixture.from_array(natural.domains, allowed.simplex.project(natural.array))
    return stage_limits(config.stages[0], nearest, allowed)


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
    if config.stages:
        return allowed.from_cube(_sobol_points(count, allowed.dimensions, rng))
    if (phases := Phases.of(config.phases)) is not None:
        return allowed.inside(_by_phase(phases, natural, count, rng))
    if config.method == "sobol":
        return sobol_mixtures(allowed, count, minimum=MIN_WEIGHT, rng=rng)
    found_ND, accepted = draw_mixtures(
        natural.over(constraints.domains).array,
        allowed,
        draws=MULTIPLIER * count,
        rng=rng,
    )
    if len(found_ND) >= count:
        return found_ND[rng.choice(len(found_ND), count, replace=False)]
    say(
        f"Dirichlet draws found {len(found_ND)} of {count} distinct mixtures ({accepted} of"
        f" {MULTIPLIER * count} draws, {accepted / (MULTIPLIER * count):.2g}, met the limits);"
        " Sobol points are tried instead (design.method: sobol)"
    )
    return sobol_mixtures(allowed, count, minimum=MIN_WEIGHT, rng=rng)


def _by_phase(phases: Phases, natural: Mixture, count: int, rng: np.random.Generator) -> Array:
    """Draw mixtures by phase, of which every third is the same in all phases, shape (N, D)."""
    domains, found = phases.whole(natural).domains, []
    prior_D = phases.whole(natural).array ** 0.5
    for place in range(count):
        strengths = rng.choice(np.geomspace(*PHASE_STRENGTHS, STRENGTHS), size=len(phases))
        drawn_PD = np.array(
            [rng.dirichlet(np.maximum(s * prior_D / prior_D.sum(), 1e-3)) for s in strengths]
        )
        if place % 3 == 0:
            drawn_PD[:] = drawn_PD[0]
        mixtures = [Mixture.from_array(domains, drawn_D) for drawn_D in drawn_PD]
        found.append(phases.joined(dict(zip(phases, mixtures, strict=True))).array)
    return np.array(found)


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
    if (phases := Phases.of(config.phases)) is not None:
        uniform = phases.tied(Mixture.uniform(phases.whole(natural).domains))
    mixtures = {"natural": natural, "uniform": uniform}
    anchors: list[tuple[str, Mixture, Role]] = [(n, mixtures[n], "anchor") for n in config.anchors]
    repeats = range(1, config.replicates + 1)
    return anchors + [(f"uniform_r{i}", uniform, "replicate") for i in repeats]


def _axial(
    config: DesignConfig,
    natural: Mixture,
    constraints: Constraints,
    references: Sequence[tuple[str, Mixture, Role]],
    unknown: Sequence[str],
    say: Say,
) -> Array:
    """Return the axial mixtures that the design has, shape (P, D)."""
    domains, most = natural.domains, config.first_round
    is_plain = config.stages is None and config.phases is None
    is_default = is_plain and config.method is None and config.trials >= 2 * len(domains) + 2
    center = Mixture.uniform(domains)
    taken = [mixture.array for _, mixture, _ in references]
    allowed = constraints.simplex
    if is_plain and config.method is None and config.earlier is not None:
        places = [domains.index(name) for name in unknown]
        return axial_mixtures(center.array, allowed, AXIAL_SHARE, taken=taken, of=places)[0][:most]
    if config.method != "axial" and not (is_default and most > len(domains)):
        return np.empty((0, len(domains)))
    axial_PD, left_out = axial_mixtures(center.array, allowed, AXIAL_SHARE, taken=taken)
    if len(axial_PD) > most:
        raise DesignError(
            f"design.trials: {most} in the first round, but design.method: axial has "
            f"{len(axial_PD)} mixtures for {len(domains)} domains; raise design.trials, "
            "or set design.method: dirichlet"
        )
    if left_out:
        names = [domains[place] for place in left_out]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        say(
            f"no axial mixture for {len(names)} of {len(domains)} domains, whose limits keep it"
            f" near the uniform mixture: {', '.join(names[:NAMED])}{more}"
        )
    return axial_PD


STRENGTHS = 15
PHASE_STRENGTHS = (0.5, 10.0)
MULTIPLIER = 100
MIN_WEIGHT = 2e-4  # smaller weights are set to 0
SAME_MIXTURE = 1e-5  # L1 distance under which two rows are one mixture


def draw_mixtures(
    natural_D: Array,
    allowed: Allowed,
    *,
    draws: int,
    rng: np.random.Generator,
    temperature: float = 2.0,
    min_strength: float = 0.1,
    max_strength: float = 5.0,
    minimum: float = MIN_WEIGHT,
) -> tuple[Array, int]:
    """Draw mixtures by steps 2 to 6 above, all that are distinct; count those that are allowed."""
    tempered_D = natural_D ** (1.0 / temperature)
    prior_D = tempered_D / tempered_D.sum()
    strengths = np.geomspace(min_strength, max_strength, STRENGTHS)
    drawn_RD = _dirichlet(rng.choice(strengths, size=draws)[:, None] * prior_D, rng)
    inside_RD = drawn_RD[_inside(drawn_RD, allowed)]
    rounded_RD = _round(inside_RD, minimum)
    allowed_RD = rounded_RD[_inside(rounded_RD, allowed)]
    return _distinct(allowed_RD), len(allowed_RD)


def _dirichlet(concentrations_RD: Array, rng: np.random.Generator) -> Array:
    """Draw a row for each row of concentrations; a concentration of 0 gives a weight of 0."""
    positive = concentrations_RD > 0
    safe_RD = np.where(positive, concentrations_RD, 1.0)
    # Gamma(a) = Gamma(a + 1) U^(1/a); its logarithm has no smallest number.
    log_RD = np.log(rng.standard_gamma(safe_RD + 1.0))
    log_RD += np.log1p(-rng.random(safe_RD.shape)) / safe_RD
    log_RD = np.where(positive, log_RD, -np.inf)
    scaled_RD = np.exp(log_RD - log_RD.max(axis=1, keepdims=True))
    weights_RD: Array = scaled_RD / scaled_RD.sum(axis=1, keepdims=True)
    return weights_RD


def _inside(weights_RD: Array, allowed: Allowed) -> BoolArray:
    if not len(weights_RD):
        return np.zeros(0, dtype=bool)
    return allowed.contains(weights_RD, tolerance=1e-9)


def _round(weights_RD: Array, minimum: float) -> Array:
    """Zero what is below the minimum, rescale, round to multiples of it, rescale."""
    if minimum == 0 or not len(weights_RD):
        return weights_RD
    kept_RD = np.where(weights_RD < minimum, 0.0, weights_RD)
    kept_RD = kept_RD[kept_RD.sum(axis=1) > 0]
    kept_RD = kept_RD / kept_RD.sum(axis=1, keepdims=True)
    steps_RD = np.round(kept_RD / minimum)
    steps_RD = steps_RD[steps_RD.sum(axis=1) > 0]
    rounded: Array = steps_RD / steps_RD.sum(axis=1, keepdims=True)
    return rounded


def _distinct(weights_RD: Array) -> Array:
    """Sort the rows and drop each that is within SAME_MIXTURE of the last one kept."""
    sorted_RD = weights_RD[np.lexsort(weights_RD.T[::-1])]
    kept: list[int] = []
    for row, weights_D in enumerate(sorted_RD):
        if not kept or np.abs(weights_D - sorted_RD[kept[-1]]).sum() > SAME_MIXTURE:
            kept.append(row)
    return sorted_RD[kept]


def sobol_mixtures(
    allowed: Allowed, count: int, *, minimum: float, rng: np.random.Generator
) -> Array:
    """Return the first `count` scrambled Sobol points on the capped simplex, shape (N, D)."""
    if allowed.dimensions == 0:
        return np.tile(allowed.project(allowed.lower_D), (count, 1))
    weights_ND = allowed.from_cube(_sobol_points(count, allowed.dimensions, rng))
    return np.array([_without_crumbs(weights_D, allowed, minimum) for weights_D in weights_ND])


def _sobol_points(count: int, dimensions: int, rng: np.random.Generator) -> Array:
    """Return points of the cube, shape (N, K); random ones beyond the dimensions of Sobol's."""
    from scipy.stats import qmc

    if dimensions > qmc.Sobol.MAXDIM:
        return rng.random((count, dimensions))
    sobol = qmc.Sobol(dimensions, scramble=True, rng=rng)
    points: Array = sobol.random_base2(math.ceil(math.log2(count)) if count > 1 else 0)[:count]
    return points


def _without_crumbs(weights_D: Array, allowed: Allowed, minimum: float) -> Array:
    """Set weights below the minimum to 0 and give their share to the others, within the bounds."""
    crumbs_D = (weights_D < minimum) & (weights_D > 0) & (allowed.lower_D == 0)
    upper_D = np.where(crumbs_D, 0.0, allowed.upper_D)
    if not crumbs_D.any() or upper_D.sum() < 1:
        return weights_D
    cleaned_D = CappedSimplex(allowed.lower_D, upper_D).project(weights_D)
    return cleaned_D if allowed.contains(cleaned_D)[0] else weights_D


NEAR = 0.02  # total variation from the centre under which a mixture tells nothing of its own
HALVINGS = 80
MIN_CENTER = 1e-12  # of the centre, so that a domain that the centre leaves out can be filled


def axial_mixtures(
    center_D: Array,
    allowed: Allowed,
    share: float,
    *,
    taken: Sequence[Array] = (),
    of: Sequence[int] | None = None,
) -> tuple[Array, list[int]]:
    """Return the centre, moved within the limits, and an axial mixture for each domain.

    Or without the centre, those `of` some domains, by position.

    Also the positions of domains that have none.
    """
    domains = len(center_D)
    interior_point_D = _filled(
        center_D[None], center_D, allowed, np.zeros((1, domains), dtype=np.bool_)
    )
    wanted_DD = share * np.eye(domains) + (1.0 - share) * center_D
    axes_DD = _filled(wanted_DD, center_D, allowed, np.eye(domains, dtype=np.bool_))
    away_D = 0.5 * np.abs(axes_DD - interior_point_D).sum(axis=1)
    kept: list[Array] = []
    wanted = [place for place in (range(domains) if of is None else of) if away_D[place] >= NEAR]
    for weights_D in [*(interior_point_D if of is None else ()), *axes_DD[wanted]]:
        if all(np.abs(weights_D - one).sum() > SAME_MIXTURE for one in (*taken, *kept)):
            kept.append(weights_D)
    return np.array(kept).reshape(-1, domains), np.flatnonzero(away_D < NEAR).tolist()


def _filled(wanted_PD: Array, center_D: Array, allowed: Allowed, own_PD: BoolArray) -> Array:
    """Keep each mixture's own domain as near as the limits allow; scale the centre for the rest."""
    lower_D, upper_D = allowed.lower_D, allowed.upper_D
    # The others can take no less than their floors and no more than their caps.
    most_PD = np.minimum(upper_D, 1.0 - (lower_D.sum() - lower_D))
    least_PD = np.maximum(lower_D, 1.0 - (upper_D.sum() - upper_D))
    fixed_PD = np.clip(wanted_PD, np.minimum(least_PD, most_PD), most_PD)
    shares_D = np.maximum(center_D, MIN_CENTER)
    low_P, high_P = np.zeros(len(wanted_PD)), np.full(len(wanted_PD), 1.0 / MIN_CENTER)
    for _ in range(HALVINGS):
        # The geometric middle at first, since the factor may be of any size.
        middle_P = np.where(low_P > 0, np.sqrt(low_P * high_P), high_P * MIN_CENTER**0.5)
        rest_PD = np.clip(middle_P[:, None] * shares_D, lower_D, upper_D)
        over_P = np.where(own_PD, fixed_PD, rest_PD).sum(axis=1) > 1.0
        low_P, high_P = np.where(over_P, low_P, middle_P), np.where(over_P, middle_P, high_P)
    rest_PD = np.clip(high_P[:, None] * shares_D, lower_D, upper_D)
    return allowed.project(np.where(own_PD, fixed_PD, rest_PD))
