"""Draw mixtures: RegMix's Dirichlet draws, scrambled Sobol points, and axial mixtures.

Dirichlet: the method is that of `mixture_config/synthesize_mixture.py` in github.com/sail-sg/regmix
at commit b004d3a (Liu et al. 2024, arXiv:2407.01492). With p the natural mixture:

1. The cap of domain j is u_j = min(max_usage p_j, 1), from p before tempering. Further caps of
   the user lower it.
2. The prior is tempered: q_j = p_j^temperature / sum_k p_k^temperature.
3. `multiplier` x N times, draw x ~ Dirichlet(s q), where s is one of 15 strengths, log-spaced from
   min_strength to max_strength, each as likely as another.
4. A draw with any x_j > u_j is rejected.
5. x_j < minimum becomes 0, x is rescaled to add up to 1 and rounded to multiples of `minimum`.
6. The rows are sorted (lexsort), a row within an L1 distance of 1e-5 of the last one kept is
   dropped, and N of what is left are chosen at random.

Where ours differs: after step 5 the row is rescaled again, and the caps are checked once more,
because zeroing and rounding can carry a weight over its cap. Draws are made from logarithms, so
that tiny strengths do not underflow.

Axial: few trials tell most where each of them moves one domain (Cornell, Experiments with
Mixtures). With a share s and a centre c, the mixture of domain d has s + (1 - s) c_d of it and
(1 - s) c_j of every other domain j. A domain whose cap is lower takes its cap, and the others share
what is left in proportion to the centre. Where caps leave a domain nearly at the centre, there is
no mixture for it.

Shapes: N mixtures, D domains, R draws, K dimensions of the cube, P axial mixtures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.constraints import Allowed, CappedSimplex
from mixopt.system import Array, BoolArray

STRENGTHS = 15
MULTIPLIER = 100
MIN_WEIGHT = 2e-4  # smaller weights are set to 0
SAME_MIXTURE = 1e-5  # L1 distance under which two rows are one mixture


@dataclass(frozen=True)
class DirichletDraws:
    """What came of the draws: distinct mixtures that are allowed, and how rare they were."""

    weights_ND: Array
    draws: int
    accepted: int


def draw_mixtures(
    natural_D: Array,
    allowed: Allowed,
    *,
    draws: int,
    rng: np.random.Generator,
    temperature: float = 0.5,
    min_strength: float = 0.1,
    max_strength: float = 5.0,
    minimum: float = MIN_WEIGHT,
) -> DirichletDraws:
    """Draw mixtures by steps 2 to 6 above, all that are distinct and allowed."""
    prior_D = natural_D**temperature / (natural_D**temperature).sum()
    strengths = np.geomspace(min_strength, max_strength, STRENGTHS)
    drawn_RD = _dirichlet(rng.choice(strengths, size=draws)[:, None] * prior_D, rng)
    inside_RD = drawn_RD[_inside(drawn_RD, allowed)]
    rounded_RD = _round(inside_RD, minimum)
    allowed_RD = rounded_RD[_inside(rounded_RD, allowed)]
    return DirichletDraws(_distinct(allowed_RD), draws, len(allowed_RD))


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


@dataclass(frozen=True, eq=False)
class AxialMixtures:
    """The mixtures of an axial design."""

    weights_PD: Array
    left_out: tuple[int, ...]


def axial_mixtures(
    center_D: Array, allowed: Allowed, share: float, *, taken: Sequence[Array] = ()
) -> AxialMixtures:
    """Return the centre, moved within the limits, and an axial mixture for each domain."""
    domains = len(center_D)
    interior_point_D = _filled(
        center_D[None], center_D, allowed, np.zeros((1, domains), dtype=np.bool_)
    )
    wanted_DD = share * np.eye(domains) + (1.0 - share) * center_D
    axes_DD = _filled(wanted_DD, center_D, allowed, np.eye(domains, dtype=np.bool_))
    away_D = 0.5 * np.abs(axes_DD - interior_point_D).sum(axis=1)
    kept: list[Array] = []
    for weights_D in [interior_point_D[0], *axes_DD[away_D >= NEAR]]:
        if all(np.abs(weights_D - one).sum() > SAME_MIXTURE for one in (*taken, *kept)):
            kept.append(weights_D)
    left_out = tuple(int(place) for place in np.flatnonzero(away_D < NEAR))
    return AxialMixtures(np.array(kept).reshape(-1, domains), left_out)


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
