"""Where each token of the batch at hand is counted.

A token's row is its domain, once for sequences at even places and once for odd ones: the two
halves say how much of what is measured is chance. Padding and domains that are not in the corpus
have rows of their own, so that shapes never depend on values and a device is never waited for.

Shapes: B sequences, S tokens of one, T = B * S, D domains, R = 2 * D + 2 rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixopt.errors import RoutingError


class OpenBatch:
    """The batch that is being counted; all routers of a model share one.

    Attributes:
        rows_T: Row of each token, None between batches.
        sequences: How many sequences the tokens are of.
        domain_DT: 1 where a token is of a domain, for sums by domain; None between batches.
    """

    def __init__(self) -> None:
        self.rows_T: Tensor | None = None
        self.sequences = 0
        self.domain_DT: Tensor | None = None
        self._domain_DR: Tensor | None = None
        self._first_cells: dict[tuple[int, torch.device], Tensor] = {}

    def open(self, domain_BS: Tensor, even_B: Tensor, domains: int, *, sums: bool) -> None:
        """Begin a batch.

        Args:
            domain_BS: Domain of each token; `domains` for an unknown one, one more for padding.
            even_B: Whether a sequence is of the even half.
            domains: Number of domains.
            sums: Whether sums by domain are wanted.
        """
        shape = domain_BS.shape
        self.sequences = shape[0]
        if _is_of_sequences(domain_BS):
            domain_BS = domain_BS[:, :1]
        # Even: 0 to D - 1. Odd: D to 2 D - 1. Then the unknown and padding, of either half.
        behind = (domain_BS >= domains) | ~even_B[:, None]
        rows_BS = domain_BS + behind * domains
        self.rows_T = rows_BS.expand(shape).reshape(-1)
        self._first_cells = {}
        if sums:
            domain_DBS = self._domains_of_rows(domains, rows_BS.device)[:, rows_BS]
            self.domain_DT = domain_DBS.expand(-1, *shape).reshape(domains, -1)

    def first_cells(self, choices: int, device: torch.device) -> Tensor:
        """Return where the counts of each token's row begin, shape (T, 1).

        Args:
            choices: Counts of a row.
            device: Where the router ran.
        """
        assert self.rows_T is not None
        if (choices, device) not in self._first_cells:
            self._first_cells[choices, device] = (self.rows_T.to(device) * choices)[:, None]
        return self._first_cells[choices, device]

    def _domains_of_rows(self, domains: int, device: torch.device) -> Tensor:
        """Return 1 where a row is of a domain, shape (D, R)."""
        if self._domain_DR is None or self._domain_DR.device != device:
            one_DD = torch.eye(domains, device=device)
            self._domain_DR = torch.cat([one_DD, one_DD, one_DD.new_zeros(domains, 2)], 1)
        return self._domain_DR

    def close(self) -> None:
        """End the batch: routers that run now are not counted."""
        self.rows_T = self.domain_DT = None
        self._first_cells = {}


def token_domains(ids: Any, mask: Any, domains: tuple[str, ...]) -> Tensor:
    """Check the domains and the mask of a batch.

    Args:
        ids: Domain of each sequence, shape (B,), or of each token, shape (B, S).
        mask: 1 for real tokens, 0 for padding, shape (B, S); may be None with ids of each token.
        domains: Names of the domains.

    Returns:
        Domain of each token, shape (B, S), D for one that is not in the corpus and D + 1 for
        padding.

    Raises:
        RoutingError: Shapes that do not fit, or an id that is no domain; one that is on a device
            is found when counts are reduced.
    """
    ids = _tensor(ids, "domain ids")
    mask = None if mask is None else _tensor(mask, "the mask")
    _check_shapes(ids, mask)
    shape = ids.shape if mask is None else mask.shape
    if ids.dim() == 1:
        ids = ids[:, None]
    elif _is_of_sequences(ids):
        ids = ids[:, :1]
    real = None if mask is None else mask.bool().to(ids.device)
    count = len(domains)
    outside = (ids < 0) | (ids >= count)
    if ids.device.type == "cpu" and outside.any():
        wrong = ids.expand(shape)[outside.expand(shape) if real is None else outside & real]
        if len(wrong):
            raise RoutingError(
                f"domain id {int(wrong[0])}: the {count} domains are 0 to {count - 1}"
                f" ({', '.join(domains)})"
            )
    known = torch.where(outside, count, ids.long())
    return known.expand(shape) if real is None else torch.where(real, known, count + 1)


def _is_of_sequences(domain_BS: Tensor) -> bool:
    """Tell whether ids of tokens are those of sequences that were expanded."""
    return domain_BS.shape[1] > 1 and domain_BS.stride(1) == 0


def _tensor(values: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RoutingError(
            f"{what}: {str(values)[:80]}; an array of integers is needed, ids by the places of"
            " their domains in attach(domains=[...])"
        ) from error


def _check_shapes(ids: Tensor, mask: Tensor | None) -> None:
    if ids.is_floating_point() or ids.dtype == torch.bool or ids.dim() not in {1, 2}:
        raise RoutingError(
            f"domain ids: {ids.dtype} of shape {tuple(ids.shape)}; integers of shape (batch,) or"
            " (batch, sequence) are needed"
        )
    if mask is None:
        if ids.dim() == 1:
            raise RoutingError(
                "domain ids of shape (batch,) need the mask, of shape (batch, sequence), which"
                " says how long the sequences are"
            )
    elif mask.dim() != 2 or (mask.shape[0] if ids.dim() == 1 else mask.shape) != (
        ids.shape[0] if ids.dim() == 1 else ids.shape
    ):
        raise RoutingError(
            f"domain ids of shape {tuple(ids.shape)} and a mask of shape {tuple(mask.shape)}: the"
            " mask is (batch, sequence), the ids (batch,) or the same"
        )
