"""Count what one router chooses, on its device, without ever waiting for it.

The hook works in a traced graph as well as in eager code: it depends on shapes alone, and keeps
what it counts in plain tensors. Buffers of the module would be overwritten by DDP at the next
forward pass. Integers count exactly; sums of probabilities are of float32 and are meant to be
moved to the host long before rounding shows.

Shapes: T tokens, K experts of a token, E experts, D domains, R rows of `OpenBatch`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from mixopt.errors import RoutingError
from mixopt.routing.counters.adapters import EXAMPLE, FoundRouter
from mixopt.routing.counters.open_batch import OpenBatch

# What is summed for each domain after the E probabilities.
SUMS = ("entropy", "squared_logsumexp", "chosen")


class LayerCounter:
    """The accumulators of one router, and the hook that adds to them.

    Attributes:
        router: The router.
        batch: Says where tokens are counted; shared by all routers of a model.
        counts: Assignments of each row to each expert and, last, to none: shape (R * (E + 1),).
        passes: How often the router ran, to tell whether each batch was counted once.
        sums_DF: Sum over each domain's tokens of the probabilities of the experts and of `SUMS`,
            shape (D, E + 3); None where only counts are wanted.
    """

    def __init__(
        self, router: FoundRouter, batch: OpenBatch, domains: int, *, device: Any, sums: bool
    ) -> None:
        self.router = router
        self.batch = batch
        self.choices = router.experts + 1
        rows = 2 * domains + 2
        self.counts = torch.zeros(rows * self.choices, dtype=torch.int64, device=device)
        self.passes = torch.zeros(1, dtype=torch.int64, device=device)
        self.sums_DF: Tensor | None = None
        if sums:
            self.sums_DF = torch.zeros(domains, router.experts + len(SUMS), device=device)
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
            self._add(rows_T, *self.read(output))

    def read(self, output: Any) -> tuple[Tensor, Tensor | None]:
        """Return the ids, shape (T, K), and the logits, shape (T, E).

        Raises:
            RoutingError: The output is not what the adapter says.
        """
        try:
            ids, logits = self.router.read(output)
        except (IndexError, AttributeError, TypeError, KeyError) as error:
            raise self._unreadable(f"cannot be read: {error}") from error
        if ids.is_floating_point() or ids.shape[-1] != self.router.top_k:
            raise self._unreadable(
                f"gave ids of {ids.dtype} and shape {tuple(ids.shape)}; integers of shape"
                f" (tokens, {self.router.top_k}) are needed"
            )
        ids = ids.reshape(-1, self.router.top_k)
        if logits is None:  # nothing else says how many experts there are
            return ids.clamp(max=self.router.experts), None
        choices = self.router.experts + self.router.idle
        if logits.shape[-1] != choices:
            raise self._unreadable(f"gave logits of {logits.shape[-1]} experts; it has {choices}")
        if self.router.idle:  # what no expert computes is counted as dropped
            ids = ids.clamp(max=self.router.experts)
        return ids, logits.reshape(-1, choices)

    def _add(self, rows_T: Tensor, ids_TK: Tensor, logits_TE: Tensor | None) -> None:
        if len(ids_TK) != len(rows_T):
            raise RoutingError(
                f"router {self.router.name!r} ran on {len(ids_TK)} tokens; the domains are of"
                f" {len(rows_T)}: give `stats.domains` those of this forward pass, padding included"
            )
        if self.counts.device != ids_TK.device:
            self._move(ids_TK.device)
        cell = rows_T.to(ids_TK.device)[:, None] * self.choices + ids_TK
        self.counts.scatter_add_(0, cell.reshape(-1), self._one.expand(cell.numel()))
        self.passes.add_(1)
        domain_DT = self.batch.domain_DT
        if self.sums_DF is not None and domain_DT is not None and logits_TE is not None:
            values_TF = self._values(ids_TK, logits_TE.float())
            # In place, because autocast would lower the precision of a product that is not.
            self.sums_DF.addmm_(domain_DT.to(values_TF.device), values_TF)

    def _values(self, ids_TK: Tensor, logits_TE: Tensor) -> Tensor:
        total_T1 = logits_TE.logsumexp(-1, keepdim=True)
        if self.router.scores == "softmax":
            probability_TE = (logits_TE - total_T1).exp()
        else:
            sigmoid = self.router.scores == "sigmoid"
            scores_TE = logits_TE.sigmoid() if sigmoid else softplus(logits_TE).sqrt()
            probability_TE = scores_TE / scores_TE.sum(-1, keepdim=True).clamp(min=1e-20)
        entropy_T1 = torch.special.entr(probability_TE).sum(-1, keepdim=True)
        probability_TE = probability_TE[:, : self.router.experts]
        padded_TE = pad(probability_TE, (0, 1))  # a dropped choice has none
        chosen_T1 = padded_TE.gather(-1, ids_TK.long()).sum(-1, keepdim=True)
        return torch.cat([probability_TE, entropy_T1, total_T1.square(), chosen_T1], dim=-1)

    def load(self) -> Tensor:
        """Return how many assignments each expert has now, padding left out, shape (E,)."""
        return self.counts.view(-1, self.choices)[:-1, :-1].sum(0)

    def _move(self, device: torch.device) -> None:
        """Follow a model that was moved, or whose weights rest elsewhere than they work."""
        self.counts = self.counts.to(device)
        self.passes, self._one = self.passes.to(device), self._one.to(device)
        if self.sums_DF is not None:
            self.sums_DF = self.sums_DF.to(device)

    def clear(self) -> None:
        """Begin again from nothing."""
        self.counts.zero_()
        self.passes.zero_()
        if self.sums_DF is not None:
            self.sums_DF.zero_()

    def remove(self) -> None:
        """Take the hook out."""
        self._handle.remove()

    def _unreadable(self, what: str) -> RoutingError:
        kind = type(self.router.module).__name__
        return RoutingError(
            f"router {self.router.name!r}: what {kind} returns {what}; give"
            f" attach(adapters=[...]), such as {EXAMPLE}"
        )


def is_counted(module: nn.Module) -> bool:
    """Tell whether a router has such a hook already."""
    owners = (getattr(hook, "__self__", None) for hook in module._forward_hooks.values())
    return any(isinstance(owner, LayerCounter) for owner in owners)
