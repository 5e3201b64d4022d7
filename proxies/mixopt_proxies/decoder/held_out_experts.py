"""Count the experts of each member on held-out text: equal amounts of each domain.

The last evaluation runs all of it through the models anyway.

Shapes: K members, W windows, U windows of the domains compared, D domains, H = 2 halves,
L layers, E experts, M evaluation domains.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mixopt.routing import Assignments
from mixopt_proxies.decoder.expert_choice import Routed
from mixopt_proxies.decoder.expert_counter import assignments_of


class HeldOutExperts:
    """The passes of one evaluation."""

    def __init__(self) -> None:
        self._counts_LKWE: list[Tensor] = []

    def add(self, routed: Routed | None) -> None:
        """Keep what the routers chose in the next pass, if there are any."""
        if routed is not None:
            self._counts_LKWE.append(routed.counts_LKBE)

    def of_members(
        self, counts_M: list[int], domains: tuple[str, ...], sizes: list[tuple[int, int, int]]
    ) -> list[Assignments]:
        """Return each member's assignments.

        Args:
            counts_M: Windows of each evaluation domain, in the order of the passes.
            domains: Names of the domains of training; they are the first to be evaluated.
            sizes: Number, experts and experts of a token of each layer.
        """
        least = min(counts_M[: len(domains)])
        starts = np.cumsum([0, *counts_M])[: len(domains)]
        place_U = torch.from_numpy((starts[:, None] + np.arange(least)).ravel())
        counts_LKUE = torch.cat(self._counts_LKWE, 2).cpu()[:, :, place_U]
        layers, members, _, experts = counts_LKUE.shape
        counts_LKDUE = counts_LKUE.view(layers, members, len(domains), -1, experts)
        counts_KDULE = counts_LKDUE.permute(1, 2, 3, 0, 4)
        counts_KHDLE = torch.stack([counts_KDULE[:, :, half::2].sum(2) for half in (0, 1)], 1)
        return [assignments_of(domains, sizes, counts_HDLE) for counts_HDLE in counts_KHDLE]
