"""The set of allowed mixtures, and its geometry.

Bounds by domain and group, epochs, a radius around a reference and guardrails. Whether any mixture
satisfies them is decided before anything is fitted; an infeasible set is reported with the smallest
change that makes it feasible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.constraints.capped_simplex import CappedSimplex as CappedSimplex
    from mixopt.constraints.constraints import Constraints as Constraints
    from mixopt.constraints.convex_set import Allowed as Allowed, limits_of as limits_of
    from mixopt.constraints.domain_limits import Limit as Limit, scaled_limit as scaled_limit
    from mixopt.constraints.guardrails import (
        BASE as BASE,
        MISSED as MISSED,
        Guardrails as Guardrails,
        Guards as Guards,
    )
    from mixopt.constraints.solvers import Smooth as Smooth, downhill as downhill
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "capped_simplex": ["CappedSimplex"],
            "constraints": ["Constraints"],
            "convex_set": ["Allowed", "limits_of"],
            "domain_limits": ["Limit", "scaled_limit"],
            "guardrails": ["BASE", "Guardrails", "Guards", "MISSED"],
            "solvers": ["Smooth", "downhill"],
        },
    )
