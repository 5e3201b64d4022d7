"""L-BFGS of several descents whose costs are asked for together.

A descent ends where SciPy's does, to rounding, where that has no bounds; SciPy's keeps books for
bounds at every step, which takes longer than the costs of a law. The inverse curvature is in
compact form (Byrd, Nocedal & Schnabel, 1994): steps and changes of the slope are rows of one
matrix, so that a direction takes two products with it. Lengths of steps are MINPACK's (Moré &
Thuente, 1994) in the cases that laws are seen to have.

Shapes: F descents, P parameters, S steps that are remembered, R = 2 S.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np

from mixopt.system import Array

MEMORY = 10  # steps that are remembered
ENOUGH = 1e-7  # a step that gains a smaller part of the cost is the last
GAIN, LEVEL = 1e-3, 0.9  # parts of a slope: what a step must gain, and what may be left of it
TRIES = 20  # lengths of a step
FARTHEST = 4.0  # times the last length, at most
LEAST = 1e-300  # a squared slope that is 0 is divided by


def minimised(cost: Callable[[Array], tuple[Array, Array]], starts_FP: Array, steps: int) -> Array:
    """Return where descents end, shape (F, P).

    Args:
        cost: The costs of some points, shape (F,), and their slopes, shape (F, P).
        starts_FP: Where each starts.
        steps: At most.
    """
    descents = [_descent(start_P, steps) for start_P in starts_FP]
    points, ends_FP = {place: next(one) for place, one in enumerate(descents)}, starts_FP.copy()
    while points:
        values_F, slopes_FP = cost(np.stack([*points.values()]))
        for place, *answer in zip([*points], values_F.tolist(), slopes_FP, strict=True):
            try:
                points[place] = descents[place].send(Answer(*answer))
            except StopIteration as end:
                ends_FP[place] = end.value
                del points[place]
    return ends_FP


class Answer(NamedTuple):
    """A cost, and its slope by each parameter."""

    value: float
    slope_P: Array


class Point(NamedTuple):
    """A length of a step, the cost there, and its slope along the step."""

    length: float
    value: float
    slope: float


class Curvature:
    """What steps told of the curvature."""

    def __init__(self, parameters: int) -> None:
        self.seen, self.scale, self.rows_RP = 0, 1.0, np.zeros((2 * MEMORY, parameters))
        # Products of steps, and of changes, with changes; 0 where the step is the later one.
        self.steps_SS, self.changes_SS = np.eye(MEMORY), np.zeros((MEMORY, MEMORY))

    def way(self, slope_P: Array) -> Array:
        """Return the direction to go in."""
        along_R, inverse_SS = self.rows_RP @ slope_P, np.linalg.inv(self.steps_SS)
        own_S = inverse_SS @ along_R[:MEMORY]
        bent_S = self.changes_SS @ own_S - along_R[MEMORY:]
        bent_S = self.steps_SS.diagonal() * own_S + self.scale * bent_S
        parts_R = np.concatenate([inverse_SS.T @ bent_S, -self.scale * own_S])
        way_P: Array = -self.scale * slope_P - parts_R @ self.rows_RP
        return way_P

    def learn(self, step_P: Array, change_P: Array) -> None:
        """Take in a step, in place of the oldest."""
        place = self.seen % MEMORY
        self.rows_RP[place], self.rows_RP[MEMORY + place] = step_P, change_P
        along_R = self.rows_RP @ change_P
        self.steps_SS[place], self.steps_SS[:, place] = 0.0, along_R[:MEMORY]
        self.changes_SS[place] = self.changes_SS[:, place] = along_R[MEMORY:]
        self.seen, self.scale = self.seen + 1, float(along_R[place] / along_R[MEMORY + place])


def _descent(here_P: Array, steps: int) -> Generator[Array, Answer, Array]:
    """Ask for costs at points; return where the descent ends."""
    (value, slope_P), known = (yield here_P), Curvature(len(here_P))
    for _ in range(steps):
        way_P = known.way(slope_P)
        start = Point(0.0, value, float(way_P @ slope_P))
        length = 1.0 if known.seen else 1.0 / math.sqrt(max(-start.slope, LEAST))
        reached = yield from _reached(here_P, way_P, start, length)
        if reached is None:
            break
        step_P, (value, turned_P) = reached
        here_P = here_P + step_P
        if start.value - value <= ENOUGH * max(abs(start.value), abs(value), 1.0):
            break
        known.learn(step_P, turned_P - slope_P)
        slope_P = turned_P
    return here_P


def _reached(
    here_P: Array, way_P: Array, start: Point, length: float
) -> Generator[Array, Answer, tuple[Array, Answer] | None]:
    """Return a step that gains enough, and what is there; None where there is none."""
    low = start
    for _ in range(TRIES if start.slope < 0 else 0):
        step_P = length * way_P
        answer = yield here_P + step_P
        new = Point(length, answer.value, float(way_P @ answer.slope_P))
        gains = new.value <= start.value + GAIN * length * start.slope
        if gains and abs(new.slope) <= -LEVEL * start.slope:
            return step_P, answer
        length = _next_length(low, new)
        low = new if new.value <= low.value else low
    return None


def _next_length(low: Point, new: Point) -> float:
    """Return the length to try next."""
    moved = new.length - low.length
    if not math.isfinite(new.value + new.slope):
        return low.length + moved / 2
    middle = 3 * (low.value - new.value) / moved + low.slope + new.slope
    root = math.copysign(math.sqrt(max(middle**2 - low.slope * new.slope, 0.0)), moved)
    limit = new.length + FARTHEST * moved
    if new.value <= low.value and new.slope / low.slope >= 1.0:
        return limit
    turn = new.slope - low.slope
    cubic = new.length - moved * (new.slope + root - middle) / (turn + 2 * root)
    if new.value > low.value:
        square = low.length + moved * low.slope / ((low.value - new.value) / moved + low.slope) / 2
        is_nearer = abs(cubic - low.length) < abs(square - low.length)
        return cubic if is_nearer else (cubic + square) / 2
    far = max(cubic, new.length - moved * new.slope / turn, key=lambda one: abs(one - new.length))
    is_ahead = 0 < (far - new.length) / moved < FARTHEST
    return far if new.slope / low.slope < 0 or is_ahead else limit
