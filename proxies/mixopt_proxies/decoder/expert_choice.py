"""The choice of experts for a token, and the balancing of their load.

A router is a softmax over experts of which the `top_k` largest are taken; their probabilities,
divided by their sum, weigh what the experts say. (With one expert a token the probability itself
weighs it: divided by itself it would be 1 and teach the router nothing.)

The load is evened out by a loss (Shazeer et al. 2017 in the form of Fedus et al. 2021, "Switch
Transformers"), scaled so that an even load gives 1, or by a bias that is added to the probabilities
for choosing alone and after each step is moved by a fixed amount towards the even load (Wang et
al. 2024, "Auxiliary-loss-free load balancing"). Both look at a member's own batch alone.

Shapes: K members, N tokens, S experts of a token, E experts, C width, B sequences, L layers,
F = E + 1 sums: of each expert's probability, and of the squared log-sum-exp of logits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mixopt.routing import towards_even
from mixopt_proxies.decoder.expert_options import Experts


class Choice(NamedTuple):
    """What a router chose for each token.

    Attributes:
        ids_KNS: The experts.
        weights_KNS: What their outputs are multiplied with.
        logits_KNE: Of all experts.
        probability_KNE: Their softmax.
    """

    ids_KNS: Tensor
    weights_KNS: Tensor
    logits_KNE: Tensor
    probability_KNE: Tensor


class Routed(NamedTuple):
    """What the routers of a pass chose, added up over the tokens of each sequence.

    Attributes:
        counts_LKBE: Assignments to each expert, integers.
        sums_LKBF: Sums over tokens, with their gradients.
    """

    counts_LKBE: Tensor
    sums_LKBF: Tensor

    def detach(self) -> Routed:
        """Return it without gradients."""
        return Routed(self.counts_LKBE, self.sums_LKBF.detach())


def choose(normed_KNC: Tensor, router_KCE: Tensor, bias_KE: Tensor | None, top_k: int) -> Choice:
    """Choose each token's experts, in fp32.

    Args:
        normed_KNC: What the router reads.
        router_KCE: Its weights.
        bias_KE: Added to the probabilities for choosing, not for weighing.
        top_k: Experts of a token.
    """
    with torch.autocast(normed_KNC.device.type, enabled=False):
        logits = torch.bmm(normed_KNC.float(), router_KCE.float())
    probability = logits.softmax(-1)
    wanted = probability if bias_KE is None else probability + bias_KE[:, None]
    ids = wanted.detach().topk(top_k, dim=-1).indices
    weights = probability.gather(-1, ids)
    if top_k > 1:
        weights = weights / weights.sum(-1, keepdim=True)
    return Choice(ids, weights, logits, probability)


def added_up(choice: Choice, sequences: int) -> tuple[Tensor, Tensor]:
    """Add up what was chosen over the tokens of each sequence.

    Args:
        choice: Of all tokens of a member, sequence after sequence.
        sequences: B.

    Returns:
        Assignments, shape (K, B, E), and sums, shape (K, B, F).
    """
    members, _, experts = choice.logits_KNE.shape
    ids = choice.ids_KNS.view(members, sequences, -1, 1)
    counts_KBE = (ids == torch.arange(experts, device=ids.device)).sum(2)
    squared = choice.logits_KNE.logsumexp(-1, keepdim=True).square()
    values = torch.cat([choice.probability_KNE, squared], -1)
    return counts_KBE, values.view(members, sequences, -1, values.shape[-1]).sum(2)


def own_loss(routed: Routed, tokens: int, options: Experts) -> Tensor:
    """Return what each member's loss has besides the cross-entropy, shape (K,).

    Args:
        routed: Of a training pass.
        tokens: Of one member.
        options: Say what is balanced, and how strongly.
    """
    balance_K = balance_loss(routed, tokens, options.top_k)
    loss_K = options.z_loss * z_loss(routed, tokens)
    if options.balance == "auxiliary":
        loss_K = loss_K + options.balance_weight * balance_K
    return loss_K


def balance_loss(routed: Routed, tokens: int, top_k: int) -> Tensor:
    """Return the mean over layers of the load-balancing loss, shape (K,); 1 is even."""
    counts_LKE = routed.counts_LKBE.sum(2)
    experts = counts_LKE.shape[-1]
    load = counts_LKE / (tokens * top_k)
    probability = routed.sums_LKBF[..., :experts].sum(2) / tokens
    return experts * (load * probability).sum(-1).mean(0)


def z_loss(routed: Routed, tokens: int) -> Tensor:
    """Return the mean over layers and tokens of the squared log-sum-exp of logits, shape (K,)."""
    return routed.sums_LKBF[..., -1].sum(2).mean(0) / tokens


@torch.no_grad()
def shift_biases(biases: Tensor, counts: Tensor, rate: float) -> None:
    """Move biases, in place, towards experts that got less than an even share.

    Args:
        biases: Shape (..., E).
        counts: Assignments in the last step, of the same shape.
        rate: By how much.
    """
    biases.add_(towards_even(counts), alpha=rate)
