"""A training job of two ranks that steers its own mixture, for test_integrations.

python sampler_job.py CORPUS OUT STEPS    with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler
from mixopt.system import write_json


def main(corpus, out, steps):
    dist.init_process_group("gloo")
    dataset = MixtureDataset.from_corpus(corpus, length=16)
    order = MixtureSampler(dataset.sizes, [0.5, 0.3, 0.2], batch_size=8)
    loader = MixtureLoader(dataset, order)
    state = out / "state.json"
    if state.exists():
        loader.load_state_dict(json.loads(state.read_text()))
    with (out / f"rows.{order.rank}").open("a") as log:
        for batch in loader:
            rows = list(zip(batch["domain"].tolist(), batch["row"].tolist(), strict=True))
            log.write(json.dumps([batch["batch"], rows]) + "\n")
            log.flush()
            seen = torch.bincount(batch["domain"], minlength=3).double()
            dist.all_reduce(seen)
            done = batch["batch"] + 1
            if done % 7 == 0:  # every rank computes the same weights from the same counts
                loader.set_weights(((seen + 1) / (seen + 1).sum()).tolist())
            if done % 5 == 0:
                if order.rank == 0:
                    write_json(state, loader.state_dict())
                dist.barrier()
            if done == steps:
                break
            time.sleep(0.01)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    os._exit(0)
