"""Record what routers choose for fixed batches, sequence by sequence.

Counts of training move with the mixture; what compares domains, checkpoints or runs is measured on
the same, balanced batches. Sequences are kept apart, because the tokens of one resemble each other:
only they can be shuffled to say what chance alone would give.

Shapes: B sequences, S tokens of one, T tokens, K experts of a token, D domains, U parts of
sequences of one domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixopt.errors import RoutingError
from mixopt.routing.counters.adapters import FoundRouter
from mixopt.routing.counters.kept import Kept, Pass
from mixopt.routing.counters.reading import read_output
from mixopt.routing.counters.shared_experts import SharedExperts
from mixopt.routing.probe_result import ProbeResult
from mixopt.system import IntArray


class Probe:
    """Hooks that keep what is chosen; made by `RouterStats.probe`."""

    def __init__(
        self,
        model: nn.Module,
        routers: Sequence[FoundRouter],
        domains: tuple[str, ...],
        tokens: int,
        *,
        probable: bool,
    ) -> None:
        self._routers, self._domains, self._tokens = routers, domains, tokens
        self._probable = probable
        self._at: IntArray | None = None
        self._seen: dict[str, list[Pass]] = {}
        self._kept = 0
        self._domain_T: list[IntArray] = []
        self._domain_U: list[IntArray] = []
        self._tokens_U: list[IntArray] = []
        self._kept_of = {router.key: Kept(len(domains)) for router in routers}
        self._handles = [self._listen(router) for router in routers]
        self._shared = [SharedExperts(model, router, len(domains)) for router in routers]

    def begin(self, domain_BS: Tensor) -> None:
        """Begin a batch; domains as `token_domains` returns them."""
        domain_BS = domain_BS.cpu()
        unknown = domain_BS == len(self._domains)
        if unknown.any():
            raise RoutingError(
                f"{int(unknown.sum())} tokens of the probe are of no domain, or have a mask that is"
                " neither 0 nor 1"
            )
        self._at, self._seen = domain_BS.numpy(), {}
        for shared in self._shared:
            shared.begin()

    def end(self, *, whole: bool) -> None:
        """Keep the batch, unless it was interrupted."""
        domain_BS, self._at = self._at, None
        if not whole or domain_BS is None:
            return
        missing = [r.name for r in self._routers if r.key not in self._seen]
        if missing:
            raise RoutingError(f"router {missing[0]!r} did not run inside `stats.domains`")
        self._keep(domain_BS)
        for shared in self._shared:
            shared.end(torch.from_numpy(domain_BS).flatten())

    def result(self) -> ProbeResult:
        """Return what was seen.

        Raises:
            RoutingError: No batch was.
        """
        if not self._domain_U:
            raise RoutingError("the probe saw no batch: run the model inside `stats.domains`")
        layers = tuple(
            self._kept_of[router.key].layer(router, shared.means())
            for router, shared in zip(self._routers, self._shared, strict=True)
        )
        return ProbeResult(
            self._domains,
            np.concatenate(self._domain_U),
            np.concatenate(self._tokens_U),
            np.concatenate(self._domain_T),
            layers,
        )

    def remove(self) -> None:
        """Take the hooks out."""
        for handle in self._handles:
            handle.remove()
        for shared in self._shared:
            shared.remove()

    def _listen(self, router: FoundRouter) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._at is None or torch._C._current_graph_task_id() != -1:
                return
            passes = self._seen.setdefault(router.key, [])
            if len(passes) == router.runs:
                often = "twice" if router.runs == 1 else f"more than {router.runs} times"
                raise RoutingError(f"router {router.name!r} ran {often} inside one `stats.domains`")
            with torch.no_grad():
                routed = read_output(router, output, self._at.size, len(self._at))
                passes.append(Pass.of(router, routed, probable=self._probable))

        return router.module.register_forward_hook(hook)

    def _keep(self, domain_BS: IntArray) -> None:
        count = len(self._domains)
        real_T = domain_BS.ravel() < count
        for router in self._routers:
            for one in self._seen[router.key]:
                one.check_ids(router, real_T)
        # A unit is the part of a sequence that is of one domain.
        unit_T = (np.arange(len(domain_BS))[:, None] * count + domain_BS).ravel()[real_T]
        units, place_T = np.unique(unit_T, return_inverse=True)
        few = min(self._tokens - self._kept, len(place_T))
        self._kept += few
        self._domain_U.append(units % count)
        self._tokens_U.append(np.bincount(place_T))
        domain_T = domain_BS.ravel()[real_T]
        self._domain_T.append(domain_T[:few])
        for router in self._routers:
            kept, passes = self._kept_of[router.key], self._seen[router.key]
            kept.ids_TK.append(passes[-1].ids_TK[real_T][:few])
            kept.add([one.by_unit(place_T, len(units), real_T) for one in passes])
            for one in passes:
                kept.add_shared(one, domain_T, real_T)
