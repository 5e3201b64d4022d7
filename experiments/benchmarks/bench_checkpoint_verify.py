"""What verifying a checkpoint adds to resuming from it.

    python experiments/benchmarks/bench_checkpoint_verify.py [--bytes 1e9] [--repeats 5]

A model and its optimiser of that many bytes in all are saved as a run saves them, on one process.
Then reading the checkpoint (filling model and optimiser) and verifying it (each file against its
hash) take turns, with the files in the page cache. Printed are both times, by medians, and their
ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn, optim

from mixopt.pretraining import Beside, Checkpoints, Retention, joined

STATE: dict[str, Any] = {
    "meter": {}, "losses": {}, "weights": {}, "sampler": {}, "mixture": {}, "metrics_size": 0,
}  # fmt: skip
WIDTH = 1024


def made(size: float) -> tuple[nn.Module, optim.Optimizer]:
    """Return a model whose weights and two moments take so many bytes."""
    layers = max(round(size / (3 * 4 * WIDTH * WIDTH)), 1)
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)))
    optimizer = optim.AdamW(model.parameters(), fused=False)
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main() -> None:
    """Save, read and verify in turns, and print what each takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=float, default=1e9)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    model, optimizer = made(asked.bytes)
    times: dict[str, list[float]] = {"save": [], "verify": [], "read": []}
    with tempfile.TemporaryDirectory() as folder, joined("cpu") as ranks:
        kept = Checkpoints(Path(folder), ranks, kept=Retention(1))
        for step in range(asked.repeats):
            save = partial(kept.save, model, optimizer, Beside(step, STATE, {}, []))
            times["save"].append(seconds(save))
            found = kept.newest_whole()
            assert found is not None
            path = found[0]
            times["read"].append(seconds(partial(kept.load, path, model, optimizer)))
            times["verify"].append(seconds(kept.newest_whole))
        size = sum(file.stat().st_size for file in path.iterdir())
    middle = {name: statistics.median(values) for name, values in times.items()}
    print(
        json.dumps(
            {
                "bytes": size,
                "threads": torch.get_num_threads(),
                **{f"{name}_seconds": round(value, 3) for name, value in middle.items()},
                "verify_gigabytes_per_second": round(size / 1e9 / middle["verify"], 2),
                "verify_over_read": round(middle["verify"] / middle["read"], 3),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
