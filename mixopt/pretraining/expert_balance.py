"""Balance the load of a model's experts in training, and the loss that this adds.

A loss that the model returns is added to the cross-entropy, times the coefficient that the family
has in its configuration, pass by pass on each rank. A bias is moved after each step by the load of
that step over all ranks; a step that was skipped moves none. Which of them a model is balanced by
is found out in mixopt.pretraining.balance_choice.

Plug-ins may do either themselves (mixopt.pretraining.models): `own_loss` and `step_taken`.

Shapes: B sequences, T tokens, N experts of all routers, one router after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mixopt.routing import ExpertBiases, RouterStats

# By how much a step moves a bias at most, where nothing else is asked for: as fast as routers move
# while they warm up, and in proportion to how uneven the load is, so that it is still where the
# load is even.
RATE = 2e-2


class ExpertBalance:
    """What balances the experts of a run, on one rank; every rank calls the same methods."""

    def __init__(
        self,
        model: nn.Module,
        *,
        coefficient: float = 0.0,
        biases: ExpertBiases | None = None,
        rate: float | None = None,
        stats: RouterStats | None = None,
        is_counted: bool = False,
        total: Callable[[Tensor], object] = dist.all_reduce,
    ) -> None:
        """Say how; mixopt.pretraining.balance_choice finds it out.

        Args:
            model: After it was wrapped.
            coefficient: What an auxiliary loss is multiplied by.
            biases: Those to be moved.
            rate: By how much a step moves each; if omitted, in proportion, by `RATE` at most.
            stats: What counts the model's experts, where biases are moved.
            is_counted: Whether someone else opens its batches.
            total: Sums over ranks in place.
        """
        self._model, self._coefficient = model, coefficient
        self._biases, self._rate = biases, rate
        self._stats, self._is_counted, self._total = stats, is_counted, total
        self._before: Tensor | None = None

    def added_loss(self, output: Any) -> Tensor | None:
        """Return what a pass adds to the cross-entropy, with its gradients; None for nothing.

        Args:
            output: Of the forward pass.
        """
        whole = getattr(self._model, "own_loss", None)
        if isinstance(whole, Tensor):
            return whole
        auxiliary = getattr(output, "aux_loss", None)
        if not isinstance(auxiliary, Tensor) or self._coefficient == 0:
            return None
        return self._coefficient * auxiliary

    @contextmanager
    def counting(self, tokens_BT: Tensor) -> Iterator[None]:
        """Count the forward pass in the block, where nothing else counts it and biases need it."""
        if self._stats is None or self._is_counted:
            yield
            return
        with self._stats.domains(torch.zeros_like(tokens_BT)):
            yield

    def step_begins(self) -> None:
        """Take note of what was counted before a step."""
        if self._biases is not None and self._stats is not None:
            self._before = self._stats.loads()

    def step_taken(self, *, moved: bool) -> None:
        """Move the biases after a step.

        Args:
            moved: Whether it moved the weights: biases stay where a step was skipped.
        """
        own = getattr(self._model, "step_taken", None)
        if own is not None:
            own(self._total, moved=moved)
        if self._biases is None or self._stats is None or self._before is None or not moved:
            return
        loads_N = self._stats.loads() - self._before
        self._total(loads_N)
        if self._rate is None:
            self._biases.shift(loads_N, RATE, in_proportion=True)
        else:
            self._biases.shift(loads_N, self._rate)

    def release(self) -> None:
        """Count the model's experts no longer, where nothing else counts them."""
        if self._stats is not None and not self._is_counted:
            self._stats.detach()

    def biases(self) -> Tensor | None:
        """Return the biases that are moved, shape (N,); None where none are."""
        return None if self._biases is None else self._biases.values()
