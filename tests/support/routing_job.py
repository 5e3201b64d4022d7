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
        mixed = torch.einsum("...c,ecd,...e->...d", x, self.experts, gates)
        return mixed.clone()  # FSDP2 warns of a view


class TinyMoE(nn.Module):
    """A dense layer, then two with experts, so that layer numbers are not positions."""

    def __init__(self, vocabulary=VOCABULARY, *, layers=2, dropout=0.0, reentrant=None):
        super().__init__()
        self.reentrant, self.dropout = reentrant, nn.Dropout(dropout)
        self.embedding = nn.Embedding(vocabulary, WIDTH)
        experts = (Mixture() for _ in range(layers))
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH), *experts])
        self.head = nn.Linear(WIDTH, vocabulary)

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        for layer in self.layers:
            if self.reentrant is None:
                x = x + self.dropout(layer(x))
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
