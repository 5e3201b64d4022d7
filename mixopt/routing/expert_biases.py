"""The biases that routers add to choose experts, and the rule that keeps the load even by them.

After each step of the optimiser a bias rises where its expert was given fewer tokens than the mean
and falls where it was given more, by a fixed amount (Wang et al. 2024, "Auxiliary-loss-free load
balancing", which DeepSeek-V3 uses) or in proportion to how much. No gradient moves it, and experts'
outputs are weighed without it. In a loop of your own:

    stats = RouterStats.attach(model, domains)
    biases = ExpertBiases.of(stats.routers)
    before = stats.loads()
    ...                                         # the forward and backward passes of a step
    loads = stats.loads() - before
    torch.distributed.all_reduce(loads)
    biases.shift(loads, rate=1e-3)

Shapes: E experts of a router, N = sum of E over all routers, M = over those that have a bias.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mixopt.routing.adapters import FoundRouter


def bias_update_direction(loads: Tensor, *, in_proportion: bool = False) -> Tensor:
    """Return 1 for experts below the mean load of their router, -1 for those above, else 0."""
    total = loads.sum(-1, keepdim=True)
    off = total - loads * loads.shape[-1]
    return (off / total.clamp(min=1)).clamp(-1, 1) if in_proportion else off.sign()


class ExpertBiases:
    """The biases of a model's routers, in the order of the routers."""

    @classmethod
    def of(cls, routers: Sequence[FoundRouter]) -> ExpertBiases | None:
        """Return the biases of routers, as `RouterStats.routers` has them; None where none has one.

        DDP or FSDP may have wrapped the model, or wrap it later.
        """
        return cls(routers) if any(router.bias is not None for router in routers) else None

    def __init__(self, routers: Sequence[FoundRouter]) -> None:
        """Take the routers."""
        self._routers = list(routers)

    @torch.no_grad()
    def shift(self, loads_N: Tensor, rate: float, *, in_proportion: bool = False) -> None:
        """Move each bias by `rate` towards an even load; every rank calls it alike.

        The bias of a choice that computes nothing stays.

        Args:
            loads_N: Assignments of a step over all ranks, as `RouterStats.loads` has them.
            rate: By how much.
            in_proportion: Whether by less than `rate` where a load is between none and twice the
                mean: by the part of the mean that it is off.
        """
        from torch.distributed.tensor import DTensor, distribute_tensor  # half a second

        loads = torch.split(loads_N, [router.experts for router in self._routers])
        for router, load_E in zip(self._routers, loads, strict=True):
            if router.bias is None:
                continue
            bias, direction_E = (
                router.bias(),
                bias_update_direction(load_E, in_proportion=in_proportion),
            )
            moved = torch.zeros(bias.shape, device=bias.device, dtype=bias.dtype)
            moved.view(-1)[: router.experts] = rate * direction_E
            if isinstance(bias, DTensor):  # FSDP shards a bias that is a parameter
                mesh, placements = bias.device_mesh, bias.placements
                moved = distribute_tensor(moved, mesh, placements, src_data_rank=None)
            bias.add_(moved)

    @torch.no_grad()
    def values(self) -> Tensor:
        """Return all biases on the host, float32, shape (M,); every rank calls it alike."""
        from torch.distributed.tensor import DTensor

        values = []
        for router in self._routers:
            if router.bias is not None:
                bias = router.bias()
                whole = bias.full_tensor() if isinstance(bias, DTensor) else bias
                values.append(whole.flatten()[: router.experts].float())
        return torch.cat(values).cpu()
