from .capped_simplex import CappedSimplex as CappedSimplex
from .constraints import Constraints as Constraints
from .convex_set import Allowed as Allowed, ConvexSet as ConvexSet, limits_of as limits_of
from .guardrails import (
    BASE as BASE,
    FLOOR as FLOOR,
    MISSED as MISSED,
    Guardrails as Guardrails,
    Guards as Guards,
)
from .limits import (
    LinearLimit as LinearLimit,
    Proportions as Proportions,
    Radius as Radius,
    cap as cap,
    floor as floor,
)
from .solvers import (
    DifferentiableFunction as DifferentiableFunction,
    minimize_slsqp as minimize_slsqp,
)
