"""Ranks of which one cannot write its part of a checkpoint, for test_asynchronous_checkpoints.

python checkpoint_job.py WHERE RANK OUT    with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT

Each rank writes what was raised to OUT/said.RANK.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist
from torch import nn, optim, zeros_like

from mixopt.errors import MixoptError
from mixopt.pretraining import Checkpoints, joined
from mixopt.pretraining.checkpoints import _Writer
from mixopt.system import write_json

STATE = {
    "meter": {}, "losses": {}, "weights": {}, "sampler": {}, "mixture": {}, "metrics_size": 0,
}  # fmt: skip


def no_memory(*_):
    raise MemoryError("no memory for a buffer")


def parts():
    model = nn.Linear(8, 8)
    optimizer = optim.AdamW(model.parameters())
    for weight in model.parameters():
        weight.grad = zeros_like(weight)
    optimizer.step()
    return model, optimizer


def saved(where, out, ranks, failing):
    """Write a checkpoint that one rank fails at: its shard, or what rank 0 puts beside it."""
    files = {"experts.npz": None} if where == "beside" else {}  # which is no content
    if where == "shard" and failing == ranks.rank:
        _Writer.write_data = no_memory
    with Checkpoints(out, ranks) as checkpoints:
        checkpoints.save(*parts(), 1, STATE, files=files)


def main(where, failing, out):
    said = {"error": None}
    with joined("cpu") as ranks:
        try:
            saved(where, out / "checkpoints", ranks, failing)
        except MixoptError as error:
            said = {"error": str(error), "kind": type(error).__name__}
        write_json(out / f"said.{ranks.rank}", said)
        dist.barrier()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
