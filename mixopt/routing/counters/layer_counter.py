"""Count the choices of one router, on its device, without waiting for it.

The hook works in a traced graph as well as in eager code: it depends on shapes alone, and keeps
what it counts in plain tensors. Buffers of the module would be overwritten by DDP at the next
forward pass. Integers count exactly; sums of probabilities are of float32 and are meant to be
moved to the host long before rounding shows. What a token has several of is summed over tokens here
and over the rest on the way to the host: one product does it for all, where a sum over few experts
of many tokens is slow.

Shapes: T tokens, K experts of a token, E experts, D domains, R rows of `OpenBatch`,
F = 2 * E + 5 sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mixopt.routing.counters.adapters import FoundRouter
from mixopt.routing.counters.open_batch import OpenBatch
from mixopt.routing.counters.reading import RoutedTokens, read_output
from mixopt.routing.families import Scores

# What is summed for each domain after the E probabilities.
SUMS = ("entropy", "squared_logsumexp", "chosen")
# The lowest id that is told apart, and how many places there are beside those of experts.
BELOW, AROUND = -2, 4
WEIGHT_UNITS = 2**20
# Instead of minus infinity, which times a probability of 0 is not a number.
_LEAST_LOGIT = -1e3
_LEAST_PROBABILITY = 1e-30
_MOST_WEIGHT = 2.0**20  # so that sums stay within 64 bits


class LayerCounter:
    """The accumulators of one router, and the hook that adds to them.

    Attributes:
        router: The router.
        batch: Says where tokens are counted; shared by all routers of a model.
        counts: Choices of each row, shape (R * (E + 4),): by ids that are too low, of places that
            are not used, of the E experts, dropped, and by ids that are too high.
        passes: How often the router ran, to tell whether each batch was counted once.
        sums_DF: Sums over each domain's tokens, of which `domain_sums` makes those that are wanted;
            None where only counts are.
        chosen_DK: Sums of the probabilities of what was chosen, beside `sums_DF`.
        weights: Sums of weights where the counts are, in units of 1 / `WEIGHT_UNITS`; None until
            the router gives some.
    """

    def __init__(
        self, router: FoundRouter, batch: OpenBatch, domains: int, *, device: Any, sums: bool
    ) -> None:
        self.router = router
        self.batch = batch
        self.choices = router.experts + AROUND
        rows = 2 * domains + 2
        self.counts = torch.zeros(rows * self.choices, dtype=torch.int64, device=device)
        self.passes = torch.zeros(1, dtype=torch.int64, device=device)
        self.sums_DF: Tensor | None = None
        if sums:
            width = self.choices + 1 + router.experts
            self.sums_DF = torch.zeros(domains, width, device=device)
        self.chosen_DK = torch.zeros(domains, router.top_k, device=device)
        self.weights: Tensor | None = None
        self._one = torch.ones(1, dtype=torch.int64, device=device)
        self._handle = router.module.register_forward_hook(self.hook)

    def hook(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Count what the router has chosen, unless nothing is being counted."""
        rows_T = self.batch.rows_T
        if rows_T is None:
            return
        # Activation checkpointing runs the router again in the backward pass. Asking for that would
        # break a graph, and a compiled checkpoint does not repeat what was written.
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            return
        with torch.no_grad():
            tokens = rows_T.shape[0]
            routed = read_output(self.router, output, tokens, self.batch.sequences)
            self._add(rows_T, routed)

    def _add(self, rows_T: Tensor, routed: RoutedTokens) -> None:
        ids_TK, logits_TE = routed.ids, routed.logits
        if self.counts.device != ids_TK.device:
            self._move(ids_TK.device)
        place_TK = ids_TK.clamp(BELOW, self.router.experts + 1) - BELOW
        first_T1 = self.batch.first_cells(self.choices, ids_TK.device)
        cell = (first_T1 + place_TK).view(-1)
        self.counts.scatter_add_(0, cell, self._one.expand(cell.shape))
        if routed.weights is not None:
            self._weigh(cell, routed.weights)
        self.passes.add_(1)
        domain_DT = self.batch.domain_DT
        if self.sums_DF is not None and domain_DT is not None and logits_TE is not None:
            values_TF = self._values(logits_TE.float())
            chosen_TK = values_TF.gather(-1, place_TK.long())
            # In place, because autocast would lower the precision of a product that is not.
            domain_DT = domain_DT.to(values_TF.device)
            self.sums_DF.addmm_(domain_DT, values_TF)
            self.chosen_DK.addmm_(domain_DT, chosen_TK)

    def _weigh(self, cell: Tensor, weights_TK: Tensor) -> None:
        """Add weights as whole numbers of small units, so that no order or rank matters.

        Those that are not finite or below 0 count as 0.
        """
        if self.weights is None:
            self.weights = torch.zeros_like(self.counts)
        # What is not finite would be an integer that depends on the device.
        known_TK = weights_TK.double().nan_to_num(0.0, 0.0, 0.0).clamp(0.0, _MOST_WEIGHT)
        units = (known_TK * WEIGHT_UNITS).round().to(torch.int64)
        self.weights.scatter_add_(0, cell, units.reshape(-1))

    def _values(self, logits_TE: Tensor) -> Tensor:
        logits_TE = logits_TE.clamp(min=_LEAST_LOGIT)
        logarithms_TE = logits_TE.log_softmax(-1)
        total_T1 = logits_TE[:, :1] - logarithms_TE[:, :1]
        if self.router.scores == "softmax":
            probability_TE = logarithms_TE.exp()
        else:
            probability_TE = probabilities(logits_TE, self.router.scores)
            logarithms_TE = probability_TE.clamp(min=_LEAST_PROBABILITY).log()
        information_TE = probability_TE * logarithms_TE
        if self.router.idle:
            information_TE = self._with_idle(information_TE)
            probability_TE = probability_TE[:, : self.router.experts]
        # Places before and after those of the experts have no probability.
        none_T2 = logits_TE.new_zeros(logits_TE.shape[0], 2)
        parts = [none_T2, probability_TE, none_T2, total_T1.square(), information_TE]
        return torch.cat(parts, dim=-1)

    def _with_idle(self, information_TE: Tensor) -> Tensor:
        """Return values of the experts alone, of the same sum: those of the rest in the last."""
        last = self.router.experts - 1
        rest_T1 = information_TE[:, last:].sum(-1, keepdim=True)
        return torch.cat([information_TE[:, :last], rest_T1], -1)

    def domain_sums(self) -> Tensor | None:
        """Return sums over tokens of the experts' probabilities and of `SUMS`, shape (D, E + 3)."""
        if self.sums_DF is None:
            return None
        experts = self.router.experts
        parts = torch.split(self.sums_DF, [-BELOW, experts, AROUND + BELOW, 1, experts], -1)
        _, probability_DE, _, squared_D1, information_DE = parts
        entropy_D1 = -information_DE.sum(-1, keepdim=True)
        chosen_D1 = self.chosen_DK.sum(-1, keepdim=True)
        return torch.cat([probability_DE, entropy_D1, squared_D1, chosen_D1], -1)

    def load(self) -> Tensor:
        """Return how many assignments each expert has now, padding left out, shape (E,)."""
        of_experts = slice(-BELOW, -BELOW + self.router.experts)
        return self.counts.view(-1, self.choices)[:-1, of_experts].sum(0)

    def _move(self, device: torch.device) -> None:
        """Follow a model that was moved, or whose weights rest elsewhere than they work."""
        self.counts = self.counts.to(device)
        self.passes, self._one = self.passes.to(device), self._one.to(device)
        self.chosen_DK = self.chosen_DK.to(device)
        if self.sums_DF is not None:
            self.sums_DF = self.sums_DF.to(device)
        if self.weights is not None:
            self.weights = self.weights.to(device)

    def clear(self) -> None:
        """Begin again from nothing."""
        self.counts.zero_()
        self.passes.zero_()
        self.chosen_DK.zero_()
        if self.sums_DF is not None:
            self.sums_DF.zero_()
        if self.weights is not None:
            self.weights.zero_()

    def remove(self) -> None:
        """Take the hook out."""
        self._handle.remove()


def probabilities(logits_TE: Tensor, scores: Scores) -> Tensor:
    """Return a router's probability of each expert, adding up to 1.

    Args:
        logits_TE: As the router gives them.
        scores: What turns them into probabilities.
    """
    if scores == "softmax":
        return logits_TE.softmax(-1)
    scores_TE = logits_TE.sigmoid() if scores == "sigmoid" else softplus(logits_TE).sqrt()
    return scores_TE / scores_TE.sum(-1, keepdim=True).clamp(min=1e-20)


def is_counted(module: nn.Module) -> bool:
    """Tell whether a router has such a hook already."""
    owners = (getattr(hook, "__self__", None) for hook in module._forward_hooks.values())
    return any(isinstance(owner, LayerCounter) for owner in owners)
