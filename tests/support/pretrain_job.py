"""A rank of a pretraining job, and models for it."""

import json
import os
import warnings
import zlib

import torch
from mixopt_proxies.decoder import CausalLM

from mixopt.pretraining import pretrain


def trained(config, out, overrides, order):
    """Be one rank of a job; its order of sequences goes to a file."""
    os.environ["ORDER"] = str(order)
    warnings.simplefilter("error")
    pretrain(config, out, overrides)


class Recording(CausalLM):
    """Writes what it is trained on, a line for each pass: a checksum of each sequence."""

    def __init__(self, vocab_size: int, sequence_length: int) -> None:
        super().__init__(vocab_size, sequence_length, layers=1, width=32, heads=2, ff=48)

    def forward(self, input_ids):
        if self.training and "ORDER" in os.environ:
            sums = [zlib.crc32(row.numpy().tobytes()) for row in input_ids]
            with open(f"{os.environ['ORDER']}.{os.environ.get('RANK', '0')}", "a") as log:
                log.write(json.dumps(sums) + "\n")
        return super().forward(input_ids)


class Dropping(Recording):
    """Drops channels at random while it trains."""

    def forward(self, input_ids):
        return torch.nn.functional.dropout(super().forward(input_ids), 0.2, self.training)


class Broken(Recording):
    """Gives a loss that is not finite for some steps; on rank 1 alone where there are two."""

    def __init__(self, vocab_size: int, sequence_length: int, first: int, last: int) -> None:
        super().__init__(vocab_size, sequence_length)
        self._broken, self._calls = range(first, last), 0

    def forward(self, input_ids):
        logits = super().forward(input_ids)
        if not self.training:
            return logits
        self._calls += 1
        here = os.environ.get("RANK", "0") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1)
        return logits * float("nan") if here and self._calls - 1 in self._broken else logits


class Heavy(Recording):
    """Has many weights that take no time to train, and take time to write."""

    def __init__(self, vocab_size: int, sequence_length: int) -> None:
        super().__init__(vocab_size, sequence_length)
        self.ballast = torch.nn.Parameter(torch.linspace(0, 1, 8 << 20))

    def forward(self, input_ids):
        return super().forward(input_ids) + 1e-4 * self.ballast[::4096].mean()
