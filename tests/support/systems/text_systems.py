"""Systems that route tokens of sequences: heads, ranks of a LoRA, memories, patches.

Each is written from the formulas of its paper, as small as they allow.

Shapes: B samples, S tokens of one, W width, H heads, E experts, K experts of a token, P patches.
"""

from __future__ import annotations

import torch
from systems.parts import TOKENS, WIDTH, Recorded, System, of_sequences, top_k_gates
from torch import Tensor, nn

from mixopt.routing import RouterTap


class MixtureOfHeads(Recorded):
    """MoH (Jin et al. 2024): heads of attention are experts, some of them always on.

    With a = softmax(W_h x), the output is the sum over heads of g_i H_i W_i, where g_i is
    a_1 softmax(W_s x)_i for a shared head and a_2 softmax(W_r x)_i for one of the top K routed.
    """

    def __init__(self, shared: int = 2, routed: int = 4, top_k: int = 2) -> None:
        super().__init__()
        self.shared, self.top_k, heads = shared, top_k, shared + routed
        self.query, self.key, self.value = (
            nn.Parameter(torch.randn(heads, WIDTH, WIDTH) / WIDTH**0.5) for _ in range(3)
        )
        self.out = nn.Parameter(torch.randn(heads, WIDTH, WIDTH) / WIDTH**0.5)
        self.of_shared, self.of_routed = nn.Linear(WIDTH, shared), nn.Linear(WIDTH, routed)
        self.of_kinds = nn.Linear(WIDTH, 2)
        self.tap = RouterTap(experts=routed, top_k=top_k)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            torch.einsum("bsw,hwv->bhsv", x, part) for part in (self.query, self.key, self.value)
        )
        mixed = (query @ key.mT / WIDTH**0.5).softmax(-1) @ value
        heads_BSHW = torch.einsum("bhsv,hvw->bshw", mixed, self.out)
        kinds_BS2 = self.of_kinds(x).softmax(-1)
        logits = self.of_routed(x)
        probability = logits.softmax(-1)
        ids, chosen = top_k_gates(probability, self.top_k)
        routed = self.use(kinds_BS2[..., 1:] * chosen, probability, weighed=True)
        shared = kinds_BS2[..., :1] * self.of_shared(x).softmax(-1)
        self.tap(ids, logits, weights=routed.gather(-1, ids), shared=kinds_BS2[..., 0])
        return torch.einsum("bsh,bshw->bsw", torch.cat([shared, routed], -1), heads_BSHW)


class RankExperts(Recorded):
    """SMoRA (Zhao et al. 2025): y = W_0 x + B diag(g) A x, each rank of the LoRA an expert.

    The top K ranks are those of the largest softmax(W_g x) + b, with their softmax as g; b balances
    the load after each step and is in no gradient.
    """

    def __init__(self, ranks: int = 8, top_k: int = 2) -> None:
        super().__init__()
        self.top_k = top_k
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(requires_grad=False)
        self.down, self.up = nn.Linear(WIDTH, ranks, bias=False), nn.Linear(ranks, WIDTH)
        self.router = nn.Linear(WIDTH, ranks, bias=False)
        self.register_buffer("balance", torch.zeros(ranks))
        self.tap = RouterTap(experts=ranks, top_k=top_k)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        probability = logits.softmax(-1)
        ids = (probability + self.balance).topk(self.top_k, dim=-1).indices
        chosen = torch.zeros_like(probability).scatter(-1, ids, 1.0)
        gates = self.use(chosen * probability, probability)
        self.tap(ids, logits)
        return self.frozen(x) + self.up(gates * self.down(x))

    @torch.no_grad()
    def rebalance(self) -> None:
        """Raise the bias of ranks that were used less than the mean, and lower the others."""
        load_E = (self.used[-1].gates_NE > 0).float().mean(0)
        self.balance += 0.01 * (load_E.mean() - load_E).sign()


class MixtureOfMemories(Recorded):
    """MoM (Du et al. 2025): linear attention with several memories, of which a token writes K.

    M_t^m = M_{t-1}^m + k_t^m^T v_t^m for the memories of the top K of softmax(x W_g) and for a
    shared one; o_t = q_t (M^shared + sum over the K of g_m M_t^m), g their normalised scores.
    """

    def __init__(self, memories: int = 4, top_k: int = 2) -> None:
        super().__init__()
        self.top_k = top_k
        self.router, self.query = nn.Linear(WIDTH, memories), nn.Linear(WIDTH, WIDTH)
        self.key, self.value = (
            nn.Parameter(torch.randn(memories + 1, WIDTH, WIDTH) / WIDTH) for _ in range(2)
        )
        self.tap = RouterTap(experts=memories, top_k=top_k)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        probability = logits.softmax(-1)
        ids, chosen = top_k_gates(probability, self.top_k)
        gates = self.use(chosen / chosen.sum(-1, keepdim=True), probability, weighed=True)
        self.tap(ids, logits, weights=gates.gather(-1, ids))
        always = torch.ones_like(gates[..., :1])
        written = torch.cat([(gates > 0).float(), always], -1)
        read = torch.cat([gates, always], -1)
        key, value = (torch.einsum("bsw,mwv->bsmv", x, part) for part in (self.key, self.value))
        memory = x.new_zeros(len(x), key.shape[2], WIDTH, WIDTH)
        out = []
        for t in range(x.shape[1]):
            added = torch.einsum("bm,bmw,bmv->bmwv", written[:, t], key[:, t], value[:, t])
            memory = memory + added
            mixed = torch.einsum("bm,bmwv->bwv", read[:, t], memory)
            out.append(torch.einsum("bw,bwv->bv", self.query(x[:, t]), mixed))
        return torch.stack(out, 1)


class PatchAttention(Recorded):
    """Attention of Union of Experts: each group of heads takes the patches that it wants most.

    A patch is some tokens in a row. An expert takes the `room` patches of a sequence for which
    softmax over experts of the patch's mean is largest; a patch may be taken by none, or by all.
    """

    def __init__(self, experts: int = 3, patch: int = 2, room: int = 2) -> None:
        super().__init__()
        self.patch, self.room = patch, room
        self.router = nn.Linear(WIDTH, experts)
        self.value = nn.Parameter(torch.randn(experts, WIDTH, WIDTH) / WIDTH**0.5)
        self.score = nn.Parameter(torch.randn(experts, WIDTH, WIDTH) / WIDTH)
        self.tap = RouterTap(experts=experts, span=patch)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.unflatten(1, (-1, self.patch)).mean(2)
        logits = self.router(patches)
        probability = logits.softmax(-1)
        best = probability.topk(self.room, dim=1).indices
        chosen = torch.zeros_like(probability).scatter(1, best, 1.0)
        gates = self.use(chosen * probability, probability, weighed=True)
        self.tap(logits=logits, weights=gates)
        of_tokens = gates.repeat_interleave(self.patch, 1)
        attention = torch.einsum("bsw,ewv,btv->best", x, self.score, x).softmax(-1)
        values = torch.einsum("best,btw,ewv->bsev", attention, x, self.value)
        return torch.einsum("bse,bsev->bsv", of_tokens, values)


class PatchFeedForward(Recorded):
    """The feed-forward layer of Union of Experts, cut into columns: a patch takes K of the cuts."""

    def __init__(self, experts: int = 4, top_k: int = 2, patch: int = 2) -> None:
        super().__init__()
        self.patch, self.top_k = patch, top_k
        self.router = nn.Linear(WIDTH, experts)
        self.up = nn.Parameter(torch.randn(experts, WIDTH, WIDTH) / WIDTH**0.5)
        self.down = nn.Parameter(torch.randn(experts, WIDTH, WIDTH) / WIDTH**0.5)
        self.tap = RouterTap(experts=experts, top_k=top_k, span=patch)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x.unflatten(1, (-1, self.patch)).mean(2))
        probability = logits.softmax(-1)
        ids, chosen = top_k_gates(probability, self.top_k)
        gates = self.use(chosen, probability)
        self.tap(ids, logits)
        of_tokens = gates.repeat_interleave(self.patch, 1)
        hidden = torch.einsum("bsw,ewv->bsev", x, self.up).relu()
        return torch.einsum("bse,bsev,evw->bsw", of_tokens, hidden, self.down)


class UnionOfExperts(nn.Module):
    """UoE (Yang et al. 2025): experts in attention and in the feed-forward layer of a block."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({"attention": PatchAttention(), "mlp": PatchFeedForward()})
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer["attention"](x)
            x = x + layer["mlp"](x)
        return x


class Sequential(nn.Module):
    """A layer with experts before a head, so that there is a gradient beyond it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layers = nn.Linear(WIDTH, WIDTH), nn.ModuleList([layer])
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(x + self.layers[0](x))


LABELS = ("web", "code", "books")
TEXT_SYSTEMS = (
    System(
        "MoH", "domain", LABELS, lambda: Sequential(MixtureOfHeads()), of_sequences(len(LABELS))
    ),
    System(
        "SMoRA",
        "task",
        LABELS,
        lambda: Sequential(RankExperts()),
        of_sequences(len(LABELS)),
        after_step=lambda model: model.layers[0].rebalance(),
    ),
    System(
        "MoM", "domain", LABELS, lambda: Sequential(MixtureOfMemories()), of_sequences(len(LABELS))
    ),
    System(
        "Union of Experts",
        "domain",
        LABELS,
        UnionOfExperts,
        of_sequences(len(LABELS), tokens=TOKENS),
    ),
)
