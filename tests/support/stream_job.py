"""A job of ranks that read streams by worker processes, for test_stream_jobs.

python stream_job.py OUT BATCHES WORKERS    with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from stream_sources import SIZES, hub, numbered, tokens_of

from mixopt import MixtureStream
from mixopt.system import write_json

AHEAD = 4  # batches from a decision to where it holds: more than workers are asked for


def stream(**options):
    sources = {
        "web": hub(numbered("web"), 6),
        "code": numbered("code"),
        "books": hub(numbered("books"), 1).shuffle(seed=1, buffer_size=30),
    }
    rows = {"length": 16, "tokenize": tokens_of, "batch_size": 8, "buffer": 40}
    return MixtureStream(sources, dict.fromkeys(SIZES, 1 / 3), **rows, **options)


def other_weights(seen_D):
    return ((seen_D + 1) / (seen_D + 1).sum()).tolist()


def lines(batch):
    """What a batch has, for a file: domain and tokens of each sample."""
    return list(zip(batch["domain"].tolist(), batch["input_ids"].tolist(), strict=True))


def main(out, batches, workers):
    dist.init_process_group("gloo")
    one = stream(workers=workers, prefetch=AHEAD - 1)
    state = out / "state.json"
    if state.exists():
        one.load_state_dict(json.loads(state.read_text()))
    with (out / f"rows.{dist.get_rank()}").open("a") as log:
        for batch in one:
            log.write(json.dumps([batch["batch"], batch["position"], lines(batch)]) + "\n")
            log.flush()
            seen = torch.bincount(batch["domain"], minlength=3).double()
            dist.all_reduce(seen)
            done = batch["batch"] + 1
            if done % 7 == 0:  # every rank computes the same weights from the same counts
                one.set_weights(other_weights(seen), done + AHEAD - 1)
            if done % 5 == 0:
                found = one.state_dict()
                if dist.get_rank() == 0:
                    write_json(state, found)
                dist.barrier()
            if done == batches:
                break
            time.sleep(0.01)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    os._exit(0)
