"""Metrics of expert balancing between two lines of metrics, over all ranks.

A loss that is added is summed as whole numbers, so that lines are the same however many ranks and
checkpoints there are. Of biases that are moved, a line has the largest, and how far they have come
since the line before: where the load is even they go back and forth and come to nothing.

Shapes: N experts of all routers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixopt.errors import RunError
from mixopt.online import UNIT, Reduction, is_first
from mixopt.pretraining.expert_balance import ExpertBalance
from mixopt.system import StateFields

_LEAST = -(1 << 62)


class BalanceMeter:
    """Adds up what was added to the loss, and looks at biases; on every rank."""

    def __init__(self, balance: ExpertBalance) -> None:
        """Begin with the biases as they are."""
        self._balance = balance
        self._sums = np.zeros(2, np.int64)  # units of the loss, and passes over ranks and steps
        self._biases_N = balance.biases()

    def add(self, added: Tensor | None) -> None:
        """Add what a step that was not skipped added to the loss on this rank."""
        if added is not None:
            self._sums += [round(float(added) * UNIT), 1]

    def line(self) -> dict[str, Any]:
        """Return what belongs in a line, and begin the next; all ranks call it together.

        Returns:
            `auxiliary_loss`, the mean of what was added, where anything was; and of biases
            `expert_bias` with `largest`, of all absolute ones, and `moved`, the mean distance.
        """
        found: dict[str, Any] = {}
        units, count = self._reduced().tolist()
        self._sums[:] = 0
        if count:
            found["auxiliary_loss"] = units / (UNIT * count)
        biases_N = self._balance.biases()
        if biases_N is not None and self._biases_N is not None:
            found["expert_bias"] = {
                "largest": float(biases_N.abs().max()),
                "moved": float((biases_N - self._biases_N).abs().mean()),
            }
            self._biases_N = biases_N
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen since the last line, over all ranks; every rank calls it."""
        state = {"sums": self._reduced().tolist()}
        return state if self._biases_N is None else {**state, "biases": self._biases_N.tolist()}

    def load_state_dict(self, state: Mapping[str, Any], where: str) -> None:
        """Resume from a state, when the model has its weights; rank 0 keeps the sums of all ranks.

        Raises:
            RunError: The state cannot be right; nothing is changed.
        """
        fields, now_N = StateFields(state, where, RunError), self._balance.biases()
        sums = fields.int_array("sums", (2,), least=_LEAST)
        before = None
        if now_N is not None:
            before = fields.maybe("biases", lambda name: fields.array(name, tuple(now_N.shape)))
        self._sums = sums if is_first() else np.zeros(2, np.int64)
        self._biases_N = now_N if before is None else torch.from_numpy(before).float()

    def _reduced(self) -> Any:
        return Reduction(torch.from_numpy(self._sums.copy())).result()
