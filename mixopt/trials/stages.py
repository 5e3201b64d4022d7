"""Conditional rounds: what moves in a stage, and what is held as it was found before.

    within    the shares inside each branch move; what branches have in total is held
    between   what branches have moves; the shares inside each are held
    all       all moves, within a total variation of what was found

A branch is what is above the last part of a domain's path; a domain on the top level is one alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mixopt.config import Stage
from mixopt.constraints import Constraints, ConvexLimit, LinearLimit, Proportions, cap
from mixopt.mixture import Mixture, branches_of

SOURCE = "design.stages"
STAGE_RADIUS = 0.2  # total variation from what was found that the last stage may try


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
        return replace(
            allowed, convex=(ConvexLimit(reference, "what was found", "tv", STAGE_RADIUS),)
        )
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
    for branch, members in branches.items():
        total = min(sum(reference[name] for name in members), 1.0)
        group = branch if len(members) > 1 else None
        for is_floor in (False, True):
            yield LinearLimit(members, total, f"{SOURCE}: within", group, is_floor=is_floor)
