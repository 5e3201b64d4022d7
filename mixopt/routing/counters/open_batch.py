"""Assign each token of the current batch to its counter.

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
        self._rows_HD: Tensor | None = None  # by half and domain
        self._domain_DR: Tensor | None = None  # 1 where a row is of a domain
        self._first_cells: dict[tuple[int, torch.device], Tensor] = {}

    def open(self, domain_BS: Tensor, odd_B: Tensor, domains: int, *, sums: bool) -> None:
        """Begin a batch.

        Args:
            domain_BS: Domain of each token; `domains` for an unknown one, one more for padding.
            odd_B: 1 where a sequence is of the odd half, else 0.
            domains: Number of domains.
            sums: Whether sums by domain are wanted.
        """
        shape = domain_BS.shape
        self.sequences = shape[0]
        if _is_of_sequences(domain_BS):
            domain_BS = domain_BS[:, :1]
        if self._rows_HD is None or self._rows_HD.device != domain_BS.device:
            self._know_rows(domains, domain_BS.device)
        assert self._rows_HD is not None
        place = domain_BS + odd_B[:, None] * (domains + 2)
        # Selected, because indexing takes four times as long where there are few.
        rows = self._rows_HD.view(-1).index_select(0, place.reshape(-1))
        self.rows_T = rows.view(place.shape).expand(shape).reshape(-1)
        self._first_cells = {}
        if sums:
            assert self._domain_DR is not None
            domain_DBS = self._domain_DR.index_select(1, rows).view(domains, *place.shape)
            self.domain_DT = domain_DBS.expand(domains, *shape).reshape(domains, -1)

    def _know_rows(self, domains: int, device: torch.device) -> None:
        """Lay out the rows: even 0 to D - 1, odd D to 2 D - 1, unknown and padding of either."""
        odd_H1 = torch.arange(2, device=device)[:, None]
        numbers = torch.arange(domains + 2, device=device)
        self._rows_HD = numbers + domains * ((odd_H1 == 1) | (numbers >= domains))
        one_DD = torch.eye(domains, device=device)
        self._domain_DR = torch.cat([one_DD, one_DD, one_DD.new_zeros(domains, 2)], 1)

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

    def close(self) -> None:
        """End the batch: routers that run now are not counted."""
        self.rows_T = self.domain_DT = None
        self._first_cells = {}


def token_domains(ids: Any, mask: Any, domains: tuple[str, ...]) -> Tensor:
    """Check the domains and the mask of a batch.

    Args:
        ids: Domain of each sequence, shape (B,), or of each token, shape (B, S).
        mask: 1 for real tokens, 0 for padding, shape (B, S); may be None with ids of each token.
            Additive masks (0 and a large negative number) and numbered documents are refused.
        domains: Names of the domains.

    Returns:
        Domain of each token, shape (B, S), D for one that is not in the corpus or whose mask is
        neither 0 nor 1, and D + 1 for padding.

    Raises:
        RoutingError: Shapes that do not fit, an id of no domain, or a mask that is neither 0 nor 1;
            one that is on a device is found when counts are reduced.
    """
    ids = _tensor(ids, "domain ids")
    mask = None if mask is None else _tensor(mask, "the mask")
    _check_shapes(ids, mask)
    shape = ids.shape if mask is None else mask.shape
    if ids.dim() == 1:
        ids = ids[:, None]
    elif _is_of_sequences(ids):
        ids = ids[:, :1]
    odd = None if mask is None else _odd_places(mask)
    real = None if mask is None else mask.bool().to(ids.device)
    count = len(domains)
    if ids.device.type == "cpu" and _are_domains(ids, count):
        known = ids.long()
    else:
        outside = (ids < 0) | (ids >= count)
        _check_known(ids, outside if real is None else outside & real, shape, domains)
        known = torch.where(outside, count, ids.long())
    return known.expand(shape) if real is None else with_mask(known, real, odd, count)


def with_mask(known: Tensor, real: Tensor, odd: Tensor | None, count: int) -> Tensor:
    """Return domains with those of padding and of an odd mask marked, shape (B, S).

    Args:
        known: Domain of each sequence, shape (B, 1), or of each token, shape (B, S).
        real: Which tokens are not padding.
        odd: Of which tokens the mask is neither 0 nor 1; None for none.
        count: Number of domains.
    """
    if odd is not None:
        known = torch.where(odd.to(known.device), count, known)
    return torch.where(real, known, count + 1)


def _odd_places(mask: Tensor) -> Tensor | None:
    """Return where a mask is neither 0 nor 1; None where it is known to be nowhere.

    Raises:
        RoutingError: It is so on the host; to look at that of a device would be to wait for it.
    """
    if mask.dtype == torch.bool:
        return None
    odd = (mask != 0) & (mask != 1)
    if mask.device.type != "cpu":
        return odd
    if odd.any():
        sequence, place = (int(at) for at in odd.nonzero()[0])
        raise RoutingError(
            f"the mask is {mask[sequence, place].item():g} in sequence {sequence} at token {place};"
            " it is 1 for real tokens and 0 for padding: give `mask == 0` of an additive mask,"
            " `mask > 0` of one that numbers documents"
        )
    if mask.is_floating_point() and mask.numel() and not mask.any():
        raise RoutingError(
            "the mask is 0 for every token: it is 1 for real tokens and 0 for padding; give"
            " `mask == 0` of an additive mask"
        )
    return None


def _are_domains(ids: Tensor, count: int) -> bool:
    values = ids.numpy()
    return not values.size or bool(values.min() >= 0 and values.max() < count)


def _check_known(ids: Tensor, outside: Tensor, shape: torch.Size, domains: tuple[str, ...]) -> None:
    """Check ids on the host; to look at those of a device would be to wait for it."""
    if ids.device.type != "cpu" or not outside.any():
        return
    wrong = int(ids.expand(shape)[outside.expand(shape)][0])
    raise RoutingError(
        f"domain id {wrong}: the {len(domains)} domains are 0 to {len(domains) - 1}"
        f" ({', '.join(domains)})"
    )


def _is_of_sequences(domain_BS: Tensor) -> bool:
    """Tell whether ids of tokens are those of sequences that were expanded."""
    return domain_BS.shape[1] > 1 and domain_BS.stride(1) == 0


def _tensor(values: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RoutingError(
            f"{what}: {str(values)[:80]}; expected an array of integers, the positions of their "
            "domains in attach(domains=[...])"
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
                "domain ids of shape (batch,) need the mask, of shape (batch, sequence), which "
                "gives the lengths of the sequences"
            )
    elif mask.dim() != 2 or (mask.shape[0] if ids.dim() == 1 else mask.shape) != (
        ids.shape[0] if ids.dim() == 1 else ids.shape
    ):
        raise RoutingError(
            f"domain ids of shape {tuple(ids.shape)} and a mask of shape {tuple(mask.shape)}: the"
            " mask is (batch, sequence), the ids (batch,) or the same"
        )
