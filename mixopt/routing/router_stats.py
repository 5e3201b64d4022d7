"""Count the experts of each domain's tokens during training.

Forward hooks add to integers on the device, without synchronisation until `reduce`. Loss, gradients
and random numbers are the same as without counting.

A token's row is its domain, separately for sequences of an even and of an odd half: their
difference measures noise. Padding and unknown domains have their own rows, so that shapes never
depend on values.

Shapes: B sequences, S tokens in each, T = B * S, K experts of a token, E experts, D domains,
R = 2 * D + 2 rows of E + 3 places: too low, not computed, of each expert, too high.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, distributed as dist, nn

from mixopt.errors import RoutingError
from mixopt.routing.adapters import FoundRouter, RouterAdapter
from mixopt.routing.assignments import Assignments, LayerAssignments
from mixopt.routing.finding import find_routers
from mixopt.routing.token_domains import MASK_VALUES, token_domains
from mixopt.system import IntArray, one_line

if TYPE_CHECKING:
    import polars as pl
    from torch.distributed import ProcessGroup

    from mixopt.routing.summary import Summary


LOWEST = -2  # the lowest separate id
AROUND = 3  # places beside those of experts


class RouterStats:
    """Counts of assignments by domain, layer and expert.

    Attributes:
        domain_names: Names of the domains, in the order of their ids.
        routers: The counted routers, in the order of the layers.
    """

    @classmethod
    def attach(
        cls,
        model: nn.Module,
        domains: Sequence[str],
        *,
        adapters: Sequence[RouterAdapter] = (),
        evaluation: bool = False,
        group: ProcessGroup | None = None,
    ) -> RouterStats:
        """Find a model's routers, and count their choices from now on.

        Works before or after DDP, FSDP or torch.compile wrap the model. Compiled code is compiled
        again at its next call, because it ignores new hooks.

        Args:
            model: A transformers model with experts; a model whose experts are called with the ids
                as `top_k_index`, or that has `RouterTap`s; or any model, with `adapters`.
            domains: Names of the domains, in the order of their ids.
            adapters: Adapters for routers of other classes.
            evaluation: Whether to count in evaluation mode, too.
            group: Ranks to sum over, which see different tokens; None: all.

        Raises:
            RoutingError: The model has no router, or names are not unique.
        """
        return cls(model, domains, find_routers(model, adapters), evaluation, group)

    def __init__(
        self,
        model: nn.Module,
        domains: Sequence[str],
        routers: Sequence[FoundRouter],
        evaluation: bool,
        group: ProcessGroup | None,
    ) -> None:
        """Attach to routers (`attach`)."""
        self.domain_names = _checked_names(domains)
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()  # compiled code ignores later hooks
        self.routers = list(routers)
        self._model = model
        self._evaluation = evaluation
        self._group = group
        # Row of each token of the present batch: even 0 to D - 1, odd D to 2 D - 1, unknown 2 D,
        # padding 2 D + 1.
        self.rows_T: Tensor | None = None
        device = _device(model)
        self._counters = [_Counter(router, self, device) for router in routers]
        self._pending = np.zeros(2, np.int64)  # batches, interrupted batches
        self._is_open = False
        self._is_checked = False
        self._is_attached = True
        self._total = self._zero_counts()
        self._window = self._total

    @contextmanager
    def domains(
        self, domain_ids: Any, mask: Any = None, *, position: Sequence[int] | None = None
    ) -> Iterator[None]:
        """Count one forward pass: `with stats.domains(domain_ids, mask): model(...)`.

        Args:
            domain_ids: Domain of each sequence, shape (B,), or of each token, shape (B, S).
            mask: 1 for tokens, 0 for padding, shape (B, S); optional if ids are those of tokens.
            position: Position of each sequence in the stream of all ranks, if known: then halves
                do not depend on the number of ranks.

        Raises:
            RoutingError: Invalid ids, masks, shapes or positions; or, after the first batch, a
                router that did not run exactly once. Ids and masks on a device are checked after
                the first batch, and then by `reduce`.
        """
        if self._is_open:
            raise RoutingError("`stats.domains` is open already; close it before the next batch")
        if not self._is_attached:
            raise RoutingError("this RouterStats was detached; attach another")
        domain_BS = token_domains(domain_ids, mask, len(self.domain_names))
        self._begin(domain_BS, position)
        try:
            yield
        except BaseException:
            self._end(is_whole=False)
            raise
        self._end(is_whole=True)

    def reduce(self) -> None:
        """Sum the counts since the last call over ranks; call it on every rank.

        `table`, `summary`, `window` and `state_dict` return reduced counts; a single process
        reduces automatically.

        Raises:
            RoutingError: A router did not run once in each batch, or ids of no domain.
        """
        rank_batches = int(self._pending[0])
        batches, interrupted = self._summed(torch.from_numpy(self._pending))
        passes = [self._summed(counter.pass_counts(rank_batches)) for counter in self._counters]
        counts = [self._summed(counter.counts) for counter in self._counters]
        self._clear()
        layers: list[LayerAssignments] = []
        for k, counter in enumerate(self._counters):
            counts_RE = counts[k].reshape(-1, counter.places)
            ran, mismatch = passes[k]
            if mismatch > interrupted:
                counter.check_passes(int(ran), int(batches))
            counter.check_counts(counts_RE)
            counts_HDE = counts_RE[:-2].reshape(2, len(self.domain_names), counter.places)
            layers.append(counter.router_counts(counts_HDE))
        reduced = Assignments(self.domain_names, tuple(layers))
        self._total += reduced
        self._window += reduced

    def total(self) -> Assignments:
        """Return all assignments since the beginning.

        Raises:
            RoutingError: Several ranks have batches that were not reduced.
        """
        if self._pending.any():
            if _ranks(self._group) > 1:
                raise RoutingError(
                    f"{self._pending[0]} batches of this rank are not reduced: call"
                    " stats.reduce() on every rank first"
                )
            self.reduce()
        return self._total

    def window(self) -> Assignments:
        """Return the assignments since the last call of `window`; errors as in `total`."""
        self.total()
        window = self._window
        self._window = self._zero_counts()
        return window

    def table(self) -> pl.DataFrame:
        """Return a table: `domain`, `layer`, `router`, `expert`, `tokens`; errors as in `total`."""
        from mixopt.routing.summary import counts_table

        return counts_table(self.total())

    def summary(self) -> Summary:
        """Return the summary of the counts; errors as in `total`."""
        from mixopt.routing.summary import Summary

        return Summary.of(self.total())

    def detach(self) -> None:
        """Remove the hooks from the model; counts are kept."""
        for counter in self._counters:
            counter.handle.remove()
        self._is_attached = False

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as plain values for a checkpoint; errors as in `total`."""
        return {"total": self.total().to_json(), "window": self._window.to_json()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from the counts of `state_dict`.

        Raises:
            RoutingError: They have other domains, layers or experts, or are damaged; nothing is
                changed.
        """
        total = self._counts_of(state, "total")
        window = self._counts_of(state, "window")
        self._total = total
        self._window = window
        self._clear()

    def _counts_of(self, state: Mapping[str, Any], name: str) -> Assignments:
        source = f"the state of RouterStats: {name}"
        counts = Assignments.from_dict(state.get(name), source)
        self._total.check_sizes(counts.domains, counts.sizes, source)
        return counts

    def _zero_counts(self) -> Assignments:
        layers: list[LayerAssignments] = []
        for counter in self._counters:
            zeros_HDE = np.zeros((2, len(self.domain_names), counter.places), np.int64)
            layers.append(counter.router_counts(zeros_HDE))
        return Assignments(self.domain_names, tuple(layers))

    def _begin(self, domain_BS: Tensor, position: Sequence[int] | None = None) -> None:
        self._is_open = True
        if self._model.training or self._evaluation:
            device = self._counters[0].counts.device
            domains = len(self.domain_names)
            domain_BS = domain_BS.to(device, non_blocking=True)
            odd_B = self._odd(len(domain_BS), position).to(device, non_blocking=True)
            shift = torch.where(domain_BS < domains, odd_B[:, None], 1) * domains
            self.rows_T = (domain_BS + shift).reshape(-1)

    def _end(self, *, is_whole: bool) -> None:
        """End the batch; the first batch is checked, which synchronises once."""
        self._is_open = False
        if self.rows_T is None:
            return
        self.rows_T = None
        self._pending += (is_whole, not is_whole)
        if is_whole and not self._is_checked and self._pending.tolist() == [1, 0]:
            for counter in self._counters:
                counter.check_passes(int(counter.passes), 1)
                counts_RE = counter.counts.cpu().numpy().reshape(-1, counter.places)
                counter.check_counts(counts_RE)
                if not counts_RE[:-1].any():
                    raise RoutingError(f"the mask is 0 for every token; {MASK_VALUES}")
            self._is_checked = True

    def _odd(self, size: int, position: Sequence[int] | None) -> Tensor:
        """Return 1 for sequences of the odd half, and 0 for the others."""
        if position is None:
            return (torch.arange(size) + int(self._pending[0])) % 2
        if len(position) != size:
            raise RoutingError(f"{len(position)} positions for a batch of {size} sequences")
        return torch.tensor([int(number).bit_count() & 1 for number in position])

    def _summed(self, numbers: Tensor) -> IntArray:
        """Return the sum over the ranks."""
        totals = numbers.to(self._counters[0].counts.device, copy=True)
        if _ranks(self._group) > 1:
            dist.all_reduce(totals, group=self._group)
        return np.asarray(totals.cpu())

    def _clear(self) -> None:
        self._pending[:] = 0
        for counter in self._counters:
            counter.counts.zero_()
            counter.passes.zero_()


class _Counter:
    """The counts of one router, and the hook that adds to them.

    Counts are plain tensors, because DDP would overwrite buffers of the module.
    """

    def __init__(self, router: FoundRouter, stats: RouterStats, device: Any) -> None:
        self.router = router
        self.places = router.experts + AROUND
        self._stats = stats
        rows = 2 * len(stats.domain_names) + 2
        self.counts = torch.zeros(rows * self.places, dtype=torch.int64, device=device)
        self.passes = torch.zeros(1, dtype=torch.int64, device=device)
        self.handle = router.module.register_forward_hook(self._hook, with_kwargs=True)

    def _hook(self, module: nn.Module, inputs: Any, keywords: dict[str, Any], output: Any) -> None:
        """Count the router's choice inside `domains`."""
        rows_T = self._stats.rows_T
        if rows_T is None:
            return
        # Activation checkpointing runs the module again in the backward pass. Asking for that would
        # break a graph, and a compiled checkpoint does not repeat writes.
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            return
        with torch.no_grad():
            arguments = dict(zip(self.router.parameters, inputs, strict=False)) | keywords
            ids_TK = self._checked(arguments, output, rows_T.shape[0])
            if self.counts.device != ids_TK.device:  # weights may be offloaded
                self.counts = self.counts.to(ids_TK.device)
                self.passes = self.passes.to(ids_TK.device)
            place_TK = ids_TK.clamp(LOWEST, self.router.experts) - LOWEST
            first_T = rows_T.to(ids_TK.device) * self.places
            cell = (first_T[:, None] + place_TK).view(-1)
            self.counts.scatter_add_(0, cell, torch.ones_like(cell))
            self.passes.add_(1)

    def _checked(self, arguments: dict[str, Any], output: Any, tokens: int) -> Tensor:
        """Return the checked ids of the call, shape (T, K)."""
        router = self.router
        kind = type(router.module).__name__
        try:
            ids = router.read(arguments, output, router.experts, router.top_k)
            are_ids = not (ids.is_floating_point() or ids.dtype == torch.bool)
            are_ids = are_ids and ids.shape[-1] == router.top_k
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = one_line(f"{type(error).__name__}: {error}")
            raise RoutingError(
                f"router {router.name!r}: what {kind} returns cannot be read: {reason}"
            ) from error
        if not are_ids:
            raise RoutingError(
                f"router {router.name!r}: what {kind} returns gave ids of {ids.dtype} and shape"
                f" {tuple(ids.shape)}; integers of shape (tokens, {router.top_k}) are needed"
            )
        ids = ids.reshape(-1, router.top_k)
        if len(ids) != tokens:
            raise RoutingError(
                f"router {router.name!r} ran on {len(ids)} tokens; the domains are of {tokens}:"
                " give `stats.domains` those of this forward pass, padding included"
            )
        return ids

    def pass_counts(self, batches: int) -> Tensor:
        """Return the number of passes, and its distance from that of batches."""
        return torch.cat([self.passes, (self.passes - batches).abs()])

    def check_passes(self, ran: int, batches: int) -> None:
        """Check that the router ran once in each batch."""
        if ran == batches:
            return
        hint = "put one forward pass, and no backward pass, inside `with stats.domains(...)`"
        if ran < batches:
            hint = (
                "run the model inside `with stats.domains(...)`; code that was compiled before"
                " RouterStats.attach does not count (call torch.compiler.reset())"
            )
        raise RoutingError(
            f"router {self.router.name!r} ran {ran} times in {batches} batches; it is counted once"
            f" in each: {hint}"
        )

    def check_counts(self, counts_RE: IntArray) -> None:
        """Check that all tokens except padding have valid domains and expert ids."""
        router = self.router
        domains = len(counts_RE) // 2 - 1
        unknown = int(counts_RE[-2].sum()) // router.top_k
        if unknown:
            raise RoutingError(
                f"{unknown} tokens have a domain id that is none of 0 to {domains - 1}, or a mask"
                f" that is neither 0 nor 1; {MASK_VALUES}"
            )
        low = int(counts_RE[:-2, 0].sum())
        high = int(counts_RE[:-2, -1].sum())
        if low or high:
            raise RoutingError(
                f"router {router.name!r}: {low + high} ids are none of its {router.experts} experts"
                f" ({high} above {router.experts - 1}, {low} below -1): they are 0 to"
                f" {router.experts - 1}, and -1 for a place that no expert computes; give"
                " RouterAdapter(experts=) or RouterTap(experts=) the actual number"
            )

    def router_counts(self, counts_HDE: IntArray) -> LayerAssignments:
        """Return the counts of places as a router's assignments."""
        return LayerAssignments(
            layer=self.router.layer,
            top_k=self.router.top_k,
            counts_HDE=counts_HDE[..., 2:-1].copy(),
            dropped_HD=counts_HDE[..., 1].copy(),
            router=self.router.router,
        )


def _device(model: nn.Module) -> torch.device | str:
    """Return the device of the first parameter that has one."""
    for parameter in model.parameters():
        if not parameter.is_meta:
            return parameter.device
    return "cpu"


def _ranks(group: ProcessGroup | None) -> int:
    """Return the number of ranks to sum over; 1 without torch.distributed."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size(group)


def _checked_names(domains: Sequence[str]) -> tuple[str, ...]:
    names = tuple(domains)
    are_texts = not isinstance(domains, str) and all(isinstance(name, str) for name in names)
    if not are_texts or not names or len(set(names)) != len(names):
        raise RoutingError(f"domains: {domains!r}; give a list of names, each once")
    return names
