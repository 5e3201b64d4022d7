"""Metrics of expert balancing between two lines of metrics, over all ranks.

Of biases that are moved, a line has the largest, and how far they have come
since the line before: where the load is even they go back and forth and come to nothing.

Shapes: N experts of all routers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mixopt.errors import RunError
from mixopt.pretraining.added_loss import AddedLoss
from mixopt.pretraining.expert_balance import ExpertBalance
from mixopt.system import StateFields


class BalanceMeter:
    """Adds up what was added to the loss, and looks at biases; on every rank."""

    def __init__(self, balance: ExpertBalance) -> None:
        """Begin with the biases as they are."""
        self._balance = balance
        self._added = AddedLoss()
        self._biases_N = balance.biases()

    def add(self, added_P: Tensor | None, sequences: int) -> None:
        """Add what a step that was not skipped added to the loss on this rank."""
        self._added.add(added_P, sequences)

    def line(self) -> dict[str, Any]:
        """Return what belongs in a line, and begin the next; all ranks call it together.

        Returns:
            `auxiliary_loss`, the mean of what was added, where anything was; and of biases
            `expert_bias` with `largest`, of all absolute ones, and `moved`, the mean distance.
        """
        found: dict[str, Any] = {}
        added = self._added.take()
        if added is not None:
            found["auxiliary_loss"] = added
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
        state: dict[str, Any] = {"sums": self._added.sums()}
        return state if self._biases_N is None else {**state, "biases": self._biases_N.tolist()}

    def load_state_dict(self, state: Mapping[str, Any], where: str) -> None:
        """Resume from a state, when the model has its weights; rank 0 keeps the sums of all ranks.

        Raises:
            RunError: The state cannot be right; nothing is changed.
        """
        fields, now_N = StateFields(state, where, RunError), self._balance.biases()
        before = None
        if now_N is not None:
            before = fields.maybe("biases", lambda name: fields.array(name, tuple(now_N.shape)))
        self._added.load(fields, "sums")
        self._biases_N = now_N if before is None else torch.from_numpy(before).float()
