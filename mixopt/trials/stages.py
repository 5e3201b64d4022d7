"""Conditional rounds: the free and the frozen part of each stage.

    within    shares inside branches are free; totals of branches are frozen
    between   totals of branches are free; shares inside branches are frozen
    all       all shares are free, within a total variation of the result so far

A branch is a domain's path without its last part; a domain on the top level is its own branch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mixopt.config import Stage
from mixopt.constraints import Constraints, LinearLimit, Proportions, TotalVariationRadius, cap
from mixopt.mixture import Mixture, branches_of

SOURCE = "design.stages"
STAGE_RADIUS = 0.2  # total variation around the result so far, for the stage `all`


def stage_limits(stage: Stage, reference: Mixture, allowed: Constraints) -> Constraints:
    """Return the constraints of a stage.

    Args:
        stage: The kind of stage.
        reference: The mixture of the frozen part; the centre of the stage `all`.
        allowed: The constraints of the design.

    Raises:
        InfeasibleError: No allowed mixture has the frozen part.
    """
    if stage == "all":
        around = TotalVariationRadius(reference, "what was found", STAGE_RADIUS)
        return replace(allowed, convex=(around,))
    branches = branches_of(allowed.domains)
    if stage == "within":
        return allowed.with_limits(_fixed_sums(branches, reference))
    source = f"{SOURCE}: between"
    zero_caps = [cap(name, 0.0, source) for name, share in reference.items() if not share]
    fixed = list(allowed.proportions)
    for members in branches.values():
        shares = {name: reference[name] for name in members}
        if len(shares) > 1 and sum(shares.values()) > 0:
            fixed.append(Proportions.of(shares, allowed.domains, source))
    return replace(allowed.with_limits(zero_caps), proportions=tuple(fixed))


def _fixed_sums(
    branches: Mapping[str, tuple[str, ...]], reference: Mixture
) -> Iterator[LinearLimit]:
    """Yield the cap and the floor that hold the total of each branch."""
    for branch, members in branches.items():
        total = min(sum(reference[name] for name in members), 1.0)
        group = branch if len(members) > 1 else None
        maximum = LinearLimit(members, total, f"{SOURCE}: within", group)
        yield maximum
        yield replace(maximum, is_floor=True)
