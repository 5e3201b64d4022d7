"""The mixtures of the first round: axial and sampled ones, anchors, and replicates.

Sampled mixtures come from RegMix's Dirichlet draws (mixopt.designs.dirichlet) or from scrambled
Sobol points on the capped simplex (mixopt.designs.sobol), which spread evenly, reject nothing, and
so work under caps and with numbers of domains at which rejection finds too little: there they take
the place of the draws. An axial design (mixopt.designs.axial) has one mixture a domain, and sampled
ones behind them. Anchors are the natural and the uniform mixture, the references that everything is
compared with; they are kept also where they are beyond a cap. Replicates train the uniform mixture
again under other seeds: how far they differ is the noise of a trial, below which no difference
between mixtures means anything. Where the design has rounds, all this is the first; what the later
ones try is chosen when its trials are trained (mixopt.pipeline.rounds).

Shapes: N mixtures, D domains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from mixopt.config import DesignConfig
from mixopt.constraints import Constraints, Limit, scaled_limit
from mixopt.designs.anneals import make_anneals
from mixopt.designs.axial import AxialMixtures, axial_mixtures
from mixopt.designs.dirichlet import MULTIPLIER, DirichletDraws, draw_mixtures
from mixopt.designs.sobol import sobol_mixtures
from mixopt.errors import ConfigError, DesignError
from mixopt.mixture import Mixture
from mixopt.system import Array, Say, silent
from mixopt.trials import Role, Trial

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
    """Return the trials: anchors, replicates, axial and sampled mixtures, in this order.

    Args:
        config: Method, number of mixtures, caps, anchors and replicates.
        natural: Each domain's share of the available tokens; the prior, and an anchor.
        constraints: What is allowed, if anything is not; all mixtures but anchors and replicates
            stay within it and within the design's own caps.
        seed: The run's seed; the mixtures and every trial's own seed follow from it.
        say: Called with a line where the design is not quite what was asked for.

    Returns:
        Trials named `natural`, `uniform`, `uniform_r1` ..., `t0000` ..., no two with one seed; of
        microanneals those of mixopt.designs.anneals, whose seeds are shared.

    Raises:
        ConfigError: A cap on an unknown domain, or an anchor given twice.
        InfeasibleError: No mixture meets the caps.
        DesignError: There are not as many mixtures, or trials are too few for an axial design.
    """
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
    """Return the constraints with the design's caps: `max_weights` and `max_usage` x natural.

    Raises:
        ConfigError: A cap on an unknown domain.
        InfeasibleError: No mixture meets them; the message names the caps and what fixes it.
    """
    base = constraints or Constraints(natural.domains)
    caps = [Limit(name, cap, "design.max_weights") for name, cap in config.max_weights.items()]
    if config.max_usage is not None:
        usage = config.max_usage
        caps += [scaled_limit(n, "design.max_usage", usage, share) for n, share in natural.items()]
    return base.with_caps(caps)


def sample_mixtures(
    config: DesignConfig,
    natural: Mixture,
    constraints: Constraints,
    *,
    seed: int,
    count: int | None = None,
    say: Say = silent,
) -> Array:
    """Return distinct sampled mixtures, shape (N, D), all allowed.

    Args:
        config: How they are drawn.
        natural: Prior of the draws.
        constraints: What is allowed.
        seed: Of the draws.
        count: How many; those of the first round when None.
        say: Called with a line where Sobol points take the place of draws.

    Raises:
        DesignError: More than one is asked for, and there is only one.
    """
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
        return sobol_mixtures(allowed, count, minimum=config.minimum, rng=rng)
    found = draw_mixtures(
        natural.over(constraints.domains).array,
        allowed,
        draws=MULTIPLIER * count,
        rng=rng,
        temperature=config.temperature,
        min_strength=config.min_strength,
        max_strength=config.max_strength,
        minimum=config.minimum,
    )
    if len(found.weights_ND) < count:
        say(_too_few(found, count))
        return sobol_mixtures(allowed, count, minimum=config.minimum, rng=rng)
    return found.weights_ND[rng.choice(len(found.weights_ND), count, replace=False)]


def trial_seeds(names: Sequence[str], *, seed: int) -> dict[str, int]:
    """Return a seed for each trial, no two alike: 48 bits that depend on its name and `seed`.

    A trial keeps its seed when the design around it changes.
    """
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
    center = natural if config.axial_center == "natural" else Mixture.uniform(domains)
    taken = [mixture.array for _, mixture, _ in references]
    allowed = constraints.simplex
    found = axial_mixtures(center.array, allowed, config.axial_share, taken=taken)
    if len(found.weights_PD) > most:
        raise DesignError(
            f"design.trials: {most} in the first round, but design.method: axial has "
            f"{len(found.weights_PD)} mixtures for {len(domains)} domains; raise design.trials, "
            "or set design.method: dirichlet"
        )
    if found.left_out:
        say(_left_out(found, config, domains))
    return found.weights_PD


def _left_out(found: AxialMixtures, config: DesignConfig, domains: Sequence[str]) -> str:
    names = [domains[place] for place in found.left_out]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (
        f"no axial mixture for {len(names)} of {len(domains)} domains, whose limits keep it near"
        f" the {config.axial_center} mixture: {', '.join(names[:NAMED])}{more}"
    )


def _too_few(found: DirichletDraws, count: int) -> str:
    accepted = found.accepted / found.draws
    return (
        f"Dirichlet draws found {len(found.weights_ND)} of {count} distinct mixtures"
        f" ({found.accepted} of {found.draws} draws, {accepted:.2g}, met the limits); Sobol points"
        " are tried instead (design.method: sobol)"
    )
