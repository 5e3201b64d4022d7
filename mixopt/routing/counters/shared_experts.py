"""The share of a layer's output that comes from its shared experts, by domain.

Shared experts are given every token, so there is nothing to count: what tells whether they serve
one domain is the size of what they add beside what the routed experts add. Known where they stand
beside the router and `experts`, under the name that the model's family has for them
(mixopt.routing.families), or any of the names of families for a model of none.

Shapes: T tokens, D domains.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from mixopt.routing.counters.adapters import FoundRouter
from mixopt.routing.families import FAMILIES, family_of
from mixopt.system import Array

_GATE = "shared_expert_gate"  # of Qwen2-MoE: how much of its shared expert a token takes


class SharedExperts:
    """The mean share of a layer's shared experts; does nothing for a layer without."""

    def __init__(self, model: nn.Module, router: FoundRouter, domains: int) -> None:
        self._sum_D, self._tokens_D = np.zeros(domains), np.zeros(domains, np.int64)
        self._sizes: dict[str, Tensor] = {}
        self._handles: list[Any] = []
        layer = model.get_submodule(router.name.rpartition(".")[0])
        parts = dict(layer.named_children())
        shared = next((parts[name] for name in _shared_names(model) if name in parts), None)
        if shared is None or "experts" not in parts:
            return
        self._listen("shared", shared)
        self._listen("routed", parts["experts"])
        if _GATE in parts:
            self._listen("gate", parts[_GATE])

    def begin(self) -> None:
        """Begin a batch."""
        self._sizes = {}

    def end(self, domain_T: Tensor) -> None:
        """Add the batch.

        Args:
            domain_T: Domain of each token; one that is none is left out.
        """
        if not {"shared", "routed"} <= self._sizes.keys():
            return
        shared_T = self._sizes["shared"] * self._sizes.get("gate", 1)
        share_T = shared_T / (shared_T + self._sizes["routed"]).clamp(min=1e-20)
        known_T = domain_T < len(self._sum_D)
        domains, shares = domain_T[known_T].numpy(), share_T[known_T].double().numpy()
        self._sum_D += np.bincount(domains, shares, len(self._sum_D))
        self._tokens_D += np.bincount(domains, minlength=len(self._sum_D))

    def means(self) -> Array:
        """Return the mean share of each domain's tokens, shape (D,), NaN where it is not known."""
        empty = np.full(len(self._sum_D), np.nan)
        return np.asarray(
            np.divide(self._sum_D, self._tokens_D, out=empty, where=self._tokens_D > 0)
        )

    def remove(self) -> None:
        """Take the hooks out."""
        for handle in self._handles:
            handle.remove()

    def _listen(self, part: str, module: nn.Module) -> None:
        def hook(_: nn.Module, inputs: Any, output: Tensor) -> None:
            rows = output.detach().flatten(0, -2).float()
            size = rows.sigmoid()[:, 0] if part == "gate" else rows.norm(dim=-1)
            self._sizes[part] = size.cpu()

        self._handles.append(module.register_forward_hook(hook))


def _shared_names(model: nn.Module) -> set[str]:
    """Return what a layer's shared experts may be called."""
    family = family_of(model)
    families = FAMILIES.values() if family is None else [family]
    return {one.shared for one in families if one.shared is not None}
