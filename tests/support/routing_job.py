"""A tiny model with experts, and a job of several ranks that counts them, for the tests of routing.

python routing_job.py OUT    with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

from mixopt.errors import RoutingError
from mixopt.routing import RouterStats, RouterTap

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
    """Return tokens, domains of sequences and masks, as tensors."""
    drawn = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(count):
        tokens = torch.randint(VOCABULARY, (size, length), generator=drawn)
        ids = torch.randint(len(DOMAINS), (size,), generator=drawn)
        mask = torch.ones(size, length, dtype=torch.long)
        mask[0, length // 2 :] = 0
        out.append((tokens, ids, mask))
    return out


def wrapped(kind, model):
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.fsdp import fully_shard

    for layer in model.layers:
        fully_shard(layer)
    return fully_shard(model)


def count(kind, out):
    rank, world = dist.get_rank(), dist.get_world_size()
    model = wrapped(kind, tiny())
    stats = RouterStats.attach(model, DOMAINS)
    for tokens, ids, mask in batches():
        mine = slice(rank, None, world)
        with stats.domains(ids[mine], mask[mine]):
            loss = model(tokens[mine]).square().mean()
        loss.backward()
        stats.reduce()
    with stats.domains(ids[mine], mask[mine]):
        model(tokens[mine])
    try:
        stats.table()
    except RoutingError as error:
        (out / f"{kind}.{rank}.txt").write_text(str(error))
    stats.reduce()
    torch.save(stats.state_dict(), out / f"{kind}.{rank}.pt")


def main(out):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for kind in ("ddp", "fsdp"):
        count(kind, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)
