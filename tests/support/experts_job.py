"""A tiny language model with experts, for the tests of pretraining and of records of experts."""

import torch
from routing_job import Mixture
from torch import nn

from mixopt.routing import RouterAdapter

WIDTH, LAYERS = 8, 2


class Block(nn.Module):
    """A layer with dropout, so that random numbers are drawn, beside a way around it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return x + nn.functional.dropout(self.layer(x), 0.1, self.training)


class TinyExperts(nn.Module):
    def __init__(self, vocab_size: int, sequence_length: int, layers: int | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, WIDTH)
        experts = (Mixture() for _ in range(LAYERS if layers is None else layers))
        self.layers = nn.ModuleList(map(Block, [nn.Linear(WIDTH, WIDTH), *experts]))
        self.head = nn.Linear(WIDTH, vocab_size)

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class OwnRouter(nn.Linear):
    num_experts, top_k = 4, 2

    def forward(self, x):
        logits = super().forward(x)
        return logits, logits.topk(self.top_k).indices


class OwnMixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router = OwnRouter(WIDTH, 4)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        logits, chosen = self.router(x)
        weights = logits.softmax(-1).gather(-1, chosen)
        whole = torch.stack([expert(x) for expert in self.experts], -2)
        parts = whole.gather(-2, chosen[..., None].expand(*chosen.shape, WIDTH))
        return (parts * weights[..., None]).sum(-2)


class OwnRouters(TinyExperts):
    """Its layers with experts have routers that mixopt does not know."""

    def __init__(self, vocab_size: int, sequence_length: int) -> None:
        super().__init__(vocab_size, sequence_length)
        for block in list(self.layers)[1:]:
            block.layer = OwnMixture()


OWN_ADAPTERS = [RouterAdapter("OwnRouter", read=lambda output: output[1])]
