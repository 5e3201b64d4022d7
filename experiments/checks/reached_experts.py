"""What reaches the experts of a model, and how far mixopt's counts are from it.

Each token of the batch is a domain of its own, so that counts and probabilities are a token's. The
truth is what the experts' modules are given, or, where they all run (Llama 4) or are given slices
(JetMoE), what their router returns in its own form; probabilities are what the router itself gives
all experts when it may choose all.

Shapes: T tokens, K experts of a token, E experts.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from tiny_experts import inputs_of, tiny_experts
from torch import Tensor, nn

from mixopt.routing import Assignments, FoundRouter, LayerAssignments, RouterStats, find_routers

ROWS, LENGTH = 2, 12
DOMAINS = [f"token{t}" for t in range(ROWS * LENGTH)]


class Reached:
    """The ids and weights that reached the experts of a router; an id of E is no expert."""

    def __init__(self, model: nn.Module, router: FoundRouter) -> None:
        """Listen to a router and what is behind it."""
        self.router, self.kind = router, type(router.module).__name__
        self._alone: Any = copy.deepcopy(router.module)  # before anything listens to it
        self.given: list[Any] = []
        self.ran: list[Any] = []
        router.module.register_forward_hook(self._ran, with_kwargs=True)
        behind = (
            router.module.down_embed
            if self.kind == "DogeCDMoE"
            else getattr(model.get_submodule(router.name.rpartition(".")[0]), "experts", None)
        )
        if isinstance(behind, nn.Module):
            behind.register_forward_pre_hook(self._given)

    def _given(self, _: nn.Module, inputs: Any) -> None:
        if torch._C._current_graph_task_id() == -1:
            self.given.append([part.detach() for part in inputs])

    def _ran(self, _: nn.Module, inputs: Any, named: Any, output: Any) -> None:
        if torch._C._current_graph_task_id() == -1:
            self.ran.append((inputs, named, output))

    def choices(self) -> tuple[Tensor, Tensor | None]:
        """Return the ids, shape (T, K), and their weights; None where none are given."""
        experts, output = self.router.experts, self.ran[0][2]
        if self.kind == "Llama4Router":
            weights_TE = output[0].detach()
            ids_TK = weights_TE.nonzero()[:, 1].reshape(len(weights_TE), -1)
            return ids_TK, weights_TE.gather(1, ids_TK)
        if self.kind == "JetMoeTopKGating":
            order, _, gates, sizes, _ = output
            ids, weights = torch.empty_like(order), torch.empty_like(gates)
            ids[order] = torch.repeat_interleave(torch.arange(experts), torch.tensor(sizes))
            weights[order] = gates.detach()
            return ids.reshape(-1, self.router.top_k), weights.reshape(-1, self.router.top_k)
        (given,) = self.given
        if self.kind == "DogeCDMoE":
            return given[0], None
        if self.kind == "SwitchTransformersTop1Router":
            chosen_TE = given[1][:, 0]
            ids_T = torch.where(chosen_TE.any(-1), chosen_TE.argmax(-1), experts)
            return ids_T[:, None], given[2]
        ids, weights = (part for part in given[1:] if part.dim() == 2)
        if self.kind == "ZayaRouter":  # a skipped token is given to the first expert, times 0
            ids = ids.masked_fill(weights == 0, experts)
        return ids.clamp(max=experts), weights

    def counts(self, mask: Tensor) -> np.ndarray:
        """Return assignments of each token to each expert and, last, to none."""
        ids_TK, _ = self.choices()
        counts_TE = nn.functional.one_hot(ids_TK, self.router.experts + 1).sum(1)
        return np.asarray(counts_TE * mask.reshape(-1, 1))

    @torch.no_grad()
    def probabilities(self) -> Tensor | None:
        """Return what the router gives each expert, shape (T, E); None where it cannot be asked."""
        inputs, named, output = self.ran[0]
        if self.kind in _PROBABILITIES:
            return _PROBABILITIES[self.kind](output)[:, : self.router.experts]
        if self.kind in {"DogeCDMoE", "PhimoeTopKRouter"}:
            return None
        router = self._alone
        router.top_k = self.router.experts + self.router.idle
        if hasattr(router, "topk_group"):
            router.topk_group = router.num_group
        if hasattr(router, "tid2eid"):
            router.tid2eid = torch.arange(router.top_k).expand(len(router.tid2eid), -1)
        chosen = router(*inputs, **named)
        if self.kind == "Llama4Router":
            weights_TE = chosen[0]
        else:
            weights_TE = torch.zeros_like(chosen[1]).scatter(1, chosen[2], chosen[1])
        shares_TE = weights_TE / weights_TE.sum(1, keepdim=True)
        return shares_TE[:, : self.router.experts]


_PROBABILITIES: dict[str, Any] = {
    "DbrxRouter": lambda output: output.softmax(-1),
    "Gemma4TextRouter": lambda output: output[0],
    "DiffusionGemmaTextRouter": lambda output: output[0],
    "JetMoeTopKGating": lambda output: output[4].softmax(-1),
    "SwitchTransformersTop1Router": lambda output: output[2].softmax(-1).flatten(0, 1),
    "ZayaRouter": lambda output: output[0].softmax(-1),
}


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
        mine_TE = np.concatenate([layer.counts_HDE.sum(0), layer.dropped_D[:, None]], axis=1)
        wrong += int(np.abs(mine_TE - truth.counts(mask)).sum())
    return wrong


def wrong_probability(total: Assignments, reached: list[Reached]) -> float:
    """Return by how much probabilities differ at most from the routers' own.

    Those of all experts, and the shares of the weights that the chosen ones were given.
    """
    real_T = batch()[2].flatten().bool()
    pairs = zip(total.layers, reached, strict=True)
    return max(_difference(layer, truth, real_T) for layer, truth in pairs)


def _difference(layer: LayerAssignments, truth: Reached, real_T: Tensor) -> float:
    mine_TE = torch.tensor(layer.probability_DE)
    own_TE, (ids_TK, weights_TK) = truth.probabilities(), truth.choices()
    differences = [0.0]
    if own_TE is not None:
        differences.append(float((mine_TE - own_TE)[real_T].abs().max()))
    computed_T = real_T & (ids_TK < truth.router.experts).all(1)
    chosen_TK = mine_TE[computed_T].gather(1, ids_TK[computed_T])
    differences.append(
        float((chosen_TK.sum(1) - torch.tensor(layer.chosen_D)[computed_T]).abs().max())
    )
    if weights_TK is not None and ids_TK.shape[1] > 1:
        weights_TK = weights_TK[computed_T].double()
        shares_TK = chosen_TK / chosen_TK.sum(1, keepdim=True)
        own_TK = weights_TK / weights_TK.sum(1, keepdim=True)
        differences.append(float((shares_TK - own_TK).abs().max()))
    return max(differences)
