"""A tiny language model with experts, for the tests of pretraining and of records of experts."""

import torch
from routing_job import EXPERTS, TOP_K, WIDTH, TinyMoE
from torch import nn

from mixopt.routing import RouterAdapter

LAYERS = 2


class TinyExperts(TinyMoE):
    """The tiny model with dropout, so that random numbers are drawn."""

    def __init__(self, vocab_size: int, sequence_length: int, layers: int | None = None) -> None:
        super().__init__(vocab_size, layers=LAYERS if layers is None else layers, dropout=0.1)


class OwnRouter(nn.Linear):
    num_experts, top_k = EXPERTS, TOP_K

    def forward(self, x):
        logits = super().forward(x)
        return logits, logits.topk(self.top_k).indices


class OwnMixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router = OwnRouter(WIDTH, EXPERTS)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(EXPERTS))

    def forward(self, x):
        logits, ids = self.router(x)
        gates = torch.zeros_like(logits).scatter(-1, ids, logits.gather(-1, ids).softmax(-1))
        return sum(gates[..., e, None] * expert(x) for e, expert in enumerate(self.experts))


class OwnRouters(TinyExperts):
    """Its layers with experts have routers that mixopt does not know."""

    def __init__(self, vocab_size: int, sequence_length: int) -> None:
        super().__init__(vocab_size, sequence_length)
        for place in (1, 2):
            self.layers[place] = OwnMixture()


OWN_ADAPTERS = [RouterAdapter("OwnRouter", read=lambda output: output[1])]
