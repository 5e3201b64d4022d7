"""The biases that routers add to choose experts, and the rule that keeps the load even by them.

After each step of the optimiser a bias rises by a fixed amount where its expert was given fewer
tokens than the mean and falls where it was given more (Wang et al. 2024, "Auxiliary-loss-free load
balancing", which DeepSeek-V3 uses). No gradient moves it, and the experts' outputs are weighed
without it.

    biases = ExpertBiases.of(model)
    before = stats.loads()
    ...                                         # the forward and backward passes of a step
    loads = stats.loads() - before
    torch.distributed.all_reduce(loads)
    biases.shift(loads, rate=1e-3)

Shapes: E experts of a router, N = sum of E over the routers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from mixopt.errors import RoutingError
from mixopt.routing.counters import FoundRouter, RouterAdapter, find_routers
from mixopt.routing.families import family_of


class ExpertBiases:
    """The biases of a model's routers, router after router as `RouterStats.loads` has them."""

    @classmethod
    def of(cls, model: nn.Module, adapters: Sequence[RouterAdapter] = ()) -> ExpertBiases | None:
        """Find the biases of a model; None where its family has none.

        Args:
            model: One of transformers'; DDP or FSDP have wrapped it already, or do not.
            adapters: As RouterStats.attach has them.

        Raises:
            RoutingError: A router is without a bias that its family has.
        """
        family = family_of(model)
        if family is None or family.bias is None:
            return None
        modules = dict(model.named_modules())
        routers = find_routers(model, adapters)
        return cls([_bias_of(router, family.bias, modules) for router in routers])

    def __init__(self, biases: Sequence[Callable[[], Tensor]]) -> None:
        """Take what returns each bias: FSDP has another tensor in its place in a forward pass."""
        self._biases = list(biases)

    @torch.no_grad()
    def shift(self, loads_N: Tensor, rate: float) -> None:
        """Move each bias by `rate` towards an even load; every rank calls it alike.

        Args:
            loads_N: Assignments of a step over all ranks.
            rate: By how much.
        """
        biases = [bias() for bias in self._biases]
        sizes = [bias.numel() for bias in biases]
        for bias, load_E in zip(biases, torch.split(loads_N, sizes), strict=True):
            way_E = (load_E.sum() - load_E * len(load_E)).sign()
            moved = (rate * way_E).to(bias.device, bias.dtype).view(bias.shape)
            if isinstance(bias, DTensor):  # FSDP shards a bias that is a parameter
                mesh, placements = bias.device_mesh, bias.placements
                moved = distribute_tensor(moved, mesh, placements, src_data_rank=None)
            bias.add_(moved)

    @torch.no_grad()
    def values(self) -> Tensor:
        """Return all biases on the host, float32, shape (N,); every rank calls it alike."""
        biases = [bias() for bias in self._biases]
        whole = [bias.full_tensor() if isinstance(bias, DTensor) else bias for bias in biases]
        return torch.cat([bias.flatten().float() for bias in whole]).cpu()


def _bias_of(router: FoundRouter, path: str, modules: dict[str, nn.Module]) -> Callable[[], Tensor]:
    """Return what returns a router's bias, which it or the module around it has.

    Raises:
        RoutingError: Neither has it.
    """
    for module in (router.module, modules[router.name.rpartition(".")[0]]):
        found = _attribute(module, path)
        if isinstance(found, Tensor) and found.numel() == router.experts:
            return partial(_attribute, module, path)
    raise RoutingError(
        f"router {router.name!r}: {type(router.module).__name__} has no {path!r} of"
        f" {router.experts} numbers, by which its family is balanced; experts.balance: 'off' trains"
        " without"
    )


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module
