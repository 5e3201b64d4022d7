"""A tiny language model with experts, for the tests of pretraining and of records of experts."""

from __future__ import annotations

import time
from pathlib import Path

from routing_job import Mixture
from torch import nn

WIDTH, LAYERS = 8, 2


class Block(nn.Module):
    """A layer with dropout, so that random numbers are drawn, beside a way around it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return x + nn.functional.dropout(self.layer(x), 0.1, self.training)


class TinyExperts(nn.Module):
    """A dense layer and two with experts.

    `first_broken` is the pass whose embedding is not finite, and every one after it until
    `last_broken`.
    """

    def __init__(
        self,
        vocab_size: int,
        sequence_length: int,
        layers: int | None = None,
        first_broken: int = 0,
        last_broken: int = 0,
    ) -> None:
        super().__init__()
        count = LAYERS if layers is None else layers
        self.embedding = nn.Embedding(vocab_size, WIDTH)
        parts = [nn.Linear(WIDTH, WIDTH), *(Mixture() for _ in range(count))]
        self.layers = nn.ModuleList(Block(part) for part in parts)
        self.head = nn.Linear(WIDTH, vocab_size)
        self._broken, self._passes = range(first_broken, last_broken), 0

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        if self.training:
            x = x * float("nan") if self._passes in self._broken else x
            self._passes += 1
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Waiting(TinyExperts):
    """Takes some steps, and the next when a file is there."""

    def __init__(self, vocab_size: int, sequence_length: int, steps: int, file: str) -> None:
        super().__init__(vocab_size, sequence_length)
        self._steps, self._file = steps, Path(file)

    def forward(self, input_ids):
        while self.training and self._passes >= self._steps and not self._file.exists():
            time.sleep(0.05)
        return super().forward(input_ids)


class Skipping(TinyExperts):
    """Never runs its last layer."""

    def forward(self, input_ids):
        last = self.layers[-1]
        unused = sum(weight.sum() * 0 for weight in last.parameters())
        return self.head(self.layers[0](self.embedding(input_ids))) + unused


class TwoRouters(TinyExperts):
    """Has two routers in its last layer."""

    def __init__(self, vocab_size: int, sequence_length: int) -> None:
        super().__init__(vocab_size, sequence_length)
        self.layers[-1].layer = nn.Sequential(Mixture(), Mixture())
