"""Go downhill among the mixtures within bounds by projected gradients, for hundreds of domains.

A step of sequential quadratic programming costs the cube of the number of domains; here a step
costs a gradient and a projection. The length of a step follows from how the gradient changed over
the last one (Barzilai and Borwein's), and the objective may rise for a few steps as long as it is
below the highest of the last ones.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mixopt.system import Array

STEPS, HALVINGS = 300, 30
MEMORY = 6  # the objective stays below the highest of so many values
FIRST = 0.1  # length of the first step, in weight
FALL = 1e-4  # part of the fall that the gradient promises and a step must have


def projected_descent(
    value: Callable[[Array], float],
    slope: Callable[[Array], Array],
    project: Callable[[Array], Array],
    start_D: Array,
    *,
    accuracy: float,
) -> Array:
    """Return the best mixture that the descent meets, shape (D,).

    Args:
        value: What is minimised.
        slope: Its slope by the weights, shape (D,).
        project: The nearest mixture of the set.
        start_D: A mixture of the set.
        accuracy: Promised fall at which the descent stops.
    """
    here_D, slope_D = start_D, slope(start_D)
    best_D, values = start_D, [value(start_D)]
    length = FIRST / max(float(np.abs(slope_D).max()), 1e-12)
    for _ in range(STEPS):
        move_D = project(here_D - length * slope_D) - here_D
        fall = float(slope_D @ move_D)
        if fall > -accuracy:
            break
        part = _part(value, here_D, move_D, fall, max(values[-MEMORY:]))
        if part == 0:
            break
        there_D = here_D + part * move_D
        values.append(value(there_D))
        best_D = there_D if values[-1] <= min(values) else best_D
        turned_D = slope(there_D)
        bent = float((there_D - here_D) @ (turned_D - slope_D))
        moved = float(((there_D - here_D) ** 2).sum())
        length = moved / bent if bent > 1e-300 else 10.0 * length
        here_D, slope_D = there_D, turned_D
    return best_D


def _part(
    value: Callable[[Array], float], here_D: Array, move_D: Array, fall: float, highest: float
) -> float:
    """Return which part of a move is far enough down; 0 where none is."""
    part = 1.0
    for _ in range(HALVINGS):
        if value(here_D + part * move_D) <= highest + FALL * part * fall:
            return part
        part *= 0.5
    return 0.0
