"""L-BFGS for several descents that evaluate their costs together.

A descent ends where SciPy's L-BFGS-B without bounds does, up to rounding; SciPy's bookkeeping for
bounds takes longer at every step than the costs of a law. The inverse Hessian is in compact form
(Byrd, Nocedal & Schnabel, 1994): steps and changes of the gradient are rows of one matrix, so that
a direction takes two products with it. The line search is MINPACK's (Moré & Thuente, 1994) without
its auxiliary function. After a search without a lower point, the descent forgets its steps and goes
on along the gradient, as SciPy's does.

Shapes: F descents, P parameters, S remembered steps, R = 2 S.
"""

import math
from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np

from mixopt.system import Array

MEMORY = 10  # remembered steps
ENOUGH = 1e-7  # relative decrease of the cost below which a descent stops
GAIN, LEVEL = 1e-3, 0.9  # strong Wolfe conditions: sufficient decrease, and curvature
TRIES = 20  # step lengths in a line search
FARTHEST = 4.0  # maximum extrapolation, in units of the last change of length
SHRINK = 0.66  # largest part of a bracket that may remain after two step lengths
NARROW = 0.1  # relative width of a bracket at which a search ends
CURVED = 2.3e-16  # relative change of the slope below which a step is not remembered
LEAST = 1e-300  # avoids division by a gradient of 0


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
    with np.errstate(all="ignore"):  # a step to a cost that is not finite is taken back
        while pending:
            values_F, gradients_FP = cost(np.stack([*pending.values()]))
            for index, *evaluation in zip([*pending], values_F.tolist(), gradients_FP, strict=True):
                try:
                    pending[index] = descents[index].send(Evaluation(*evaluation))
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
        self.count, self.scale, self.rows_RP = 0, 1.0, np.zeros((2 * MEMORY, parameters))
        # Products of steps with changes, 0 if the step is the later one; of changes with changes.
        self.steps_SS, self.changes_SS = np.eye(MEMORY), np.zeros((MEMORY, MEMORY))

    def direction(self, gradient_P: Array) -> Array:
        """Return the search direction."""
        along_R, inverse_SS = self.rows_RP @ gradient_P, np.linalg.inv(self.steps_SS)
        projected_S = inverse_SS @ along_R[:MEMORY]
        curved_S = self.changes_SS @ projected_S - along_R[MEMORY:]
        curved_S = self.steps_SS.diagonal() * projected_S + self.scale * curved_S
        parts_R = np.concatenate([inverse_SS.T @ curved_S, -self.scale * projected_S])
        return -self.scale * gradient_P - parts_R @ self.rows_RP

    def update(self, step_P: Array, change_P: Array) -> None:
        """Add a step, replacing the oldest."""
        index = self.count % MEMORY
        self.rows_RP[index], self.rows_RP[MEMORY + index] = step_P, change_P
        along_R = self.rows_RP @ change_P
        self.steps_SS[index], self.steps_SS[:, index] = 0.0, along_R[:MEMORY]
        self.changes_SS[index] = self.changes_SS[:, index] = along_R[MEMORY:]
        self.count, self.scale = self.count + 1, float(along_R[index] / along_R[MEMORY + index])


def _descent(point_P: Array, steps: int) -> Generator[Array, Evaluation, Array]:
    """Yield points to evaluate; return the end of the descent."""
    (value, gradient_P), hessian = (yield point_P), InverseHessian(len(point_P))
    for _ in range(steps):
        direction_P = hessian.direction(gradient_P)
        start = Point(0.0, value, np.dot(direction_P, gradient_P), gradient_P)
        length = 1.0 if hessian.count else 1.0 / math.sqrt(max(-start.slope, LEAST))
        end = yield from _line_search(point_P, direction_P, start, length)
        if end is start and not hessian.count:
            break
        if end is start:
            hessian = InverseHessian(len(point_P))
            continue
        step_P = end.length * direction_P
        point_P, value = point_P + step_P, end.value
        if start.value - value <= ENOUGH * max(abs(start.value), abs(value), 1.0):
            break
        if start.slope - end.slope < CURVED * start.slope:
            hessian.update(step_P, end.gradient_P - gradient_P)
        gradient_P = end.gradient_P
    return point_P


def _line_search(
    point_P: Array, direction_P: Array, start: Point, length: float
) -> Generator[Array, Evaluation, Point]:
    """Return a point that meets the Wolfe conditions; without one, the lowest of all."""
    low, far, widths = start, None, [math.inf, math.inf]
    for _ in range(TRIES if start.slope < 0 else 0):
        value, gradient_P = yield point_P + length * direction_P
        new = Point(length, value, np.dot(direction_P, gradient_P), gradient_P)
        decreases = value <= start.value + GAIN * length * start.slope
        if decreases and abs(new.slope) <= -LEVEL * start.slope:
            return new
        if not math.isfinite(value + new.slope):
            length = (low.length + length) / 2
            continue
        length = _next_length(low, new, far)
        if value > low.value:
            far = new
        else:
            low, far = new, low if new.slope * low.slope < 0 else far
        if far is None:
            continue
        lower, upper = sorted((low.length, far.length))
        if upper - lower <= NARROW * upper:
            break
        if upper - lower >= SHRINK * widths.pop(0) or not lower < length < upper:
            length = (lower + upper) / 2
        widths.append(upper - lower)
    return low if low.value < start.value else start


def _next_length(low: Point, new: Point, far: Point | None) -> float:
    """Return the next step length, by cubic or quadratic interpolation."""

    def distance(length: float) -> float:
        return abs(length - new.length)

    width, cubic = new.length - low.length, _cubic(low, new)
    if new.value > low.value:
        square = low.length + width * low.slope / ((low.value - new.value) / width + low.slope) / 2
        is_nearer = abs(cubic - low.length) < abs(square - low.length)
        return cubic if is_nearer else (cubic + square) / 2
    secant = new.length - width * new.slope / (new.slope - low.slope)
    if new.slope * low.slope < 0:
        return max(cubic, secant, key=distance)
    limit = far.length if far else new.length + FARTHEST * width
    if abs(new.slope) >= abs(low.slope):
        return _cubic(far, new) if far else limit
    if not (cubic - new.length) / width > 0:
        cubic = limit
    if far:
        return min(cubic, secant, new.length + SHRINK * (limit - new.length), key=distance)
    return min(max(cubic, secant, key=distance), limit, key=distance)


def _cubic(old: Point, new: Point) -> float:
    """Return the minimum of the cubic through two points and their slopes."""
    width = new.length - old.length
    middle = 3 * (old.value - new.value) / width + old.slope + new.slope
    root = math.copysign(math.sqrt(max(middle**2 - old.slope * new.slope, 0.0)), width)
    return new.length - width * (new.slope + root - middle) / (new.slope - old.slope + 2 * root)
