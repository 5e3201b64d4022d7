"""Check the domains and the mask of a batch that is to be counted.

Values are not looked at, which would be to wait for a device: what is wrong of them is marked, and
found after the first batch and when counts are reduced.

Shapes: B sequences, S tokens of one, D domains.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixopt.errors import RoutingError


def token_domains(ids: Any, mask: Any, domains: int) -> Tensor:
    """Return the domain of each token, shape (B, S): D where it cannot be, D + 1 for padding."""
    ids = _tensor(ids, "domain ids")
    mask = None if mask is None else _tensor(mask, "the mask")
    _check_shapes(ids, mask)
    domain_BS = (ids[:, None] if ids.dim() == 1 else ids).expand(
        ids.shape if mask is None else mask.shape
    )
    mask = torch.ones((), device=ids.device) if mask is None else mask.to(ids.device)
    is_odd = (domain_BS < 0) | (domain_BS >= domains) | (mask != 1)
    return torch.where(mask != 0, torch.where(is_odd, domains, domain_BS.long()), domains + 1)


def _tensor(values: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RoutingError(
            f"{what}: {str(values)[:80]}; expected an array of integers, the positions of their"
            " domains in attach(domains=[...])"
        ) from error


def _check_shapes(ids: Tensor, mask: Tensor | None) -> None:
    if ids.is_floating_point() or ids.dtype == torch.bool or ids.dim() not in {1, 2}:
        raise RoutingError(
            f"domain ids: {ids.dtype} of shape {tuple(ids.shape)}; integers of shape (batch,) or"
            " (batch, sequence) are needed"
        )
    if mask is None and ids.dim() == 1:
        raise RoutingError(
            "domain ids of shape (batch,) need the mask, of shape (batch, sequence), which gives"
            " the lengths of the sequences"
        )
    if mask is not None and (mask.dim() != 2 or ids.shape != mask.shape[: ids.dim()]):
        raise RoutingError(
            f"domain ids of shape {tuple(ids.shape)} and a mask of shape {tuple(mask.shape)}: the"
            " mask is (batch, sequence), the ids (batch,) or the same"
        )
