"""Losses on held-out text: always the same rows of each evaluation domain, shared by the ranks.

All ranks run the same number of passes of the same shape, which sharded models need and compiled
ones like; what is left of the last is filled with rows that do not count.

Shapes: M evaluation domains, R rows, B rows of a pass, W tokens of a row.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mixopt.corpus import Domain
from mixopt.online import HeldOut, held_out_losses
from mixopt.pretraining.batches import Text
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.parallel import ParallelModel
from mixopt.pretraining.ranks import Ranks
from mixopt.pretraining.training_step import token_losses

Sums = dict[str, tuple[float, int, float]]


class HeldOutText:
    """The held-out rows of this rank, and their losses by evaluation domain."""

    def __init__(
        self, text: Text, config: PretrainConfig, ranks: Ranks, model: ParallelModel
    ) -> None:
        """Read the rows; each evaluation domain has at least one."""
        rows = [_rows(domain, config) for domain in text.evaluation]
        tokens_RW = np.concatenate(rows)
        domain_R = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
        size = config.rows_of_pass(ranks.count)
        padded = math.ceil(len(tokens_RW) / (size * ranks.count)) * size * ranks.count
        index_BB = np.arange(padded).reshape(-1, size)[ranks.rank :: ranks.count]
        self.names = text.evaluation_names
        self.bits_M = [_bits_per_nat(domain) for domain in text.evaluation]
        self._model, self._device = model, ranks.device
        self._passes = [
            (tokens_RW[i % len(tokens_RW)], domain_R[i % len(tokens_RW)], i < len(tokens_RW))
            for i in index_BB
        ]
        self._sums: Sums | None = None

    def sums(self) -> Sums:
        """Return losses, tokens and squares of losses of this rank, by evaluation domain."""
        if self._sums is None:
            self._sums = self._evaluate()
        return self._sums

    def forget(self) -> None:
        """Note that the weights have moved."""
        self._sums = None

    def losses(self) -> HeldOut | str:
        """Return the losses over all ranks, or which of them is not finite."""
        return held_out_losses(self.sums, self.names)

    def _evaluate(self) -> Sums:
        sums_3M = torch.zeros(3, len(self.names), dtype=torch.float64, device=self._device)
        for tokens, domain, counts in self._passes:
            tokens_BW = torch.from_numpy(tokens).to(self._device)
            output = self._model.evaluate(tokens_BW[:, :-1])
            sums_3B = _row_sums(token_losses(output, tokens_BW[:, 1:]))
            domain_B = torch.from_numpy(domain).to(self._device)
            counts_B = torch.from_numpy(counts).to(self._device)
            sums_3M.index_add_(1, domain_B[counts_B], sums_3B[:, counts_B])
        return {
            name: (loss, int(count), square)
            for name, (loss, count, square) in zip(self.names, sums_3M.T.tolist(), strict=True)
        }


def _row_sums(losses_BT: Tensor) -> Tensor:
    """Return the sum of each row's losses, their number, and the sum of their squares."""
    exact = losses_BT.double()
    return torch.stack([exact.sum(1), torch.ones_like(exact).sum(1), exact.square().sum(1)])


def _rows(
    domain: Domain, config: PretrainConfig
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    shards, length = domain.validation, config.row_length
    most = max(1, config.held_out.tokens // config.training.sequence_length)
    starts = np.arange(min(most, shards.tokens // length)) * length
    return shards.rows(starts, length).astype(np.int64)


def _bits_per_nat(domain: Domain) -> float | None:
    """Return bits per byte for one nat per token; None where the text's length is not known."""
    held_out = domain.validation
    return held_out.tokens / held_out.bytes / math.log(2) if held_out.bytes else None
