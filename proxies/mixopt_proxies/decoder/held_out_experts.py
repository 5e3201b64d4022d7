"""Count the experts of each member on held-out text: equal amounts of each domain.

The last evaluation runs all of it through the models anyway; what the routers chose there is kept
sequence by sequence, so that it can be measured against chance.

Shapes: K members, W windows, U windows of the domains compared, D domains, H = 2 halves,
L layers, E experts, F = E + 3 sums (mixopt_proxies.decoder.expert_choice), M evaluation domains.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mixopt.routing import Assignments, LayerProbe, ProbeResult
from mixopt_proxies.decoder.expert_choice import Routed
from mixopt_proxies.decoder.expert_counter import assignments_of


class HeldOutExperts:
    """The passes of one evaluation."""

    def __init__(self) -> None:
        self._seen: list[Routed] = []

    def add(self, routed: Routed | None) -> None:
        """Keep what the routers chose in the next pass, if there are any."""
        if routed is not None:
            self._seen.append(routed)

    def of_members(
        self, counts_M: list[int], domains: tuple[str, ...], sizes: list[tuple[int, int, int]]
    ) -> list[tuple[Assignments, ProbeResult]]:
        """Return each member's assignments, and the same by sequence.

        Args:
            counts_M: Windows of each evaluation domain, in the order of the passes.
            domains: Names of the domains of training; they are the first to be evaluated.
            sizes: Number, experts and experts of a token of each layer.
        """
        least = min(counts_M[: len(domains)])
        starts = np.cumsum([0, *counts_M])[: len(domains)]
        place_U = torch.from_numpy((starts[:, None] + np.arange(least)).ravel())
        counts_LKUE, sums_LKUF = (
            torch.cat([routed[i] for routed in self._seen], 2).cpu()[:, :, place_U] for i in (0, 1)
        )
        return [
            _of_member(domains, sizes, counts_LKUE[:, k], sums_LKUF[:, k])
            for k in range(counts_LKUE.shape[1])
        ]


def _of_member(
    domains: tuple[str, ...],
    sizes: list[tuple[int, int, int]],
    counts_LUE: Tensor,
    sums_LUF: Tensor,
) -> tuple[Assignments, ProbeResult]:
    count = len(domains)
    counts_LDWE = counts_LUE.view(len(sizes), count, -1, counts_LUE.shape[-1])
    counts_HDLE = torch.stack([counts_LDWE[:, :, half::2].sum(2) for half in (0, 1)]).swapaxes(1, 2)
    sums_DLF = (
        sums_LUF.view(len(sizes), count, -1, sums_LUF.shape[-1]).double().sum(2).swapaxes(0, 1)
    )
    assignments = assignments_of(domains, sizes, counts_HDLE, sums_DLF)
    return assignments, _probe(domains, sizes, counts_LUE)


def _probe(
    domains: tuple[str, ...], sizes: list[tuple[int, int, int]], counts_LUE: Tensor
) -> ProbeResult:
    domain_U = np.repeat(np.arange(len(domains)), counts_LUE.shape[1] // len(domains))
    layers = tuple(
        LayerProbe(
            layer=layer,
            top_k=top_k,
            counts_UE=counts_UE.numpy(),
            ids_TK=np.zeros((0, top_k), np.int64),
            shared_D=np.full(len(domains), np.nan),
        )
        for (layer, _, top_k), counts_UE in zip(sizes, counts_LUE, strict=True)
    )
    tokens_U = layers[0].counts_UE.sum(1) // sizes[0][2]
    return ProbeResult(domains, domain_U, tokens_U, np.zeros(0, np.int64), layers)
