"""One rank of a job whose sampler learns lengths: python learned_lengths_job.py STORE OUT."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import torch.distributed as dist

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler

TEST = Path(__file__).parents[1] / "loading" / "test_token_shares.py"


def main(store: str, out: str) -> None:
    """Take 25 batches and write their rows and the state."""
    spec = importlib.util.spec_from_file_location("token_shares", TEST)
    test = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(test)
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    dataset = MixtureDataset(test.sources())
    sampler = MixtureSampler(dataset.sizes, test.WEIGHTS, batch_size=8, unit="tokens")
    loader = MixtureLoader(dataset, sampler, collate=test.keep_ids, output="numpy")
    rows = [batch["row"].tolist() for batch, _ in zip(loader, range(25), strict=False)]
    Path(out).write_text(json.dumps({"rows": rows, "state": loader.state_dict()}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
