"""Check the domains and the mask of a batch that is to be counted.

Values on a device are not looked at, which would be to wait for it: what is wrong of them is marked
and found when counts are reduced.

Shapes: B sequences, S tokens of one, D domains.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixopt.errors import RoutingError


def token_domains(ids: Any, mask: Any, domains: tuple[str, ...]) -> Tensor:
    """Return the domain of each token, shape (B, S)."""
    ids = _tensor(ids, "domain ids")
    mask = None if mask is None else _tensor(mask, "the mask")
    _check_shapes(ids, mask)
    shape, count = ids.shape if mask is None else mask.shape, len(domains)
    domain_BS = (ids[:, None] if ids.dim() == 1 else ids).expand(shape)
    outside = (domain_BS < 0) | (domain_BS >= count)
    if mask is None:
        _check_ids(domain_BS, outside, domains)
        return torch.where(outside, count, domain_BS.long())
    _check_mask(mask)
    real = mask.to(ids.device) != 0
    _check_ids(domain_BS, outside & real, domains)
    is_odd = outside if mask.dtype == torch.bool else outside | (real & (mask.to(ids.device) != 1))
    return torch.where(real, torch.where(is_odd, count, domain_BS.long()), count + 1)


def _check_mask(mask: Tensor) -> None:
    if mask.dtype == torch.bool or mask.device.type != "cpu":
        return
    odd = (mask != 0) & (mask != 1)
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


def _check_ids(domain_BS: Tensor, wrong: Tensor, domains: tuple[str, ...]) -> None:
    if domain_BS.device.type == "cpu" and wrong.any():
        raise RoutingError(
            f"domain id {int(domain_BS[wrong][0])}: the {len(domains)} domains are 0 to"
            f" {len(domains) - 1} ({', '.join(domains)})"
        )


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
