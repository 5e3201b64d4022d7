"""Held-out losses of every member on every evaluation domain.

The windows of all domains go through the stack in batches of the training shape, so that
what was compiled for training serves here too. Consecutive windows share one token, so each
token but the first is predicted once.

Shapes: K members, B sequences, T tokens, W windows, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixopt.corpus import Corpus, Domain
from mixopt.trials import Losses, in_bits_per_byte
from mixopt_proxies.decoder.batch_shape import BatchShape
from mixopt_proxies.decoder.batches import long_enough
from mixopt_proxies.decoder.device_precision import to_device


class HeldOutWindows:
    """The first tokens of each evaluation domain's held-out text, ready on the device.

    Attributes:
        counts: Windows of each evaluation domain; they are read in this order.
    """

    def __init__(
        self, corpus: Corpus, size: BatchShape, eval_tokens: int, device: torch.device
    ) -> None:
        """Read the windows.

        Args:
            corpus: Evaluation domains with their held-out text.
            size: Sequence length and batch.
            eval_tokens: Tokens of each domain, at most; one window is read at least.
            device: Where the windows are kept.

        Raises:
            CorpusError: A domain has fewer held-out tokens than one window.
        """
        length = size.sequence_length
        windows = [_windows(domain, length, eval_tokens) for domain in corpus.evaluation]
        self._names = corpus.evaluation_names
        self.counts = [len(rows) for rows in windows]
        self._domains = corpus.evaluation
        self._batch = size.batch
        self._rows_W = to_device(np.concatenate(windows), device)

    def losses(
        self, sequence_losses: Callable[[Tensor], Tensor], members: int, tokens: int
    ) -> list[Losses]:
        """Return each member's losses.

        Args:
            sequence_losses: From tokens (K, B, T + 1) to mean losses in nats, (K, B).
            members: K.
            tokens: How many tokens have been trained on, for the record.
        """
        parts = [sequence_losses(batch) for batch in self._batches(members)]
        loss_KW = torch.cat(parts, 1)[:, : len(self._rows_W)].double().cpu()
        domains = torch.split(loss_KW, self.counts, dim=1)
        loss_KM = torch.stack([part.mean(1) for part in domains], 1).tolist()
        return [self._of_member(loss_M, tokens) for loss_M in loss_KM]

    def _batches(self, members: int) -> list[Tensor]:
        batches = []
        for rows in torch.split(self._rows_W, self._batch):
            missing = self._batch - len(rows)
            full = torch.cat([rows, rows[-1:].expand(missing, -1)]) if missing else rows
            batches.append(full.repeat(members, 1, 1))
        return batches

    def _of_member(self, loss_M: list[float], tokens: int) -> Losses:
        nats = dict(zip(self._names, loss_M, strict=True))
        return Losses(
            tokens=tokens, nats_per_token=nats, bits_per_byte=in_bits_per_byte(nats, self._domains)
        )


def _windows(domain: Domain, length: int, eval_tokens: int) -> NDArray[np.int32]:
    what = f"domain {domain.name!r}: held-out text"
    shards = long_enough(domain.validation, what, length)
    count = max(1, min(eval_tokens, shards.tokens - 1) // length)
    rows = shards.rows(np.arange(count) * length, length + 1)
    return rows.astype(np.int32)
