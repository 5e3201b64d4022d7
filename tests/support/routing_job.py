"""A tiny model with experts, for the tests of routing."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mixopt.routing import RouterTap

DOMAINS = ["web", "code", "books"]
EXPERTS, TOP_K, WIDTH, VOCABULARY = 4, 2, 8, 32


class Mixture(nn.Module):
    """Experts behind a linear router; the choice is made in the middle of forward."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS)
        self.experts = nn.Parameter(torch.randn(EXPERTS, WIDTH, WIDTH) / WIDTH**0.5)
        self.tap = RouterTap(experts=EXPERTS, top_k=TOP_K)

    def forward(self, x):
        logits = self.router(x)
        top, ids = logits.topk(TOP_K, dim=-1)
        self.tap(ids)
        gates = torch.zeros_like(logits).scatter(-1, ids, top.softmax(-1))
        return torch.einsum("...c,ecd,...e->...d", x, self.experts, gates)


class TinyMoE(nn.Module):
    """A dense layer, then two with experts, so that layer numbers are not positions."""

    def __init__(self, *, reentrant: bool | None = None):
        super().__init__()
        self.reentrant = reentrant
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH), Mixture(), Mixture()])
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            if self.reentrant is None:
                x = x + layer(x)
            else:
                x = x + checkpoint(layer, x, use_reentrant=self.reentrant)
        return self.head(x)


def tiny(**options) -> TinyMoE:
    torch.manual_seed(0)
    return TinyMoE(**options)


def batches(count=3, size=4, length=6, seed=1):
    drawn = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(count):
        tokens = torch.randint(VOCABULARY, (size, length), generator=drawn)
        ids = torch.randint(len(DOMAINS), (size,), generator=drawn)
        mask = torch.ones(size, length, dtype=torch.long)
        mask[0, length // 2 :] = 0
        out.append((tokens, ids, mask))
    return out
