"""Ranks whose orders of samples come to differ, for test_ranks.

python agreement_job.py KIND OUT    with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT

Each rank writes what was raised, and how many batches it had by then, to OUT/said.RANK.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch.distributed as dist
from driver_job import Sweeping, losses_of
from torch import tensor

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler
from mixopt.errors import MixoptError
from mixopt.integrations import MixtureState
from mixopt.online import Driver, DriverOptions
from mixopt.system import write_json

SIZES = {"web": 500, "code": 500, "books": 500}
WEIGHTS = [0.5, 0.3, 0.2]
OTHER = [0.2, 0.3, 0.5]


def over(**options):
    return MixtureSampler(SIZES, WEIGHTS, **{"batch_size": 12} | options)


def loader_of(order, **options):
    rows = {name: [{"x": k} for k in range(size)] for name, size in SIZES.items()}
    return MixtureLoader(MixtureDataset(rows), order, **options)


def trained(kind, rank, said):
    """Take 30 batches, and write a checkpoint."""
    last = rank == dist.get_world_size() - 1
    order = over(seed=int(last)) if kind == "seed" else over()
    if kind == "apart":
        before = over()
        before.received(40 + last)
        order.load_state_dict(before.state_dict())
    if kind == "part":
        order = over(rank=0, world_size=dist.get_world_size())
    mixture = loader_of(order) if kind in {"loader", "alike"} else order
    for _ in mixture:
        said["batches"] = order.batch
        if order.batch == 20 and kind in {"sampler", "loader", "alike"}:
            mixture.set_weights(OTHER if last or kind == "alike" else WEIGHTS, 22)
        if order.batch >= 30:
            break
    MixtureState(mixture).state_dict()


def driven(rank, said):
    """Change weights behind a driver's back, and write a checkpoint."""
    order = over()
    evaluate = lambda: dict.fromkeys(SIZES, (1.0, 1))  # noqa: E731
    options = DriverOptions(steps=100, tokens_per_sample=8, evaluate=evaluate)
    driver = Driver(Sweeping(), order, options)
    driver.start()
    for rows in order:
        said["batches"] = order.batch
        driver.record(losses_of(rows, order.batch), tensor(rows) // 500)
        driver.step(learning_rate=0.1)
        if order.batch == 11:
            if rank == 0:
                order.set_weights(OTHER, 90)
            driver.state_dict()


def main(kind, out):
    dist.init_process_group("gloo")
    rank, said = dist.get_rank(), {"error": None}
    try:
        driven(rank, said) if kind == "driver" else trained(kind, rank, said)
    except MixoptError as error:
        said["error"] = str(error)
    write_json(out / f"said.{rank}", said)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
    os._exit(0)
