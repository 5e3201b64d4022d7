"""Evaluate held-out text on all ranks and put the ranks' sums together.

Shapes: M evaluation domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from mixopt.errors import EstimatorError
from mixopt.online.contract import HeldOut
from mixopt.online.run_setting import Evaluate
from mixopt.online.sums import UNIT, Reduction

_MOST = float(1 << 42)  # nats of one rank, so that the sum over ranks fits


def held_out_losses(evaluate: Evaluate, names: Sequence[str]) -> HeldOut | str:
    """Evaluate on every rank; all of them have to call it.

    Args:
        evaluate: Returns the sum of losses and the tokens of each evaluation domain on this
            rank, and optionally the sum of the squares of the losses.
        names: The evaluation domains; others that it returns are left alone.

    Returns:
        The losses, the same on every rank; or what is wrong with them, if one is not finite.

    Raises:
        EstimatorError: No rank evaluated one of the domains.
    """
    found = evaluate()
    parts = [_part(found.get(name)) for name in names]
    sums_M4 = Reduction(torch.tensor(parts, dtype=torch.int64)).result()
    for name, (broken, _, tokens, _) in zip(names, sums_M4.tolist(), strict=True):
        if broken:
            return f"held-out loss of {name!r} is not finite"
        if tokens < 1:
            raise EstimatorError(
                f"evaluation domain {name!r} has no held-out tokens: evaluate() returned"
                f" {sorted(found)}; give it held-out text, or leave it out of evaluations"
            )
    sums, tokens_M, squares = sums_M4[:, 1] / UNIT, sums_M4[:, 2], sums_M4[:, 3] / UNIT
    losses_M = sums / tokens_M
    spread_M = np.maximum(squares / tokens_M - losses_M**2, 0.0)
    return HeldOut(losses_M, np.sqrt(spread_M / tokens_M), int(tokens_M.sum()))


def _part(found: tuple[float, ...] | None) -> tuple[int, int, int, int]:
    """Return broken, loss, tokens and squares as whole numbers, so that ranks add up exactly."""
    if found is None:
        return (0, 0, 0, 0)
    loss, tokens, squares = (*found, 0.0)[:3]
    if not all(math.isfinite(value) and abs(value) < _MOST for value in (loss, squares)):
        return (1, 0, int(tokens), 0)
    return (0, round(loss * UNIT), int(tokens), round(squares * UNIT))
