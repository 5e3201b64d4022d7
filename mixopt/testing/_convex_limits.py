"""The promises of a convex limit (mixopt.constraints.ConvexLimit), checked on random mixtures.

Shapes: N mixtures, D domains, R rows, U further variables of a linear form.
"""

from collections.abc import Callable

import numpy as np

from mixopt.constraints import BROKEN, Constraints, ConvexLimit, LinearForm
from mixopt.errors import InfeasibleError
from mixopt.mixture import Mixture
from mixopt.system import Array
from mixopt.testing._promises import Promises

NATURAL = Mixture({"web": 0.5, "code": 0.25, "law": 0.2, "books": 0.05})
MIXTURES = 200
ROUNDING = 1e-17  # how far below 0 a weight may be by rounding
CONVEX_ERROR = 1e-9  # rounding of a value, relative to the largest values
STEP = 1e-6  # of a finite difference, in weight
GRADIENT_ERROR = 1e-4  # error of a finite difference, relative to the largest slope

promise = Promises("a convex limit")


def check_convex_limit(make: Callable[[Mixture], ConvexLimit]) -> None:
    """Check that a convex limit keeps its promises.

    Args:
        make: Returns the limit from the natural mixture: the class, or with options
            `lambda natural: MyLimit(natural, minimum=1.5)`.

    Raises:
        AssertionError: A promise is broken; the message names it and the observed behaviour.
    """
    with promise.works("it is created with the natural mixture"):
        limit = make(NATURAL)
    is_limit = isinstance(limit, ConvexLimit)
    promise(is_limit, "it is derived from mixopt.constraints.ConvexLimit", type(limit).__name__)
    promise(np.isfinite(limit.upper), "upper is a finite number", limit.upper)
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(len(NATURAL)), MIXTURES)
    _check_value(limit, weights_ND)
    _check_gradient(limit, weights_ND)
    _check_set(limit, weights_ND)
    _check_texts(limit, weights_ND)


def _value(limit: ConvexLimit, weights_ND: Array, claim: str) -> Array:
    """Return the value of each mixture, inf included."""
    with promise.works(claim):
        values_N = np.asarray(limit.value(weights_ND))
    promise.same(values_N.shape, (len(weights_ND),), claim)
    promise(not np.isnan(values_N).any(), f"{claim}, none of which is nan", values_N)
    return values_N


def _check_value(limit: ConvexLimit, weights_ND: Array) -> None:
    given_ND = weights_ND.copy()
    values_N = _value(limit, given_ND, "value returns a number for each mixture")
    promise((given_ND == weights_ND).all(), "value does not change its argument")
    claim = "the value of a mixture does not depend on the other rows"
    alone_N = np.concatenate([_value(limit, row_D[None], claim) for row_D in weights_ND[:5]])
    promise(np.allclose(alone_N, values_N[:5], rtol=1e-12), claim, f"{alone_N}, {values_N[:5]}")
    corners_DD = np.eye(len(NATURAL))
    claim = "a weight below 0 by rounding counts as 0"
    at_0_D = _value(limit, corners_DD, claim)
    below_0_D = _value(limit, corners_DD - ROUNDING, claim)
    promise(np.allclose(at_0_D, below_0_D, atol=BROKEN), claim, f"{below_0_D}, not {at_0_D}")
    ends_ND = np.vstack([weights_ND, corners_DD])
    others_ND = np.random.default_rng(1).permutation(ends_ND)
    means_N = (_value(limit, ends_ND, claim) + _value(limit, others_ND, claim)) / 2
    middle_N = _value(limit, (ends_ND + others_ND) / 2, claim)
    is_finite_N = np.isfinite(means_N)
    excess_N = middle_N[is_finite_N] - means_N[is_finite_N]
    allowed = CONVEX_ERROR * (1.0 + np.abs(means_N[is_finite_N]).max(initial=0.0))
    claim = "value is convex: halfway between two mixtures it is at most the mean of theirs"
    promise((excess_N <= allowed).all(), claim, f"above by {excess_N.max(initial=0.0):.3g}")


def _check_gradient(limit: ConvexLimit, weights_ND: Array) -> None:
    claim = "gradient returns a finite slope for each domain, also where a weight is 0"
    for corner_D in np.eye(len(NATURAL)):
        with promise.works(claim):
            slopes_D = limit.gradient(corner_D)
        promise.array(slopes_D, corner_D.shape, claim)
    claim = "gradient is that of value, between mixtures"
    for weights_D in weights_ND[(weights_ND > 100 * STEP).all(axis=1)][:20]:
        with promise.works(claim):
            slopes_D = promise.array(limit.gradient(weights_D), weights_D.shape, claim)
        for domain in range(1, len(weights_D)):
            move_D = np.zeros_like(weights_D)
            move_D[0] = -STEP
            move_D[domain] = STEP
            low, high = _value(limit, np.stack([weights_D - move_D, weights_D + move_D]), claim)
            if np.isfinite([low, high]).all():
                slope = (high - low) / (2 * STEP)
                stated = float(slopes_D @ move_D) / STEP
                error = GRADIENT_ERROR * (1.0 + float(np.abs(slopes_D).max()))
                promise(abs(slope - stated) <= error, claim, f"{stated:.6g}, not {slope:.6g}")


def _check_set(limit: ConvexLimit, weights_ND: Array) -> None:
    claim = "some mixture meets it, which a solver finds by value and gradient"
    try:
        allowed = Constraints(NATURAL.domains, convex=(limit,)).allowed
    except InfeasibleError as error:
        promise(False, claim, error)
    near_ND = allowed.project(weights_ND[:10])
    broken = _value(limit, near_ND, claim).max() - limit.upper
    promise(broken <= BROKEN, claim, f"a projected mixture breaks it by {broken:.3g}")
    values_N = _value(limit, weights_ND, claim)
    met_ND = weights_ND[values_N <= limit.upper]
    upper_D = limit.upper_bounds(np.ones(len(NATURAL)))
    claim = "upper_bounds excludes no mixture that meets the limit"
    promise((met_ND <= upper_D).all(), claim, upper_D)
    _check_linear_form(limit, weights_ND)


def _check_linear_form(limit: ConvexLimit, weights_ND: Array) -> None:
    form = limit.linear_form
    if form is None:
        return
    claim = "linear_form holds up to the value of a mixture, and not below it"
    for weights_D in weights_ND[:10]:
        further_U = form.further_at(weights_D)
        promise(((further_U >= 0) & (further_U <= 1)).all(), claim, f"further_at: {further_U}")
        value = limit.value_at(weights_D)
        upper_R = form.upper_R + value * form.per_value_R
        excess_R = form.weights_RD @ weights_D + form.further_RU @ further_U - upper_R
        promise(excess_R.max() <= BROKEN, claim, f"broken by {excess_R.max():.3g}")
        lowest = _lowest_value(form, weights_D)
        is_same = abs(lowest - value) <= BROKEN
        promise(is_same, claim, f"the rows hold from {lowest:.6g}, value is {value:.6g}")


def _lowest_value(form: LinearForm, weights_D: Array) -> float:
    """Return the lowest value at which the rows of a linear form hold at a mixture."""
    from scipy.optimize import linprog

    further = form.further_RU.shape[1]
    solution = linprog(
        np.append(np.zeros(further), 1.0),
        A_ub=np.hstack([form.further_RU, -form.per_value_R[:, None]]),
        b_ub=form.upper_R - form.weights_RD @ weights_D,
        bounds=[*[(0.0, 1.0)] * further, (None, None)],
    )
    return float(solution.x[-1]) if solution.status == 0 else np.nan


def _check_texts(limit: ConvexLimit, weights_ND: Array) -> None:
    text = limit.describe()
    is_line = isinstance(text, str) and text.strip() and "\n" not in text
    promise(is_line, "describe returns one line", repr(text))
    values_N = limit.value(weights_ND)
    claim = "violation returns one line for a mixture that breaks the limit, else None"
    for weights_D, value in zip(weights_ND, values_N, strict=True):
        line = limit.violation(weights_D)
        if value <= limit.upper:
            promise(line is None, claim, repr(line))
        elif value > limit.upper + BROKEN:
            promise(isinstance(line, str) and "\n" not in line, claim, repr(line))
    hint = limit.hint(float(values_N.min()))
    is_hint = hint is None or (isinstance(hint, str) and "\n" not in hint)
    promise(is_hint, "hint returns one line or None", repr(hint))
