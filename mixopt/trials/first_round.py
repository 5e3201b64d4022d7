"""The first round of mixtures: anchors, replicates, axial and sampled mixtures; or microanneals.

Anchors are natural and uniform, also if they exceed a cap. Replicates train the uniform mixture
with other seeds, which measures the noise of a trial.

Sampled mixtures come from RegMix's Dirichlet draws, by `mixture_config/synthesize_mixture.py` in
github.com/sail-sg/regmix at commit b004d3a (Liu et al. 2024, arXiv:2407.01492), or from Sobol
points if rejection finds too few. With p the natural mixture:

1. The cap of domain j is u_j = min(max_usage p_j, 1), or a lower cap of the user.
2. The prior is tempered: q_j = p_j^(1/temperature) / sum_k p_k^(1/temperature).
3. `multiplier` x N times, draw x ~ Dirichlet(s q), where s is one of 15 strengths, log-spaced from
   min_strength to max_strength, with equal probability.
4. A draw with any x_j > u_j is rejected.
5. x_j < minimum becomes 0, x is rescaled and rounded to multiples of `minimum`; ours is rescaled
   again, and the caps are checked once more.
6. A row within an L1 distance of 1e-5 of another is dropped, and N of the others are chosen.

Axial: few trials tell most if each moves one domain (Cornell, Experiments with Mixtures). With a
share s and a centre c, the mixture of domain d has a share of s + (1 - s) c_d of domain d, and
(1 - s) c_j of every other domain j. A domain with a lower cap takes its cap, and the others share
the rest in proportion to the centre; a mixture close to the centre is left out. Designs of at least
2 D + 2 mixtures begin with axial mixtures unless configured otherwise.

Microanneals give each candidate source a fixed share of the tokens. With a share s and a base b,
the anneal of source d has a share of s of d and (1 - s) b of the rest; the control is b. Runs are
paired by seed.

Shapes: N mixtures, D domains, R draws, K dimensions of the cube, P axial mixtures.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from mixopt.config import AnnealsConfig, DesignConfig
from mixopt.constraints import CappedSimplex, Constraints, FeasibleSet, cap
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
from mixopt.trials.columns import WEIGHT, check_once, listed, named
from mixopt.trials.stages import stage_limits
from mixopt.trials.trial import Role, Trial

CONTROL: Role = "control"
ANNEAL: Role = "anneal"
COLUMNS: dict[str, Any] = {
    "trial": pl.String,
    "role": pl.String,
    "seed": pl.Int64,
    "round": pl.Int32,
    "mixture": pl.String,
}
AXIAL_SHARE = 0.5  # share s of an axial mixture
NEAR = 0.02  # total variation from the centre below which an axial mixture is left out
MIN_CENTER = 1e-12  # minimum share of the centre, so that every domain can be scaled
HALVINGS = 80
STRENGTHS = np.geomspace(0.1, 5.0, 15)  # of the Dirichlet prior
PHASE_STRENGTHS = np.geomspace(0.5, 10.0, 15)
MIN_CONCENTRATION = 1e-3  # of a domain, where mixtures are drawn by phase
TEMPERATURE = 2.0  # of the natural mixture, for the prior
MULTIPLIER = 100  # draws for each mixture of the design
MIN_WEIGHT = 2e-4  # smaller weights are set to 0
SAME_MIXTURE = 1e-5  # L1 distance below which two rows count as one mixture


def make_anneals(
    config: AnnealsConfig, natural: Mixture, constraints: Constraints, seeds: Iterable[int]
) -> list[Trial]:
    """Return the control and an anneal of each source, for each seed."""
    mixtures = dict(anneal_mixtures(config, natural))
    _check_anneal_epochs(config, list(mixtures.values()), constraints)
    trials = []
    for place, seed in enumerate(seeds):
        for name, mixture in mixtures.items():
            role = CONTROL if name == CONTROL else ANNEAL
            trials.append(Trial(f"{name}-s{place}", mixture, seed, role))
    return trials


def _check_anneal_epochs(
    config: AnnealsConfig, mixtures: Sequence[Mixture], constraints: Constraints
) -> None:
    """Raise InfeasibleError if an anneal repeats a domain more often than its limits allow."""
    epochs = [limit for limit in constraints.linear if limit.rate or limit.target_tokens]
    for limit in sorted(epochs, key=lambda cap: cap.domains[0] not in config.sources):
        (domain,) = limit.domains
        largest = max(mixtures, key=lambda mixture: mixture[domain])
        violation = limit.violation(largest)
        if violation:
            kind = "source" if domain in config.sources else "base domain"
            raise InfeasibleError(f"{kind} {violation.removeprefix('domain ')}")


def anneal_mixtures(config: AnnealsConfig, natural: Mixture) -> Iterator[tuple[str, Mixture]]:
    """Yield the mixtures of the control and of each source, with the first part of their names."""
    reference = natural if config.base == "natural" else config.base
    ratios = {name: float(reference.get(name, 0.0)) for name in natural}
    ratios |= dict.fromkeys(config.sources, 0.0)
    total = sum(ratios.values())
    if not total > 0:
        raise DesignError(
            "design.anneals.base: natural: domains that are no sources have no tokens"
        )
    base = Mixture({name: weight / total for name, weight in ratios.items()})
    yield CONTROL, base
    for source in config.sources:
        weights = {name: (1.0 - config.share) * weight for name, weight in base.items()}
        weights[source] = config.share
        yield f"{ANNEAL}_{source.replace('/', '.')}", Mixture(weights)


def write_design(trials: Sequence[Trial], path: Path) -> None:
    """Write the trials of a design in their order, atomically."""
    names = [check_name(trial.name, "trial", DesignError) for trial in trials]
    check_once(names, "the design")
    rows = []
    for trial in trials:
        row = {name: getattr(trial, name) for name in ("role", "seed", "round")}
        row["trial"] = trial.name
        row["mixture"] = trial.mixture.fingerprint
        row |= {WEIGHT + domain: weight for domain, weight in trial.mixture.items()}
        rows.append(row)
    domains = trials[0].mixture.domains if trials else ()
    weights = dict.fromkeys([WEIGHT + domain for domain in domains], pl.Float64)
    write_table(path, pl.DataFrame(rows, schema=COLUMNS | weights))


def read_design(path: Path) -> list[Trial]:
    """Read a design that `write_design` wrote, in the same order."""
    table = read_table(path, hint="make it again with mixopt run --from design", error=DesignError)
    for name in COLUMNS:
        if name not in table.columns:
            raise DesignError(f"{path}: not a design: no column {name!r}")
    domains = named(table, WEIGHT)
    if not domains:
        raise DesignError(f"{path}: not a design: no column 'weight/...'")
    for name in domains:
        check_path(name, f"{path}: domain", DesignError)
    for name, kind in COLUMNS.items():
        if table[name].dtype != kind or table[name].null_count():
            raise DesignError(f"{path}: {name}: expected {kind} in every row")
    return [_read_trial(path, row, domains) for row in table.iter_rows(named=True)]


def _read_trial(path: Path, row: Mapping[str, Any], domains: Sequence[str]) -> Trial:
    """Return the trial of a row of a design."""
    name = check_name(row["trial"], f"{path}: trial", DesignError)
    try:
        mixture = Mixture({domain: row[WEIGHT + domain] for domain in domains})
    except MixtureError as error:
        raise DesignError(f"{path}: trial {name!r}: {error}") from error
    if mixture.fingerprint != row["mixture"]:
        fingerprint = shown_value(row["mixture"])
        raise DesignError(f"{path}: trial {name!r}: its weights are not those of {fingerprint}")
    return Trial(name, mixture, row["seed"], row["role"], row["round"])


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

    With trials of an earlier corpus, only domains unknown to these have axial mixtures.
    """
    allowed = design_constraints(config, natural, constraints)
    if config.stages:
        allowed = first_stage(config, natural, allowed)
    if config.anneals is not None:
        seeds = trial_seeds([f"s{k}" for k in range(config.anneals.seeds)], seed=seed)
        return make_anneals(config.anneals, natural, allowed, seeds.values())
    members = _references(config, natural)
    existing = [member.mixture.array for member in members]
    axial_PD = _axial(config, natural, allowed.simplex, existing, unknown, say)
    sampled_ND = _sampled(config, natural, allowed, config.first_round - len(axial_PD), seed, say)
    for place, weights_D in enumerate(np.concatenate([axial_PD, sampled_ND])):
        role: Role = "axial" if place < len(axial_PD) else "sampled"
        mixture = Mixture.from_array(natural.domains, weights_D)
        members.append(_Member(f"t{place:04d}", mixture, role))
    seeds = trial_seeds([member.name for member in members], seed=seed)
    return [
        Trial(member.name, member.mixture, seeds[member.name], member.role) for member in members
    ]


class _Member(NamedTuple):
    """A mixture of a design, before it has a seed."""

    name: str
    mixture: Mixture
    role: Role


def first_stage(config: DesignConfig, natural: Mixture, allowed: Constraints) -> Constraints:
    """Return the limits of the first stage, with frozen parts as in natural."""
    assert config.stages
    nearest = Mixture.from_array(natural.domains, allowed.simplex.project(natural.array))
    return stage_limits(config.stages[0], nearest, allowed)


def design_constraints(
    config: DesignConfig, natural: Mixture, constraints: Constraints | None = None
) -> Constraints:
    """Return the constraints with the design's caps: `max_usage` x natural."""
    base = constraints or Constraints(natural.domains)
    usage = config.max_usage
    if usage is None:
        return base
    caps = []
    for name, share in natural.items():
        caps.append(cap(name, usage * share, "design.max_usage", setting=usage, rate=share))
    return base.with_limits(caps)


def _sampled(
    config: DesignConfig,
    natural: Mixture,
    constraints: Constraints,
    count: int,
    seed: int,
    say: Say,
) -> Array:
    """Return distinct, allowed sampled mixtures, shape (N, D)."""
    allowed = constraints.simplex
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
    phases = Phases.of(config.phases)
    if phases is not None:
        return allowed.inside(_by_phase(phases, natural, count, rng))
    natural_D = natural.over(constraints.domains).array
    draws = MULTIPLIER * count
    drawn_ND, accepted = draw_mixtures(natural_D, allowed, draws=draws, rng=rng)
    if len(drawn_ND) >= count:
        return drawn_ND[rng.choice(len(drawn_ND), count, replace=False)]
    say(
        f"Dirichlet draws found {len(drawn_ND)} of {count} distinct mixtures ({accepted} of"
        f" {draws} draws, {accepted / draws:.2g}, met the limits); Sobol points are tried instead"
    )
    return sobol_mixtures(allowed, count, rng=rng)


def _by_phase(phases: Phases, natural: Mixture, count: int, rng: np.random.Generator) -> Array:
    """Draw mixtures by phase, shape (N, D); every third is the same in all phases."""
    whole = phases.whole(natural)
    prior_D = whole.array**0.5
    first_phase, *_ = phases
    designs = []
    for place in range(count):
        mixtures = {}
        for phase, strength in zip(phases, rng.choice(PHASE_STRENGTHS, len(phases)), strict=True):
            concentrations_D = strength * prior_D / prior_D.sum()
            drawn_D = rng.dirichlet(np.maximum(concentrations_D, MIN_CONCENTRATION))
            mixtures[phase] = Mixture.from_array(whole.domains, drawn_D)
        if place % 3 == 0:
            mixtures = dict.fromkeys(phases, mixtures[first_phase])
        designs.append(phases.joined(mixtures).array)
    return np.array(designs)


def trial_seeds(names: Sequence[str], *, seed: int) -> dict[str, int]:
    """Return a seed for each trial: 48 bits that depend on its name and `seed`."""
    digests = {name: hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names}
    return {name: int.from_bytes(digest[:6], "big") for name, digest in digests.items()}


def _references(config: DesignConfig, natural: Mixture) -> list[_Member]:
    """Return the anchors and the replicates."""
    doubled = [name for name, count in Counter(config.anchors).items() if count > 1]
    if doubled:
        raise ConfigError(f"design.anchors: {doubled[0]!r} is given twice; see design.replicates")
    uniform = Mixture.uniform(natural.domains)
    phases = Phases.of(config.phases)
    if phases is not None:
        uniform = phases.tied(Mixture.uniform(phases.whole(natural).domains))
    mixtures = {"natural": natural, "uniform": uniform}
    members = [_Member(name, mixtures[name], "anchor") for name in config.anchors]
    names = [f"uniform_r{number}" for number in range(1, config.replicates + 1)]
    return members + [_Member(name, uniform, "replicate") for name in names]


def _axial(
    config: DesignConfig,
    natural: Mixture,
    allowed: FeasibleSet,
    existing: Sequence[Array],
    unknown: Sequence[str],
    say: Say,
) -> Array:
    """Return the axial mixtures of the design, shape (P, D)."""
    domains = natural.domains
    max_trials = config.first_round
    center_D = Mixture.uniform(domains).array
    is_plain = config.stages is None and config.phases is None and config.method is None
    if is_plain and config.earlier is not None:
        places = [domains.index(name) for name in unknown]
        axial_PD, _ = axial_mixtures(center_D, allowed, AXIAL_SHARE, existing=existing, of=places)
        return axial_PD[:max_trials]
    is_default = is_plain and config.trials >= 2 * len(domains) + 2 and max_trials > len(domains)
    if config.method != "axial" and not is_default:
        return np.empty((0, len(domains)))
    axial_PD, left_out = axial_mixtures(center_D, allowed, AXIAL_SHARE, existing=existing)
    if len(axial_PD) > max_trials:
        raise DesignError(
            f"design.trials: {max_trials} in the first round, but design.method: axial has "
            f"{len(axial_PD)} mixtures for {len(domains)} domains; raise design.trials, "
            "or set design.method: dirichlet"
        )
    if left_out:
        names = [domains[place] for place in left_out]
        say(
            f"no axial mixture for {len(names)} of {len(domains)} domains, whose limits keep it"
            f" near the uniform mixture: {listed(names)}"
        )
    return axial_PD


def draw_mixtures(
    natural_D: Array, allowed: FeasibleSet, *, draws: int, rng: np.random.Generator
) -> tuple[Array, int]:
    """Draw distinct mixtures by steps 2 to 6 above; also return the number of allowed draws."""
    tempered_D = natural_D ** (1.0 / TEMPERATURE)
    prior_D = tempered_D / tempered_D.sum()
    drawn_RD = _dirichlet(rng.choice(STRENGTHS, size=draws)[:, None] * prior_D, rng)
    rounded_RD = _round(drawn_RD[allowed.contains(drawn_RD)])
    allowed_RD = rounded_RD[allowed.contains(rounded_RD)]
    return _distinct(allowed_RD), len(allowed_RD)


def _dirichlet(concentrations_RD: Array, rng: np.random.Generator) -> Array:
    """Draw a row for each row of concentrations; a concentration of 0 gives a weight of 0."""
    positive = concentrations_RD > 0
    safe_RD = np.where(positive, concentrations_RD, 1.0)
    # Gamma(a) = Gamma(a + 1) U^(1/a), in logarithms, which do not underflow.
    log_RD = np.log(rng.standard_gamma(safe_RD + 1.0))
    log_RD += np.log1p(-rng.random(safe_RD.shape)) / safe_RD
    log_RD = np.where(positive, log_RD, -np.inf)
    scaled_RD = np.exp(log_RD - log_RD.max(axis=1, keepdims=True))
    weights_RD: Array = scaled_RD / scaled_RD.sum(axis=1, keepdims=True)
    return weights_RD


def _round(weights_RD: Array) -> Array:
    """Set weights below the minimum to 0, rescale, round to multiples of it, rescale."""
    shares_RD = np.where(weights_RD < MIN_WEIGHT, 0.0, weights_RD)
    shares_RD = shares_RD[shares_RD.sum(axis=1) > 0]
    shares_RD = shares_RD / shares_RD.sum(axis=1, keepdims=True)
    steps_RD = np.round(shares_RD / MIN_WEIGHT)
    steps_RD = steps_RD[steps_RD.sum(axis=1) > 0]
    rounded: Array = steps_RD / steps_RD.sum(axis=1, keepdims=True)
    return rounded


def _distinct(weights_RD: Array) -> Array:
    """Sort the rows and drop each that is within SAME_MIXTURE of the last one kept."""
    sorted_RD = weights_RD[np.lexsort(weights_RD.T[::-1])]
    distinct: list[int] = []
    for row, weights_D in enumerate(sorted_RD):
        if not distinct or np.abs(weights_D - sorted_RD[distinct[-1]]).sum() > SAME_MIXTURE:
            distinct.append(row)
    return sorted_RD[distinct]


def sobol_mixtures(allowed: FeasibleSet, count: int, *, rng: np.random.Generator) -> Array:
    """Return the first `count` scrambled Sobol points on the capped simplex, shape (N, D)."""
    if allowed.dimensions == 0:
        return np.tile(allowed.project(allowed.lower_D), (count, 1))
    weights_ND = allowed.from_cube(_sobol_points(count, allowed.dimensions, rng))
    return np.array([_without_crumbs(weights_D, allowed) for weights_D in weights_ND])


def _sobol_points(count: int, dimensions: int, rng: np.random.Generator) -> Array:
    """Return points of the cube, shape (N, K)."""
    from scipy.stats import qmc

    sobol = qmc.Sobol(dimensions, scramble=True, rng=rng)
    points: Array = sobol.random_base2(math.ceil(math.log2(max(count, 1))))[:count]
    return points


def _without_crumbs(weights_D: Array, allowed: FeasibleSet) -> Array:
    """Set weights below the minimum to 0, and give their share to the others within the bounds."""
    is_small_D = (weights_D < MIN_WEIGHT) & (weights_D > 0) & (allowed.lower_D == 0)
    upper_D = np.where(is_small_D, 0.0, allowed.upper_D)
    if not is_small_D.any() or upper_D.sum() < 1:
        return weights_D
    cleaned_D = CappedSimplex(allowed.lower_D, upper_D).project(weights_D)
    return cleaned_D if allowed.contains(cleaned_D)[0] else weights_D


def axial_mixtures(
    center_D: Array,
    allowed: FeasibleSet,
    share: float,
    *,
    existing: Sequence[Array] = (),
    of: Sequence[int] | None = None,
) -> tuple[Array, list[int]]:
    """Return the centre, moved within the limits, and an axial mixture for each domain.

    With `of`, only the mixtures of these domains, without the centre. Also returns the domains
    without a mixture.
    """
    domains = len(center_D)
    middle_1D = _filled(center_D[None], center_D, allowed, np.zeros((1, domains), dtype=bool))
    targets_DD = share * np.eye(domains) + (1.0 - share) * center_D
    axes_DD = _filled(targets_DD, center_D, allowed, np.eye(domains, dtype=bool))
    is_near_D = 0.5 * np.abs(axes_DD - middle_1D).sum(axis=1) < NEAR
    if of is None:
        places = np.flatnonzero(~is_near_D)
        candidates_PD = np.concatenate([middle_1D, axes_DD[places]])
    else:
        candidates_PD = axes_DD[[place for place in of if not is_near_D[place]]]
    chosen: list[Array] = []
    for weights_D in candidates_PD:
        if not _is_among(weights_D, [*existing, *chosen]):
            chosen.append(weights_D)
    return np.array(chosen).reshape(-1, domains), np.flatnonzero(is_near_D).tolist()


def _is_among(weights_D: Array, mixtures: Sequence[Array]) -> bool:
    """Return whether a mixture is within SAME_MIXTURE of another."""
    distances = [float(np.abs(weights_D - mixture_D).sum()) for mixture_D in mixtures]
    return min(distances, default=np.inf) <= SAME_MIXTURE


def _filled(
    targets_PD: Array, center_D: Array, allowed: FeasibleSet, is_axis_PD: BoolArray
) -> Array:
    """Give each mixture's own domain its share as far as allowed; scale the centre for the rest."""
    lower_D = allowed.lower_D
    upper_D = allowed.upper_D
    # The others stay between their floors and caps.
    highest_PD = np.minimum(upper_D, 1.0 - (lower_D.sum() - lower_D))
    lowest_PD = np.maximum(lower_D, 1.0 - (upper_D.sum() - upper_D))
    fixed_PD = np.clip(targets_PD, np.minimum(lowest_PD, highest_PD), highest_PD)
    shares_D = np.maximum(center_D, MIN_CENTER)
    low_P = np.zeros(len(targets_PD))
    high_P = np.full(len(targets_PD), 1.0 / MIN_CENTER)
    for _ in range(HALVINGS):
        # Bisect in logarithms: the factor may have any magnitude.
        middle_P = np.where(low_P > 0, np.sqrt(low_P * high_P), high_P * MIN_CENTER**0.5)
        rest_PD = np.clip(middle_P[:, None] * shares_D, lower_D, upper_D)
        over_P = np.where(is_axis_PD, fixed_PD, rest_PD).sum(axis=1) > 1.0
        low_P = np.where(over_P, low_P, middle_P)
        high_P = np.where(over_P, middle_P, high_P)
    rest_PD = np.clip(high_P[:, None] * shares_D, lower_D, upper_D)
    return allowed.project(np.where(is_axis_PD, fixed_PD, rest_PD))
