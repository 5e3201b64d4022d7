"""The domain of each token of a batch, from the ids of sequences or of tokens, and the mask.

Shapes: B sequences, S tokens in each, D domains.
"""

from typing import Any

import torch
from torch import Tensor

from mixopt.errors import RoutingError

MASK_VALUES = (
    "it is 1 for real tokens and 0 for padding: give `mask == 0` of an additive mask, `mask > 0` of"
    " one that numbers documents"
)


def token_domains(ids: Any, mask: Any, domains: int) -> Tensor:
    """Return the domain of each token, shape (B, S): D for an invalid one, D + 1 for padding.

    Values on a device are not checked, which would synchronise.
    """
    ids = _tensor(ids, "domain ids")
    if mask is not None:
        mask = _tensor(mask, "the mask")
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
    if mask is None:
        domain_BS = ids
        mask_BS = torch.ones_like(ids)
    else:
        sequence_ids = ids[:, None] if ids.dim() == 1 else ids
        domain_BS = sequence_ids.expand(mask.shape)
        mask_BS = mask.to(ids.device)
    is_invalid_BS = (domain_BS < 0) | (domain_BS >= domains) | (mask_BS != 1)
    if ids.device.type == "cpu":
        _check_tokens(domain_BS, mask_BS, is_invalid_BS & (mask_BS != 0), domains)
    known_BS = torch.where(is_invalid_BS, domains, domain_BS.long())
    return torch.where(mask_BS != 0, known_BS, domains + 1)


def _check_tokens(domain_BS: Tensor, mask_BS: Tensor, is_wrong_BS: Tensor, domains: int) -> None:
    """Raise RoutingError for the first wrong token."""
    if not is_wrong_BS.any():
        return
    sequence, token = is_wrong_BS.nonzero()[0].tolist()
    value = mask_BS[sequence, token].item()
    if value == 1:
        number = domain_BS[sequence, token].item()
        fault = f"domain id {number}: the domains are 0 to {domains - 1}"
    else:
        fault = f"the mask is {value:g}; {MASK_VALUES}"
    raise RoutingError(f"sequence {sequence}, token {token}: {fault}")


def _tensor(values: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RoutingError(
            f"{name}: {str(values)[:80]}; expected an array of integers, the positions of their"
            " domains in attach(domains=[...])"
        ) from error
