"""Downstream tasks, scored by every member of a stack at once.

Windows of all tasks are read in batches of about equal length; the head reads the scored positions
alone. Losses stay on the device until all are made.

Shapes: K members, B windows, W tokens of one, P scored tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mixopt.corpus import Corpus
from mixopt.tasks import TaskBatches
from mixopt_proxies.decoder.batch_shape import BatchShape
from mixopt_proxies.decoder.device_precision import to_device


class HeldOutTasks:
    """The items of a corpus's tasks, ready on the device."""

    def __init__(self, corpus: Corpus, size: BatchShape, device: torch.device) -> None:
        """Cut the items into windows of the size's length.

        Args:
            corpus: Its tasks, if there are any.
            size: Sequence length; a batch is as large as a member's in a training step.
            device: Where the windows are kept.
        """
        longest, tokens = size.sequence_length, size.step_tokens
        self._tasks = TaskBatches(corpus.tasks, longest=longest, tokens=tokens)
        self._batches = [
            (to_device(batch.tokens_BW, device), to_device(batch.place_P, device))
            for batch in self._tasks.batches
        ]

    def scores(
        self, token_losses: Callable[[Tensor, Tensor], Tensor], members: int
    ) -> list[dict[str, float]]:
        """Return what each member scores, by the names of the columns.

        Args:
            token_losses: From tokens (K, B, W), and which of the B * T predicted ones are scored,
                to their losses in nats, (K, P).
            members: K.
        """
        if not self._batches:
            return [{} for _ in range(members)]
        parts = [
            token_losses(tokens_BW.expand(members, -1, -1), place_P)
            for tokens_BW, place_P in self._batches
        ]
        losses_KP = torch.cat(parts, 1).double().cpu().numpy()
        return [self._tasks.metrics(-losses_P) for losses_P in losses_KP]
