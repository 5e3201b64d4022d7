"""L-BFGS for several descents that evaluate their costs together.

A descent ends where SciPy's L-BFGS-B without bounds does, up to rounding; SciPy's bookkeeping for
bounds takes longer at every step than the costs of a law. The inverse Hessian is in compact form
(Byrd, Nocedal & Schnabel, 1994): steps and changes of the gradient are rows of one matrix, so that
a direction takes two products with it. The line search is MINPACK's (Moré & Thuente, 1994) without
its auxiliary function. When a line search finds no lower point, the descent discards its remembered
steps and continues along the gradient, as SciPy's does.

Shapes: F descents, P parameters, S remembered steps, R = 2 S.
"""

import math
from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np

from mixopt.system import Array

MEMORY = 10  # remembered steps
MIN_DECREASE = 1e-7  # relative decrease of the cost below which a descent stops
SUFFICIENT_DECREASE = 1e-3  # first strong Wolfe condition, relative to the initial slope
CURVATURE = 0.9  # second strong Wolfe condition: largest slope, relative to the initial one
MAX_LENGTHS = 20  # step lengths in a line search
MAX_EXTRAPOLATION = 4.0  # in units of the last change of length
MAX_SHRUNK_WIDTH = 0.66  # largest part of a bracket that may remain after two step lengths
MIN_RELATIVE_WIDTH = 0.1  # of a bracket; a search ends below it
MIN_SLOPE_CHANGE = 2.3e-16  # relative change below which a step is not remembered
TINY = 1e-300  # avoids division by a gradient of 0


def minimise(cost: Callable[[Array], tuple[Array, Array]], starts_FP: Array, steps: int) -> Array:
    """Return the end points of descents, shape (F, P).

    Args:
        cost: Returns the costs of points, shape (F,), and their gradients, shape (F, P).
        starts_FP: Start of each descent.
        steps: Maximum number of steps.
    """
    descents = [_descent(start_P, steps) for start_P in starts_FP]
    pending = {index: next(descent) for index, descent in enumerate(descents)}
    ends_FP = starts_FP.copy()
    with np.errstate(all="ignore"):  # the line search steps back from a cost that is not finite
        while pending:
            indices = list(pending)
            values_F, gradients_FP = cost(np.stack(list(pending.values())))
            evaluations = map(Evaluation, values_F.tolist(), gradients_FP)
            for index, evaluation in zip(indices, evaluations, strict=True):
                try:
                    pending[index] = descents[index].send(evaluation)
                except StopIteration as end:
                    ends_FP[index] = end.value
                    del pending[index]
    return ends_FP


class Evaluation(NamedTuple):
    """A cost and its gradient."""

    value: float
    gradient_P: Array


class Point(NamedTuple):
    """A step length, the cost there, its slope along the step, and its gradient."""

    length: float
    value: float
    slope: float  # of NumPy, so that a division by 0 raises no error
    gradient_P: Array


class InverseHessian:
    """The inverse Hessian in compact form."""

    def __init__(self, parameters: int) -> None:
        self.count = 0
        self.scale = 1.0
        self.rows_RP = np.zeros((2 * MEMORY, parameters))  # steps, then changes of the gradient
        self.step_products_SS = np.eye(MEMORY)  # of steps with changes; 0 if the step is later
        self.change_products_SS = np.zeros((MEMORY, MEMORY))  # of changes with changes

    def direction(self, gradient_P: Array) -> Array:
        """Return the search direction."""
        products_R = self.rows_RP @ gradient_P
        inverse_SS = np.linalg.inv(self.step_products_SS)
        projected_S = inverse_SS @ products_R[:MEMORY]
        curved_S = self.change_products_SS @ projected_S - products_R[MEMORY:]
        curved_S = self.step_products_SS.diagonal() * projected_S + self.scale * curved_S
        parts_R = np.concatenate([inverse_SS.T @ curved_S, -self.scale * projected_S])
        return -self.scale * gradient_P - parts_R @ self.rows_RP

    def update(self, step_P: Array, change_P: Array) -> None:
        """Add a step, replacing the oldest."""
        index = self.count % MEMORY
        self.count += 1
        self.rows_RP[index] = step_P
        self.rows_RP[MEMORY + index] = change_P
        products_R = self.rows_RP @ change_P
        self.step_products_SS[index] = 0.0
        self.step_products_SS[:, index] = products_R[:MEMORY]
        self.change_products_SS[index] = products_R[MEMORY:]
        self.change_products_SS[:, index] = products_R[MEMORY:]
        self.scale = float(products_R[index] / products_R[MEMORY + index])


def _descent(point_P: Array, steps: int) -> Generator[Array, Evaluation, Array]:
    """Yield points to evaluate; return the end of the descent."""
    value, gradient_P = yield point_P
    hessian = InverseHessian(len(point_P))
    for _ in range(steps):
        direction_P = hessian.direction(gradient_P)
        start = Point(0.0, value, np.dot(direction_P, gradient_P), gradient_P)
        length = 1.0 if hessian.count else 1.0 / math.sqrt(max(-start.slope, TINY))
        end = yield from _line_search(point_P, direction_P, start, length)
        if end is start and not hessian.count:
            break
        if end is start:
            hessian = InverseHessian(len(point_P))
            continue
        step_P = end.length * direction_P
        point_P = point_P + step_P
        value = end.value
        if start.value - value <= MIN_DECREASE * max(abs(start.value), abs(value), 1.0):
            break
        if start.slope - end.slope < MIN_SLOPE_CHANGE * start.slope:
            hessian.update(step_P, end.gradient_P - gradient_P)
        gradient_P = end.gradient_P
    return point_P


def _line_search(
    point_P: Array, direction_P: Array, start: Point, length: float
) -> Generator[Array, Evaluation, Point]:
    """Return a point that meets the Wolfe conditions; without one, the lowest of all."""
    if not start.slope < 0:  # a slope that is not a number counts as rising
        return start
    low = start
    far = None  # the other end of the bracket of a minimum
    last_width = last_width_but_one = math.inf
    for _ in range(MAX_LENGTHS):
        value, gradient_P = yield point_P + length * direction_P
        new = Point(length, value, np.dot(direction_P, gradient_P), gradient_P)
        decreases = value <= start.value + SUFFICIENT_DECREASE * length * start.slope
        if decreases and abs(new.slope) <= -CURVATURE * start.slope:
            return new
        if not math.isfinite(value + new.slope):
            length = (low.length + length) / 2
            continue
        length = _next_length(low, new, far)
        low, far = _bracket(low, new, far)
        if far is None:
            continue
        lower, upper = sorted((low.length, far.length))
        width = upper - lower
        if width <= MIN_RELATIVE_WIDTH * upper:
            break
        if width >= MAX_SHRUNK_WIDTH * last_width_but_one or not lower < length < upper:
            length = (lower + upper) / 2
        last_width_but_one = last_width
        last_width = width
    return low if low.value < start.value else start


def _bracket(low: Point, new: Point, far: Point | None) -> tuple[Point, Point | None]:
    """Return the lowest point, and the other end of the bracket; None before there is one."""
    if new.value > low.value:
        return low, new
    if new.slope * low.slope < 0:
        return new, low
    return new, far


def _next_length(low: Point, new: Point, far: Point | None) -> float:
    """Return the next step length, by cubic or quadratic interpolation."""

    def distance(length: float) -> float:
        return abs(length - new.length)

    width = new.length - low.length
    cubic = _cubic(low, new)
    if new.value > low.value:
        mean_slope = (new.value - low.value) / width
        quadratic = low.length + width * low.slope / (low.slope - mean_slope) / 2
        is_nearer = abs(cubic - low.length) < abs(quadratic - low.length)
        return cubic if is_nearer else (cubic + quadratic) / 2
    secant = new.length - width * new.slope / (new.slope - low.slope)
    if new.slope * low.slope < 0:
        return max(cubic, secant, key=distance)
    limit = far.length if far else new.length + MAX_EXTRAPOLATION * width
    if abs(new.slope) >= abs(low.slope):
        return _cubic(far, new) if far else limit
    if not (cubic - new.length) / width > 0:
        cubic = limit
    if far:
        shrunk = new.length + MAX_SHRUNK_WIDTH * (limit - new.length)
        return min(cubic, secant, shrunk, key=distance)
    return min(max(cubic, secant, key=distance), limit, key=distance)


def _cubic(old: Point, new: Point) -> float:
    """Return the minimum of the cubic through two points and their slopes."""
    width = new.length - old.length
    middle = 3 * (old.value - new.value) / width + old.slope + new.slope
    root = math.copysign(math.sqrt(max(middle**2 - old.slope * new.slope, 0.0)), width)
    return new.length - width * (new.slope + root - middle) / (new.slope - old.slope + 2 * root)
