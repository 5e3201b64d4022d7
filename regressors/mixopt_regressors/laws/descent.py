"""L-BFGS for several descents that evaluate their costs together.

A descent ends where SciPy's L-BFGS-B without bounds does, up to rounding; SciPy's bookkeeping for
bounds takes longer at every step than the costs of a law. The inverse Hessian is in compact form
(Byrd, Nocedal & Schnabel, 1994): steps and changes of the gradient are rows of one matrix, so that
a direction takes two products with it. The line search interpolates as MINPACK's (Moré & Thuente,
1994), without its brackets, which descents of these laws never needed.

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
LEAST = 1e-300  # avoids division by a gradient of 0


def minimise(cost: Callable[[Array], tuple[Array, Array]], starts_FP: Array, steps: int) -> Array:
    """Return the end points of descents, shape (F, P).

    Args:
        cost: Returns the costs of points, shape (F,), and their gradients, shape (F, P).
        starts_FP: Start of each descent.
        steps: Maximum number of steps.
    """
    descents = [_descent(start_P, steps) for start_P in starts_FP]
    pending, ends_FP = {index: next(one) for index, one in enumerate(descents)}, starts_FP.copy()
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
    """A step length, the cost there, and its slope along the step."""

    length: float
    value: float
    slope: float


class InverseHessian:
    """The inverse Hessian in compact form."""

    def __init__(self, parameters: int) -> None:
        self.count, self.scale, self.rows_RP = 0, 1.0, np.zeros((2 * MEMORY, parameters))
        # Products of steps with changes, 0 if the step is the later one; of changes with changes.
        self.steps_SS, self.changes_SS = np.eye(MEMORY), np.zeros((MEMORY, MEMORY))

    def direction(self, gradient_P: Array) -> Array:
        """Return the search direction."""
        along_R, inverse_SS = self.rows_RP @ gradient_P, np.linalg.inv(self.steps_SS)
        own_S = inverse_SS @ along_R[:MEMORY]
        curved_S = self.changes_SS @ own_S - along_R[MEMORY:]
        curved_S = self.steps_SS.diagonal() * own_S + self.scale * curved_S
        parts_R = np.concatenate([inverse_SS.T @ curved_S, -self.scale * own_S])
        direction_P: Array = -self.scale * gradient_P - parts_R @ self.rows_RP
        return direction_P

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
        start = Point(0.0, value, float(direction_P @ gradient_P))
        length = 1.0 if hessian.count else 1.0 / math.sqrt(max(-start.slope, LEAST))
        accepted = yield from _line_search(point_P, direction_P, start, length)
        if accepted is None:
            break
        step_P, (value, new_gradient_P) = accepted
        point_P = point_P + step_P
        if start.value - value <= ENOUGH * max(abs(start.value), abs(value), 1.0):
            break
        hessian.update(step_P, new_gradient_P - gradient_P)
        gradient_P = new_gradient_P
    return point_P


def _line_search(
    point_P: Array, direction_P: Array, start: Point, length: float
) -> Generator[Array, Evaluation, tuple[Array, Evaluation] | None]:
    """Return a step that meets the Wolfe conditions, and its evaluation; None without one."""
    low = start
    for _ in range(TRIES if start.slope < 0 else 0):
        step_P = length * direction_P
        evaluation = yield point_P + step_P
        new = Point(length, evaluation.value, float(direction_P @ evaluation.gradient_P))
        decreases = new.value <= start.value + GAIN * length * start.slope
        if decreases and abs(new.slope) <= -LEVEL * start.slope:
            return step_P, evaluation
        length = _next_length(low, new)
        low = new if new.value <= low.value else low
    return None


def _next_length(low: Point, new: Point) -> float:
    """Return the next step length, by cubic or quadratic interpolation."""
    width = new.length - low.length
    if not math.isfinite(new.value + new.slope):
        return low.length + width / 2
    middle = 3 * (low.value - new.value) / width + low.slope + new.slope
    root = math.copysign(math.sqrt(max(middle**2 - low.slope * new.slope, 0.0)), width)
    limit = new.length + FARTHEST * width
    if new.value <= low.value and new.slope / low.slope >= 1.0:
        return limit
    turn = new.slope - low.slope
    cubic = new.length - width * (new.slope + root - middle) / (turn + 2 * root)
    if new.value > low.value:
        square = low.length + width * low.slope / ((low.value - new.value) / width + low.slope) / 2
        is_nearer = abs(cubic - low.length) < abs(square - low.length)
        return cubic if is_nearer else (cubic + square) / 2
    far = max(cubic, new.length - width * new.slope / turn, key=lambda one: abs(one - new.length))
    is_ahead = 0 < (far - new.length) / width < FARTHEST
    return far if new.slope / low.slope < 0 or is_ahead else limit
