"""The mean of what steps add to the cross-entropy between two lines of metrics, over all ranks.

It is summed as whole numbers, so that lines are the same however many ranks and checkpoints there
are.

Shapes: P passes of a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixopt.online import UNIT, Reduction, is_first
from mixopt.system import StateFields

_LEAST = -(1 << 62)


class AddedLoss:
    """Adds up one kind of what is added; on every rank."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._sums = np.zeros(2, np.int64)  # units of the loss, and sequences

    def add(self, added_P: Tensor | None, sequences: int) -> None:
        """Add what the passes of a step that was not skipped added to the loss on this rank.

        Args:
            added_P: Of each pass; None where nothing was.
            sequences: Of one pass.
        """
        if added_P is not None:
            units = [round(one * UNIT) for one in added_P.tolist()]
            self._sums += [sum(units) * sequences, len(units) * sequences]

    def take(self) -> float | None:
        """Return the mean, or None where nothing was added, and begin again; all ranks call it."""
        units, count = self.sums()
        self._sums[:] = 0
        return units / (UNIT * count) if count else None

    def sums(self) -> list[int]:
        """Return the state over all ranks; every rank calls it."""
        found: list[int] = Reduction(torch.from_numpy(self._sums.copy())).result().tolist()
        return found

    def load(self, fields: StateFields, name: str) -> None:
        """Resume from a field of a state; rank 0 keeps the sums of all ranks.

        Raises:
            RunError: It cannot be right; nothing is changed.
        """
        sums: Any = fields.int_array(name, (2,), least=_LEAST)
        self._sums = sums if is_first() else np.zeros(2, np.int64)
