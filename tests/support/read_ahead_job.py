"""A loop of nanoGPT's layout, for test_read_ahead: a batch is fetched before the last one's step.

python read_ahead_job.py OUT STEPS    with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from trainer_parts import Tiny, random_rows

from mixopt import MixtureLoader, MixtureSampler
from mixopt.system import write_json

ACCUMULATION = 2
WEIGHTS = [0.5, 0.3, 0.2]
EVERY = 4  # steps between checkpoints
PACE = 0.02  # seconds of a step, so that a kill falls between two


def weights_at(step):
    """What the loop sets after a step."""
    return [[0.1, 0.1, 0.8], [0.7, 0.2, 0.1]][step // 3 % 2] if step % 3 == 0 else None


def main(out, steps):
    """Train, from the last checkpoint on."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = DistributedDataParallel(Tiny())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    dataset = random_rows()
    order = MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8)
    loader = MixtureLoader(dataset, order, workers=2, accumulation=ACCUMULATION)
    checkpoint, step = out / "checkpoint.json", 0
    if checkpoint.exists():
        saved = json.loads(checkpoint.read_text())
        step = saved["step"]
        loader.load_state_dict(saved["mixture"])

    batches = iter(loader)
    with (out / f"rows.{order.rank}").open("a") as log:
        batch = next(batches)  # before the first step
        while step < steps:
            for micro in range(ACCUMULATION):
                last = micro == ACCUMULATION - 1
                with nullcontext() if last else model.no_sync():
                    loss = model(batch["input_ids"], batch["input_ids"])["loss"] / ACCUMULATION
                    rows = list(zip(batch["domain"].tolist(), batch["row"].tolist(), strict=True))
                    consumed = batch["batch"] + 1
                    batch = next(batches)  # while the GPU is at the forward pass
                    loss.backward()
                log.write(json.dumps([consumed - 1, rows]) + "\n")
                log.flush()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            new = weights_at(step)
            if new is not None:
                loader.set_weights(new)
            if step % EVERY == 0:
                state = {"step": step, "mixture": loader.state_dict(consumed=consumed)}
                if order.rank == 0:
                    write_json(checkpoint, state)
                dist.barrier()
            time.sleep(PACE)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
    os._exit(0)
