"""Domains that no loss measures: any regressor sees no benefit in them, though there may be one.

Where losses are named after domains, a domain without a loss of its own is unmeasured: whatever
it is good for is in no column. A proposal keeps such a domain at a share of its natural weight
unless it is told not to, and reports it.

Shapes: N trials, D domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mixopt.constraints import Limit
from mixopt.errors import InfeasibleError
from mixopt.mixture import Mixture

if TYPE_CHECKING:
    from mixopt.constraints import Constraints

SOURCE = "propose.keep_unmeasured"


def unmeasured(domains: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
    """Return the domains without a loss; none where the losses are not of domains at all."""
    if not set(domains) & set(targets):
        return ()
    return tuple(name for name in domains if name not in targets)


def keeping_unmeasured(
    constraints: Constraints, natural: Mixture, targets: Sequence[str], share: float
) -> tuple[Constraints, tuple[str, ...]]:
    """Return the constraints with a floor under each unmeasured domain, and their names.

    Args:
        constraints: What is allowed besides.
        natural: What the floors are shares of.
        targets: Names of all losses of the trials.
        share: Floor as a share of the natural weight; 0 sets none.

    A floor gives way to a cap of its domain. Floors that no allowed mixture meets are left out.
    """
    most = dict(zip(constraints.domains, constraints.upper_D.tolist(), strict=True))
    names = unmeasured(constraints.domains, targets) if share > 0 else ()
    floors = [Limit(n, min(share * natural[n], most[n]), SOURCE, setting=share) for n in names]
    floors = [floor for floor in floors if floor.value > 0]
    if not floors:
        return constraints, ()
    try:
        return constraints.with_floors(floors), tuple(floor.domain for floor in floors)
    except InfeasibleError:
        return constraints, ()
