"""What reaches the experts of a model, and how far mixopt's counts are from it.

Each token of the batch is a domain of its own, so that counts are a token's. The truth is the ids
that the experts' modules are given and, where their router returns ids, those as well; where the
experts all run (Llama 4) or are given slices (JetMoE), what their router returns in its own form.

Shapes: T tokens, K experts of a token, E experts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tiny_experts import inputs_of, tiny_experts
from torch import Tensor, nn

from mixopt.routing import Assignments, RouterStats, find_routers
from mixopt.routing.adapters import FoundRouter

ROWS, LENGTH = 2, 12
DOMAINS = [f"token{t}" for t in range(ROWS * LENGTH)]


class Reached:
    """The ids that reached the experts of a router; an id of E is no expert."""

    def __init__(self, model: nn.Module, router: FoundRouter) -> None:
        """Listen to the parts of the block around it."""
        self.router = router
        self.given: list[list[Any]] = []
        self.returned: list[Any] = []
        block = model.get_submodule(router.name.rpartition(".")[0])
        for name, part in block.named_children():
            if name in {"experts", "down_embed"}:
                part.register_forward_pre_hook(self._given, with_kwargs=True)
            if name in {"gate", "router"}:
                self.kind = type(part).__name__
                part.register_forward_hook(self._returned)
        self.kind = getattr(self, "kind", type(block).__name__)

    def _given(self, _: nn.Module, inputs: Any, named: dict[str, Any]) -> None:
        if torch._C._current_graph_task_id() == -1:
            self.given.append([part.detach() for part in (*inputs, *named.values())])

    def _returned(self, _: nn.Module, inputs: Any, output: Any) -> None:
        if torch._C._current_graph_task_id() == -1:
            self.returned.append(output)

    def ids(self) -> Tensor:
        """Return the ids, shape (T, K)."""
        experts, top_k = self.router.experts, self.router.top_k
        if self.kind == "Llama4Router":
            weights_TE = self.returned[0][0].detach()
            return weights_TE.nonzero()[:, 1].reshape(len(weights_TE), -1)
        if self.kind == "JetMoeTopKGating":
            order, _, _, sizes, _ = self.returned[0]
            ids = torch.empty_like(order)
            ids[order] = torch.repeat_interleave(torch.arange(experts), torch.tensor(sizes))
            return ids.reshape(-1, top_k)
        (given,) = self.given
        if self.kind == "DogeCDMoE":
            return given[0]
        if self.kind == "SwitchTransformersTop1Router":
            chosen_TE = given[1][:, 0]
            return torch.where(chosen_TE.any(-1), chosen_TE.argmax(-1), experts)[:, None]
        ids = next(part for part in given if part.dim() == 2 and not part.is_floating_point())
        self._check_returned(ids)
        if self.kind == "ZayaRouter":  # a skipped token is given to the first expert, times 0
            weights = next(part for part in given[1:] if part.is_floating_point())
            ids = ids.masked_fill(weights == 0, experts)
        return ids.clamp(max=experts)

    def _check_returned(self, ids: Tensor) -> None:
        """Check that the experts are given what the router returned, where it returns ids."""
        output = self.returned[0] if self.returned else ()
        parts = output if isinstance(output, tuple) else ()
        for part in parts:
            if isinstance(part, Tensor) and not part.is_floating_point():
                assert torch.equal(part.reshape(ids.shape), ids)

    def counts(self, mask: Tensor) -> np.ndarray:
        """Return assignments of each token to each expert and, last, to none."""
        counts_TE = nn.functional.one_hot(self.ids(), self.router.experts + 1).sum(1)
        return np.asarray(counts_TE * mask.reshape(-1, 1))


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens, domains and a mask, of which some is padding."""
    drawn = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 64, (ROWS, LENGTH), generator=drawn)
    mask = torch.ones_like(tokens)
    mask[1, 8:] = 0
    return tokens, torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH), mask


def counted(family: str, *, checkpointed: bool = False) -> tuple[Assignments, list[Reached]]:
    """Run a batch forward and backward, and return what was counted and what reached the experts.

    Raises:
        ValueError: Layers of the family cannot be computed again.
    """
    model, (tokens, ids, mask) = tiny_experts(family), batch()
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    reached = [Reached(model, router) for router in find_routers(model)]
    stats = RouterStats.attach(model, DOMAINS)
    with stats.domains(ids, mask):
        output = model(**inputs_of(model, tokens, mask))
        output[0].float().sum().backward()
    return stats.total(), reached


def wrong_counts(total: Assignments, reached: list[Reached]) -> int:
    """Return how many assignments are counted otherwise than they reached the experts."""
    mask, wrong = batch()[2], 0
    for layer, truth in zip(total.layers, reached, strict=True):
        mine_TE = np.concatenate([layer.counts_DE, layer.dropped_D[:, None]], axis=1)
        wrong += int(np.abs(mine_TE - truth.counts(mask)).sum())
    return wrong
