"""Experts in place of a feed-forward, for a stack of members.

All assignments of all members are sorted by (member, expert) and multiplied group by group, in one
product over K * E groups: PyTorch's `grouped_mm` takes groups of any size, so that no token is
dropped and, except for bf16 on a CPU, no padding is computed.

Each member has its own groups, so members are independent.

Shapes: K members, N tokens, C width, E experts, S experts of a token, A = K * N * S assignments,
G = K * E groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mixopt.errors import ConfigError
from mixopt.routing import Assignments, ExpertCounts, LayerAssignments
from mixopt_proxies.decoder.size_options import DecoderSize
from mixopt_proxies.decoder.trial_batches import TrialBatches

Z_LOSS = 0.001  # weight of the mean square of the router's log-sum-exp


def check_grouped_products() -> None:
    """Check that this PyTorch has grouped products."""
    if not hasattr(functional, "grouped_mm"):
        raise ConfigError(
            "proxy.options.experts: need torch.nn.functional.grouped_mm, which PyTorch "
            f"{torch.__version__} does not have: pip install --upgrade torch, or use a dense size"
        )


def route(
    leaves: Mapping[str, Tensor], prefix: str, normed_KNC: Tensor, top_k: int
) -> tuple[Tensor, Choice]:
    """Route each token to its experts and return the weighted sum of their outputs."""
    router_KCE = leaves[f"{prefix}router"]
    choice = choose(normed_KNC, router_KCE, top_k)
    device = normed_KNC.device.type
    dtype = normed_KNC.dtype
    # Autocast does not support grouped products.
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    multiple = rounding(device, dtype)
    place_A, ends_G = places(choice.ids_KNS, router_KCE.shape[-1], multiple)
    rows_AC = normed_KNC.to(dtype).flatten(0, 1).repeat_interleave(top_k, 0)
    rows = len(place_A) + len(ends_G) * (multiple - 1)
    grouped = rows_AC.new_zeros(rows, rows_AC.shape[1]).index_copy(0, place_A, rows_AC)
    gate_up = leaves[f"{prefix}experts_gate_up"].to(dtype).flatten(0, 1)
    down = leaves[f"{prefix}experts_down"].to(dtype).flatten(0, 1)
    gate, up = functional.grouped_mm(grouped, gate_up, offs=ends_G).chunk(2, -1)
    output = functional.grouped_mm(functional.silu(gate) * up, down, offs=ends_G)
    output_AC = output.index_select(0, place_A)
    weighted = output_AC.view(*choice.ids_KNS.shape, -1) * choice.weights_KNS[..., None]
    return weighted.sum(2), choice


def rounding(device: str, dtype: torch.dtype) -> int:
    """Return the number whose multiples are the group sizes; groups are padded with 0."""
    return 32 if device == "cpu" and dtype == torch.bfloat16 else 1


def places(ids_KNS: Tensor, experts: int, multiple: int) -> tuple[Tensor, Tensor]:
    """Return the row of each assignment, sorted by group, and the end of each group."""
    members = torch.arange(len(ids_KNS), device=ids_KNS.device)[:, None, None]
    group_A = (ids_KNS + members * experts).flatten()
    sorted_A, order_A = group_A.sort(stable=True)
    groups = torch.arange(len(ids_KNS) * experts + 1, device=ids_KNS.device)
    starts_G = torch.searchsorted(sorted_A, groups)
    sizes_G = starts_G.diff()
    ends_G = ((sizes_G + multiple - 1) // multiple * multiple).cumsum(0)
    padding_G = ends_G.diff(prepend=ends_G[:1] * 0) - sizes_G
    # Shift of each group by the padding before it.
    shift_G = ends_G - starts_G[1:] - padding_G
    places_A = torch.arange(len(group_A), device=ids_KNS.device) + shift_G[sorted_A]
    return torch.empty_like(order_A).scatter_(0, order_A, places_A), ends_G.to(torch.int32)


class Choice(NamedTuple):
    """Experts of each token, weights of their outputs, and logits and probabilities of all."""

    ids_KNS: Tensor
    weights_KNS: Tensor
    logits_KNE: Tensor
    probability_KNE: Tensor


class Routed(NamedTuple):
    """Assignments to each expert, and sums over tokens with gradients, by sequence."""

    counts_LKBE: Tensor
    sums_LKBF: Tensor

    @classmethod
    def stacked(cls, layers: Sequence[tuple[Tensor, Tensor]]) -> Routed:
        """Stack the counts and sums of layers (`summed_by_sequence`)."""
        counts = [counts_KBE for counts_KBE, _ in layers]
        sums = [sums_KBF for _, sums_KBF in layers]
        return cls(torch.stack(counts), torch.stack(sums))

    def detach(self) -> Routed:
        """Return a copy without gradients."""
        return Routed(self.counts_LKBE, self.sums_LKBF.detach())


def choose(normed_KNC: Tensor, router_KCE: Tensor, top_k: int) -> Choice:
    """Choose each token's experts, in fp32."""
    with torch.autocast(normed_KNC.device.type, enabled=False):
        logits = torch.bmm(normed_KNC.float(), router_KCE.float())
    probability = logits.softmax(-1)
    ids = probability.detach().topk(top_k, dim=-1).indices
    weights = probability.gather(-1, ids)
    return Choice(ids, weights / weights.sum(-1, keepdim=True), logits, probability)


def summed_by_sequence(choice: Choice, sequences: int) -> tuple[Tensor, Tensor]:
    """Sum counts, probabilities and squared log-sum-exps over the tokens of each sequence."""
    members, _, experts = choice.logits_KNE.shape
    ids = choice.ids_KNS.view(members, sequences, -1, 1)
    counts_KBE = (ids == torch.arange(experts, device=ids.device)).sum(2)
    squared = choice.logits_KNE.logsumexp(-1, keepdim=True).square()
    values = torch.cat([choice.probability_KNE, squared], -1)
    return counts_KBE, values.view(members, sequences, -1, values.shape[-1]).sum(2)


def auxiliary_loss(routed: Routed, tokens: int, size: DecoderSize) -> Tensor:
    """Return each member's loss terms other than the cross-entropy, shape (K,)."""
    squares_K = routed.sums_LKBF[..., -1].sum(2).mean(0) / tokens  # squared log-sum-exps
    return Z_LOSS * squares_K + size.balance_weight * balance_loss(routed, tokens, size.top_k)


def balance_loss(routed: Routed, tokens: int, top_k: int) -> Tensor:
    """Return the mean over layers of the load-balancing loss, shape (K,); 1: even load."""
    counts_LKE = routed.counts_LKBE.sum(2)
    experts = counts_LKE.shape[-1]
    load = counts_LKE / (tokens * top_k)
    probability = routed.sums_LKBF[..., :experts].sum(2) / tokens
    return experts * (load * probability).sum(-1).mean(0)


class ExpertCounter:
    """Counts the assignments of K members."""

    def __init__(self, batches: TrialBatches, size: DecoderSize, device: torch.device) -> None:
        """Start with counts of 0."""
        self.domains = batches.domains
        self.top_k = size.top_k
        self._batch = size.batch
        self._domain_KS = torch.from_numpy(batches.domain_KS).to(device, torch.int16)
        members = len(self._domain_KS)
        shape = (members * 2 * len(self.domains), size.layers, size.experts)
        self._counts = torch.zeros(shape, dtype=torch.int64, device=device)
        self._member_K1 = torch.arange(members, device=device)[:, None]
        self._place_B = torch.arange(size.batch, device=device)

    def add(self, step: int, routed: Routed) -> None:
        """Add the assignments of `step`, counted from 0."""
        part = slice(step * self._batch, (step + 1) * self._batch)
        domain_KB = self._domain_KS[:, part].long()
        # With an odd batch size, the extra sequence goes to each half in turn.
        half_B = (self._place_B + step) % 2
        row_KB = (2 * self._member_K1 + half_B) * len(self.domains) + domain_KB
        rows = routed.counts_LKBE.permute(1, 2, 0, 3).flatten(0, 1)
        self._counts.index_add_(0, row_KB.flatten(), rows)

    def of_member(self, k: int) -> Assignments:
        """Return the assignments of one member."""
        shape = (-1, 2, len(self.domains), *self._counts.shape[1:])
        return assignments_of(self.domains, self.top_k, self._counts.view(shape)[k])

    def with_held_out(self, counts_LKWE: list[Tensor], windows_M: list[int]) -> list[ExpertCounts]:
        """Return each member's assignments in training and in an evaluation."""
        held_out_K = held_out_assignments(counts_LKWE, windows_M, self.domains, self.top_k)
        return [ExpertCounts(self.of_member(k), held_out) for k, held_out in enumerate(held_out_K)]


def assignments_of(domains: tuple[str, ...], top_k: int, counts_HDLE: Tensor) -> Assignments:
    """Return the counts of one member as Assignments."""
    counts = counts_HDLE.cpu().numpy()
    nothing = np.zeros(counts.shape[:2], np.int64)
    layers = [
        LayerAssignments(layer, top_k, counts[:, :, layer].copy(), nothing)
        for layer in range(counts.shape[2])
    ]
    return Assignments(domains, tuple(layers))


def held_out_assignments(
    counts_LKWE: list[Tensor], windows_M: list[int], domains: tuple[str, ...], top_k: int
) -> list[Assignments]:
    """Return each member's assignments in an evaluation, with equally many windows per domain."""
    windows = min(windows_M[: len(domains)])
    evaluated_LKWE = torch.cat(counts_LKWE, 2).cpu()[:, :, : sum(windows_M)]
    parts = torch.split(evaluated_LKWE, windows_M, 2)
    counts_DLKUE = torch.stack([part[:, :, :windows] for part in parts[: len(domains)]])
    even_DLKE = counts_DLKUE[:, :, :, 0::2].sum(3)
    odd_DLKE = counts_DLKUE[:, :, :, 1::2].sum(3)
    counts_KHDLE = torch.stack([even_DLKE, odd_DLKE]).permute(3, 0, 1, 2, 4)
    return [assignments_of(domains, top_k, counts_HDLE) for counts_HDLE in counts_KHDLE]
