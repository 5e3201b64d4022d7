"""Count the tokens given to each member's experts in training, by domain.

The sums stay on the device until the end, so nothing waits for it.

Shapes: K members, B sequences, S sequences of a trial, D domains, H = 2 halves, L layers,
E experts.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mixopt.routing import Assignments, LayerAssignments
from mixopt_proxies.decoder.batches import TrialBatches
from mixopt_proxies.decoder.expert_choice import Routed
from mixopt_proxies.decoder.named_sizes import DecoderSize


class ExpertCounter:
    """The assignments of K members so far.

    Attributes:
        domains: Names of the domains of training.
        sizes: Number, experts and experts of a token of each layer.
    """

    def __init__(
        self,
        domains: tuple[str, ...],
        sizes: list[tuple[int, int, int]],
        domain_KS: Tensor,
        batch: int,
    ) -> None:
        """Begin with nothing.

        Args:
            domains: Names of the domains.
            sizes: Of each layer.
            domain_KS: Domain of each sequence of each member, on the device.
            batch: Sequences of one member and step.
        """
        self.domains, self.sizes = domains, sizes
        self._domain_KS, self._batch = domain_KS, batch
        members, device = len(domain_KS), domain_KS.device
        rows, layers, experts = members * 2 * len(domains), len(sizes), sizes[0][1]
        self._counts = torch.zeros(rows, layers, experts, dtype=torch.int64, device=device)
        self._member_K1 = torch.arange(members, device=device)[:, None]
        self._place_B = torch.arange(batch, device=device)

    @classmethod
    def of(
        cls, batches: TrialBatches, size: DecoderSize, device: torch.device
    ) -> ExpertCounter | None:
        """Return the counter of a group; None for a size without experts."""
        if size.experts is None:
            return None
        options = size.experts
        sizes = [(layer, options.experts, options.top_k) for layer in range(size.layers)]
        domain_KS = torch.from_numpy(batches.domain_KS).to(device, torch.int16)
        return cls(batches.domains, sizes, domain_KS, size.batch)

    def add(self, taken: int, routed: Routed) -> None:
        """Add what was chosen in the step after `taken` others."""
        part = slice(taken * self._batch, (taken + 1) * self._batch)
        domain_KB = self._domain_KS[:, part].long()
        # A batch of an odd number of sequences gives its odd one to each half in turn.
        half_B = (self._place_B + taken) % 2
        row_KB = (2 * self._member_K1 + half_B) * len(self.domains) + domain_KB
        rows = routed.counts_LKBE.permute(1, 2, 0, 3).flatten(0, 1)
        self._counts.index_add_(0, row_KB.flatten(), rows)

    def of_member(self, k: int) -> Assignments:
        """Return the assignments of one member."""
        shape = (-1, 2, len(self.domains), *self._counts.shape[1:])
        return assignments_of(self.domains, self.sizes, self._counts.view(shape)[k])


def assignments_of(
    domains: tuple[str, ...], sizes: list[tuple[int, int, int]], counts_HDLE: Tensor
) -> Assignments:
    """Return counts of one member as the library keeps them."""
    counts = counts_HDLE.cpu().numpy()
    layers = (
        LayerAssignments(
            layer=layer,
            top_k=top_k,
            counts_HDE=counts[:, :, place].copy(),
            dropped_HD=np.zeros(counts.shape[:2], np.int64),
        )
        for place, (layer, _, top_k) in enumerate(sizes)
    )
    return Assignments(domains, tuple(layers))
