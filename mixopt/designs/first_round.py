"""Which mixtures to try: sampled ones, anchors, and replicates of one mixture.

Sampled mixtures come from RegMix's Dirichlet draws (mixopt.designs.dirichlet) or from scrambled
Sobol points on the capped simplex (mixopt.constraints.capped_simplex), which spread evenly, reject
nothing, and so work under caps at which rejection finds nothing. Anchors are the natural and the
uniform mixture, the references that everything is compared with; they are kept also where they are
beyond a cap. Replicates train the uniform mixture again under other seeds: how far they differ is
the noise of a trial, below which no difference between mixtures means anything. Where the design
has rounds, all this is the first; what the later ones try is chosen when its trials are trained
(mixopt.pipeline.rounds).

Shapes: N sampled mixtures, D domains.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from mixopt.config import DesignConfig
from mixopt.constraints import Allowed, CappedSimplex, Constraints, Limit, scaled_limit
from mixopt.designs.dirichlet import MULTIPLIER, DirichletDraws, draw_mixtures
from mixopt.errors import ConfigError, DesignError
from mixopt.mixture import Mixture
from mixopt.system import Array
from mixopt.trials import Role, Trial


def make_design(
    config: DesignConfig,
    natural: Mixture,
    constraints: Constraints | None,
    seed: int,
) -> list[Trial]:
    """Return the trials of a design: anchors, replicates, sampled mixtures, in this order.

    Args:
        config: Method, number of sampled mixtures, caps, anchors and replicates.
        natural: Each domain's share of the tokens that there are; the prior, and an anchor.
        constraints: What is allowed, if anything is not; sampled mixtures stay within it and
            within the design's own caps.
        seed: The run's seed; the mixtures and every trial's own seed follow from it.

    Returns:
        Trials named `natural`, `uniform`, `uniform_r1` ..., `t0000` ..., no two with one seed.

    Raises:
        ConfigError: A cap on an unknown domain, or an anchor given twice.
        InfeasibleError: No mixture meets the caps.
        DesignError: Rejection found fewer mixtures than asked for.
    """
    allowed = design_constraints(config, natural, constraints)
    weights_ND = sample_mixtures(config, natural, allowed, seed=seed)
    trials: list[tuple[str, Mixture, Role]] = [
        *_references(config, natural),
        *(
            (f"t{i:04d}", Mixture.from_array(natural.domains, weights_D), "sampled")
            for i, weights_D in enumerate(weights_ND)
        ),
    ]
    seeds = trial_seeds([name for name, _, _ in trials], seed=seed)
    return [Trial(n, mixture, seeds[n], role) for n, mixture, role in trials]


def design_constraints(
    config: DesignConfig, natural: Mixture, constraints: Constraints | None = None
) -> Constraints:
    """Return the constraints with the design's caps: `max_weights` and `max_usage` x natural.

    Raises:
        ConfigError: A cap on an unknown domain.
        InfeasibleError: No mixture meets them; the message names the caps and what mends it.
    """
    base = constraints or Constraints(natural.domains)
    caps = [Limit(name, cap, "design.max_weights") for name, cap in config.max_weights.items()]
    if config.max_usage is not None:
        usage = config.max_usage
        caps += [scaled_limit(n, "design.max_usage", usage, share) for n, share in natural.items()]
    return base.with_caps(caps)


def sample_mixtures(
    config: DesignConfig, natural: Mixture, constraints: Constraints, *, seed: int
) -> Array:
    """Return as many distinct mixtures as the first round has, shape (N, D), all allowed.

    Raises:
        DesignError: There are fewer, or rejection found fewer.
    """
    allowed, count = constraints.simplex, config.first_round
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    if allowed.dimensions == 0 and config.trials > 1:
        only = Mixture.from_array(natural.domains, allowed.project(natural.array))
        raise DesignError(
            f"design.trials: {config.trials} asked for, but {only} is all there is; add a domain,"
            " or widen the limits"
        )
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
        raise DesignError(_too_few(found, count))
    return found.weights_ND[rng.choice(len(found.weights_ND), count, replace=False)]


def sobol_mixtures(
    allowed: Allowed, count: int, *, minimum: float, rng: np.random.Generator
) -> Array:
    """Return the first `count` scrambled Sobol points on the capped simplex, shape (N, D).

    Args:
        allowed: Bounds of the weights.
        count: How many.
        minimum: Weights below become 0, where the bounds leave room for that.
        rng: Scrambles the points.
    """
    if allowed.dimensions == 0:
        return np.tile(allowed.project(allowed.lower_D), (count, 1))
    from scipy.stats import qmc

    sobol = qmc.Sobol(allowed.dimensions, scramble=True, rng=rng)
    cube_NK = sobol.random_base2(math.ceil(math.log2(count)) if count > 1 else 0)[:count]
    weights_ND = allowed.from_cube(cube_NK)
    return np.array([_without_crumbs(weights_D, allowed, minimum) for weights_D in weights_ND])


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


def _without_crumbs(weights_D: Array, allowed: Allowed, minimum: float) -> Array:
    """Set weights below the minimum to 0 and give their share to the others, within the bounds."""
    crumbs_D = (weights_D < minimum) & (weights_D > 0) & (allowed.lower_D == 0)
    upper_D = np.where(crumbs_D, 0.0, allowed.upper_D)
    if not crumbs_D.any() or upper_D.sum() < 1:
        return weights_D
    return CappedSimplex(allowed.lower_D, upper_D).project(weights_D)


def _too_few(found: DirichletDraws, count: int) -> str:
    accepted = found.accepted / found.draws
    return (
        f"design.trials: found {len(found.weights_ND)} of {count} distinct mixtures:"
        f" {found.accepted} of {found.draws} draws ({accepted:.2g}) met the bounds;"
        " set design.method: sobol, which needs no rejection, or widen the caps"
    )
