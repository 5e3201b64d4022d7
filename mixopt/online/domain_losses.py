"""Add up losses by domain on the device, in whole numbers, without waiting for it.

A loss becomes a multiple of 2^-20 nats, and the sums are 64-bit integers: they do not depend on
the order of the samples, on the number of ranks, or on when a checkpoint took a part of them. A
loss that is not finite (or beyond 2^20 nats) is counted, never summed.

Shapes: B sequences, T tokens, D domains; R rows of sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mixopt.errors import EstimatorError

UNIT = 1 << 20  # of a nat
LOSS, COUNT, BROKEN, EXCESS = range(4)
ROWS = 4
_MOST = float(1 << 20)


class DomainLosses:
    """Sums of one rank since they were last taken: losses, tokens, broken losses, excess."""

    def __init__(self, lengths_D: Sequence[float]) -> None:
        """Start at 0.

        Args:
            lengths_D: Tokens of a sample of each domain.
        """
        self._totals_RD = torch.zeros((ROWS, len(lengths_D)), dtype=torch.int64)
        self._lengths_D = torch.tensor(lengths_D).round().long()

    def add(
        self,
        losses: Tensor,
        domain_B: Tensor,
        mask: Tensor | None,
        reference: Tensor | None,
    ) -> None:
        """Add losses; it is done on their device, and nothing is waited for.

        Args:
            losses: Of each token, shape (B, T), or the mean of each sequence, shape (B,); nats.
            domain_B: Domain number of each sequence.
            mask: Which tokens count, shape (B, T); without it all do.
            reference: The reference model's losses, in the shape of `losses`.

        Raises:
            EstimatorError: Shapes that do not fit.
        """
        _check_shapes(losses, domain_B, mask, reference)
        with torch.no_grad():
            losses = losses.detach()
            self._follow(losses.device)
            domain_B = _beside(losses, domain_B).long()
            mask = None if mask is None else _beside(losses, mask).bool()
            if losses.ndim == 2:
                rows_RB = _rows(losses, mask, reference)
            else:
                tokens_B = self._lengths_D[domain_B] if mask is None else mask.sum(dim=1)
                one = losses[:, None], None if reference is None else reference[:, None]
                rows_RB = _rows(one[0], None, one[1]) * tokens_B
            self._totals_RD[: len(rows_RB)].index_add_(1, domain_B, rows_RB)

    def _follow(self, device: torch.device) -> None:
        """Keep the sums where the losses are."""
        if self._totals_RD.device != device:
            self._totals_RD = self._totals_RD.to(device)
            self._lengths_D = self._lengths_D.to(device)

    def put(self, totals_RD: Tensor) -> None:
        """Add sums that were taken before."""
        self._totals_RD += totals_RD.to(self._totals_RD.device)

    def take(self) -> Tensor:
        """Return the sums, shape (R, D), and start at 0 again."""
        taken = self._totals_RD
        self._totals_RD = torch.zeros_like(taken)
        return taken

    def peek(self) -> Tensor:
        """Return a copy of the sums, shape (R, D)."""
        return self._totals_RD.clone()


def _rows(losses: Tensor, mask: Tensor | None, reference: Tensor | None) -> Tensor:
    """Return the sums of each sequence; without a reference the row of excess is left out."""
    whole = losses.abs() < _MOST
    if reference is not None:
        reference = _beside(losses, reference)
        whole &= reference.abs() < _MOST
    if mask is not None:
        whole &= mask
    count_B = whole.sum(dim=1)
    asked_B = losses.shape[1] if mask is None else mask.sum(dim=1)
    rows = [_units(losses, whole), count_B, asked_B - count_B]
    if reference is not None:
        rows.append(_units((losses - reference).clamp(min=0), whole))
    return torch.stack(rows)


def _units(losses: Tensor, whole: Tensor) -> Tensor:
    """Return whole units; a power of two times a float is exact, so nothing but the unit rounds."""
    kept = torch.where(whole, losses.float(), 0.0)
    return kept.mul_(UNIT).round_().long().sum(dim=1)


def _beside(losses: Tensor, other: Tensor) -> Tensor:
    """Bring a tensor to the device of the losses."""
    return other.detach().to(losses.device, non_blocking=True)


def _check_shapes(
    losses: Tensor, domain_B: Tensor, mask: Tensor | None, reference: Tensor | None
) -> None:
    if losses.ndim not in {1, 2} or domain_B.shape != losses.shape[:1]:
        raise EstimatorError(
            f"record: losses of shape {tuple(losses.shape)} and domains of shape"
            f" {tuple(domain_B.shape)}; they are (B, T) or (B,), and (B,)"
        )
    if reference is not None and reference.shape != losses.shape:
        raise EstimatorError(
            f"record: reference_losses of shape {tuple(reference.shape)} for losses of shape"
            f" {tuple(losses.shape)}"
        )
    if mask is not None and (mask.ndim != 2 or mask.shape[: losses.ndim] != losses.shape):
        raise EstimatorError(
            f"record: a mask of shape {tuple(mask.shape)} for losses of shape"
            f" {tuple(losses.shape)}; it has their shape, or (B, T) for means of sequences"
        )
