"""Count which experts each domain's tokens are given to, while a model trains.

Forward hooks on the routers add to integers on the device; nothing waits for the device until
`reduce`. Loss, gradients and random numbers are those of a run that is not counted. This is what
Hugging Face's `output_router_logits` does not give: that adds an auxiliary loss, and the largest
logits are not what a router with a bias or with groups chooses.

Shapes: B sequences, S tokens of one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mixopt.errors import RoutingError
from mixopt.routing.assignments import Assignments, nothing
from mixopt.routing.counters import (
    Counting,
    Expected,
    Probe,
    RouterAdapter,
    find_routers,
    suspected_experts,
    token_domains,
)
from mixopt.routing.state import load_state, saved_state
from mixopt.system import StateFields

if TYPE_CHECKING:
    import polars as pl
    from torch.distributed import ProcessGroup

    from mixopt.routing.probe_result import ProbeResult
    from mixopt.routing.summary import Summary
    from mixopt.routing.thresholds import Thresholds

FromBatch = Callable[[dict[str, Any]], tuple[Any, Any]]


class RouterStats:
    """Counts of assignments by domain, layer and expert.

    Attributes:
        domain_names: Names of the domains, in the order of their ids.
        routers: Those that are counted, in the order of the layers.
    """

    @classmethod
    def attach(
        cls,
        model: nn.Module,
        domains: Sequence[str],
        *,
        adapters: Sequence[RouterAdapter] = (),
        probabilities: bool = True,
        evaluation: bool = False,
        from_batch: FromBatch | None = None,
        group: ProcessGroup | None = None,
    ) -> RouterStats:
        """Find a model's routers and count what they choose from now on.

        Attach before or after DDP, FSDP or torch.compile wrap the model. What has been compiled
        by then is compiled again at its next call, since it would not count.

        Args:
            model: Hugging Face's Mixtral, Qwen-MoE, OLMoE, DeepSeek-V3, gpt-oss or another whose
                routers are `...TopKRouter`; a model with `RouterTap`s; or any, with `adapters`.
            domains: Names of the domains, in the order of their ids.
            adapters: How to read routers of other classes.
            probabilities: Whether the routers' probabilities are summed as well; without, nothing
                is known but the counts.
            evaluation: Whether to count while the model is in evaluation, too.
            from_batch: Takes the keyword arguments of the model's forward as a dictionary, removes
                what the model does not know, and returns domain ids and mask; then every forward
                pass is counted and `domains` is not called.
            group: Ranks to sum over: those that see different tokens. All by default.

        Raises:
            RoutingError: The model has no router, or is counted already; or names that are not
                unique.
        """
        return cls(
            model,
            domains,
            adapters=adapters,
            probabilities=probabilities,
            evaluation=evaluation,
            from_batch=from_batch,
            group=group,
        )

    def __init__(
        self,
        model: nn.Module,
        domains: Sequence[str],
        *,
        adapters: Sequence[RouterAdapter],
        probabilities: bool,
        evaluation: bool,
        from_batch: FromBatch | None,
        group: ProcessGroup | None,
    ) -> None:
        """Attach; `attach` says what to give."""
        self.domain_names = _checked_names(domains)
        self._model = model
        self.routers = find_routers(model, adapters)
        for line in suspected_experts(model, adapters):
            logging.getLogger("mixopt.routing").warning("%s", line)
        self._counting = Counting(
            model,
            self.routers,
            self.domain_names,
            probabilities=probabilities,
            evaluation=evaluation,
            group=group,
        )
        self._handles = [] if from_batch is None else self._follow(from_batch)
        self._probe: Probe | None = None
        self._open, self._attached = False, True
        self._total = self._window = self._nothing()

    @contextmanager
    def domains(
        self, domain_ids: Any, mask: Any = None, *, position: int | Sequence[int] | None = None
    ) -> Iterator[None]:
        """Count one forward pass: `with stats.domains(domain_ids, mask): model(...)`.

        Args:
            domain_ids: Domain of each sequence, shape (B,), or of each token, shape (B, S).
            mask: 1 for real tokens, 0 for padding, shape (B, S); may be left out where ids are
                of tokens. Other values are refused.
            position: Of the first sequence in the stream of all ranks, or of each of them where
                they do not follow on each other, where it is known: which of the halves a sequence
                falls in is then the same on any number of ranks.

        Raises:
            RoutingError: Ids, shapes or positions that cannot be, or, after the first batch, a
                router that did not run once.
        """
        self._begin(domain_ids, mask, position)
        try:
            yield
        except BaseException:
            self._end(whole=False)
            raise
        self._end(whole=True)

    @contextmanager
    def probe(self, *, tokens: int = 8192, probabilities: bool = False) -> Iterator[Probe]:
        """Look at fixed batches instead of counting: `with stats.probe() as probe: ...`.

        Inside, `domains` works as ever, also in evaluation, but what it sees goes to the probe,
        sequence by sequence; compiled code runs uncompiled. `probe.result()` is then what to
        compare domains and checkpoints by. Every rank should run all batches.

        Args:
            tokens: Of how many tokens, the first ones, the experts are kept one by one.
            probabilities: Whether the routers' probabilities are kept by sequence, 8 bytes for each
                sequence, router and expert.

        Raises:
            RoutingError: A batch or another probe is open.
        """
        if self._open or self._probe is not None:
            raise RoutingError("a probe cannot begin inside `stats.domains` or another probe")
        with ExitStack() as stack:
            if "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            probe = Probe(
                self._model, self.routers, self.domain_names, tokens, probable=probabilities
            )
            stack.callback(probe.remove)
            self._probe = probe
            try:
                yield probe
            finally:
                self._probe = None

    def reduce(self) -> None:
        """Sum over ranks what was counted since the last time; call it on every rank.

        `table`, `summary`, `window` and `state_dict` tell what was reduced; on one process they
        reduce by themselves.

        Raises:
            RoutingError: A router was not counted once for each batch, or ids of no domain.
        """
        counted = self._counting.collect()
        self._total += counted
        self._window += counted

    def loads(self) -> Tensor:
        """Return the assignments to each expert on this rank that were not reduced yet.

        It waits for nothing. The difference of two of them is the load of the batches between, for
        rules that balance experts (`ExpertBiases`).

        Returns:
            Integers on the device, router after router; dropped choices and padding left out.
        """
        return self._counting.loads()

    def total(self) -> Assignments:
        """Return all assignments since the beginning.

        Raises:
            RoutingError: There are several ranks, and batches that were not reduced.
        """
        if self._counting.pending != Expected():
            if self._counting.distributed:
                raise RoutingError(
                    f"{self._counting.pending.batches} batches of this rank are not reduced: call"
                    " stats.reduce() on every rank first"
                )
            self.reduce()
        return self._total

    def window(self) -> Assignments:
        """Return the assignments since `window` was last called; errors as `total`."""
        self.total()
        window, self._window = self._window, self._nothing()
        return window

    def table(self) -> pl.DataFrame:
        """Return `domain`, `layer`, `expert`, `tokens` and `probability`; errors as `total`."""
        from mixopt.routing.tables import assignment_table

        return assignment_table(self.total())

    def summary(
        self, thresholds: Thresholds | None = None, probe: ProbeResult | None = None
    ) -> Summary:
        """Return what the counts say; errors as `total`.

        Args:
            thresholds: From where on something is diagnosed.
            probe: Says what shared experts do; without it they are not diagnosed.
        """
        from mixopt.routing.summary import Summary

        return Summary.of(self.total(), thresholds, probe)

    def detach(self) -> None:
        """Take the hooks out of the model; what was counted stays."""
        self._counting.remove()
        for handle in self._handles:
            handle.remove()
        self._attached = False

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as CPU tensors and a line of JSON; errors as `total`."""
        return saved_state({"total": self.total(), "window": self._window})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from the counts of `state_dict`.

        Raises:
            RoutingError: They are of other domains, layers or experts, or damaged; nothing is
                changed.
        """
        loaded = StateFields(
            load_state(state, self._nothing()), "the state of RouterStats", RoutingError
        )
        self._total, self._window = loaded.get("total"), loaded.get("window")
        self._counting.discard()

    def _nothing(self) -> Assignments:
        sizes = {router.key: (router.experts, router.top_k) for router in self.routers}
        empty = nothing(self.domain_names, sizes)
        layers = zip(empty.layers, self.routers, strict=True)
        return replace(
            empty, layers=tuple(replace(layer, varies=router.varies) for layer, router in layers)
        )

    def _begin(
        self, domain_ids: Any, mask: Any, position: int | Sequence[int] | None = None
    ) -> None:
        if self._open:
            raise RoutingError("`stats.domains` is open already; close it before the next batch")
        if not self._attached:
            raise RoutingError("this RouterStats was detached; attach another")
        domain_BS = token_domains(domain_ids, mask, self.domain_names)
        if self._probe is None:
            self._counting.begin(domain_BS, position)
        else:
            self._probe.begin(domain_BS)
        self._open = True

    def _end(self, *, whole: bool) -> None:
        self._open = False
        (self._counting if self._probe is None else self._probe).end(whole=whole)

    def _follow(self, from_batch: FromBatch) -> list[Any]:
        """Open and close the batches by themselves, at the model's own forward."""

        def before(_: nn.Module, inputs: Any, named: dict[str, Any]) -> Any:
            named = dict(named)
            self._begin(*from_batch(named))
            return inputs, named

        def after(_: nn.Module, inputs: Any, named: dict[str, Any], output: Any) -> None:
            self._end(whole=output is not None)

        # Batches are opened and closed outside of a graph of the whole model.
        outside: Any = torch.compiler.disable
        return [
            self._model.register_forward_pre_hook(outside(before), with_kwargs=True),
            self._model.register_forward_hook(outside(after), with_kwargs=True, always_call=True),
        ]


def _checked_names(domains: Sequence[str]) -> tuple[str, ...]:
    names = tuple(domains)
    named = not isinstance(domains, str) and all(isinstance(name, str) for name in names)
    if not named or not names or len(set(names)) != len(names):
        raise RoutingError(f"domains: {domains!r}; give a list of names, each once")
    return names
