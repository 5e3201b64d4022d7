"""Conditional rounds: what moves in a stage, and what is held as it was found before.

    within    the shares inside each branch move; what branches have in total is held
    between   what branches have moves; the shares inside each are held
    all       all moves, within a total variation of what was found

A branch is what is above the last part of a domain's path; a domain on the top level is one alone.

Shapes: N mixtures, D domains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from mixopt.config import Stage
from mixopt.constraints import Constraints, LinearLimit, Proportions, Radius, cap, floor
from mixopt.mixture import Mixture
from mixopt.system import Array

SOURCE = "design.stages"
STAGE_RADIUS = 0.2  # total variation from what was found that the last stage may try


def branches_of(domains: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the domains of each branch."""
    found: dict[str, tuple[str, ...]] = {}
    for name in domains:
        branch = name.rpartition("/")[0] or name
        found[branch] = (*found.get(branch, ()), name)
    return found


def stage_limits(stage: Stage, reference: Mixture, allowed: Constraints) -> Constraints:
    """Return what a stage may try, of what is allowed.

    Args:
        stage: What moves.
        reference: Where what is held stands; the middle of the last stage.
        allowed: What is allowed at all.

    Raises:
        InfeasibleError: No allowed mixture has what is held.
    """
    if stage == "all":
        return replace(allowed, convex=(Radius(reference, "what was found", "tv", STAGE_RADIUS),))
    branches = branches_of(allowed.domains)
    if stage == "within":
        return allowed.with_limits(_fixed_sums(branches, reference))
    nothing = [cap(name, 0.0, f"{SOURCE}: between") for name, one in reference.items() if not one]
    inner = [{name: reference[name] for name in members} for members in branches.values()]
    ratios = tuple(
        Proportions.of(one, allowed.domains, f"{SOURCE}: between")
        for one in inner
        if len(one) > 1 and sum(one.values()) > 0
    )
    return replace(allowed.with_limits(nothing), proportions=(*allowed.proportions, *ratios))


def _fixed_sums(branches: dict[str, tuple[str, ...]], reference: Mixture) -> Iterator[LinearLimit]:
    source = f"{SOURCE}: within"
    for branch, members in branches.items():
        total = sum(reference[name] for name in members)
        if len(members) == 1:
            yield cap(members[0], total, source)
            yield floor(members[0], total, source)
        else:
            yield LinearLimit(members, min(total, 1.0), source, branch)
            yield LinearLimit(members, min(total, 1.0), source, branch, is_floor=True)


def stage_mixtures(
    stage: Stage, reference: Mixture, strengths_N: Array, rng: np.random.Generator
) -> Array:
    """Draw mixtures of a stage from Dirichlet distributions around its reference, shape (N, D).

    Args:
        stage: `within` or `between`.
        reference: What is held is its; what moves is drawn around its square roots.
        strengths_N: Sum of the concentrations of each draw.
        rng: Of the draws.
    """
    domains = reference.domains
    places = [[domains.index(one) for one in own] for own in branches_of(domains).values()]
    shares_D, drawn_ND = reference.array, np.zeros((len(strengths_N), len(domains)))
    totals_B = np.array([shares_D[own].sum() for own in places])
    for row, strength in enumerate(strengths_N):
        sums_B = totals_B if stage == "within" else _drawn(totals_B, strength, rng)
        for own, total in zip(places, sums_B, strict=True):
            inner = shares_D[own] / (shares_D[own].sum() or 1.0)
            drawn_ND[row, own] = total * (
                _drawn(inner, strength, rng) if stage == "within" else inner
            )
    return drawn_ND


def _drawn(shares_K: Array, strength: float, rng: np.random.Generator) -> Array:
    flat_K = np.sqrt(shares_K)
    if len(shares_K) == 1 or not flat_K.any():
        return np.ones(len(shares_K)) / len(shares_K)
    drawn_K: Array = rng.dirichlet(np.maximum(strength * flat_K / flat_K.sum(), 1e-3))
    return drawn_K
