from .capped_simplex import CappedSimplex as CappedSimplex
from .constraints import Constraints as Constraints
from .convex_limits import (
    ConvexLimit as ConvexLimit,
    KLRadius as KLRadius,
    LinearForm as LinearForm,
    Radius as Radius,
    TotalVariationRadius as TotalVariationRadius,
    named_limit as named_limit,
)
from .feasible_set import FeasibleSet as FeasibleSet
from .guardrails import BASE as BASE, FLOOR as FLOOR, Guardrails as Guardrails
from .limits import (
    BROKEN as BROKEN,
    LinearLimit as LinearLimit,
    Proportions as Proportions,
    cap as cap,
    floor as floor,
)
from .solvers import (
    DifferentiableFunction as DifferentiableFunction,
    minimize_slsqp as minimize_slsqp,
)
