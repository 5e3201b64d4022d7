"""How long training waits for a checkpoint: written before it goes on, or by a thread beside it.

    OMP_NUM_THREADS=1 python experiments/benchmarks/bench_checkpoint_save.py [--bytes 5e8]

A model and its optimiser of that many bytes in all are saved as a run saves them, on one process:
synchronously and asynchronously in turns. Between two checkpoints products of matrices stand for
steps of training, until the thread has ended. Printed, by medians: the seconds that `save` takes in
each way and their ratio; that of the wait and the time that steps lose while the thread writes; and
the growth of the process's memory by staging, over the bytes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from bench_checkpoint_verify import STATE, made, seconds

from mixopt.pretraining import Beside, Checkpoints, Retention, joined


def product(left: torch.Tensor) -> torch.Tensor:
    """Do what stands for a step of training."""
    return left @ left


def steps(pending: Callable[[], bool], left: torch.Tensor) -> tuple[int, float]:
    """Take steps while something holds; return how many, and the seconds of one."""
    taken, begun = 0, time.perf_counter()
    while pending() or not taken:
        product(left)
        taken += 1
    return taken, (time.perf_counter() - begun) / taken


def main() -> None:
    """Save in both ways in turns, and print what each takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=float, default=5e8)
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    model, optimizer = made(asked.bytes)
    left = torch.randn(512, 512)
    process = psutil.Process()
    before = process.memory_info().rss
    times: dict[str, list[float]] = {"sync": [], "async": [], "lost": [], "written": []}
    with tempfile.TemporaryDirectory() as folder, joined("cpu") as ranks:
        ways = {
            way: Checkpoints(
                Path(folder) / way, ranks, kept=Retention(1), asynchronous=way == "async"
            )
            for way in ("sync", "async")
        }
        for number in range(asked.repeats + 1):  # the first makes buffers, and does not count
            beside = Beside(number, STATE, {}, [])
            until = time.perf_counter() + 1
            _, step = steps(lambda: time.perf_counter() < until, left)  # noqa: B023
            sync = seconds(lambda: ways["sync"].save(model, optimizer, beside))  # noqa: B023
            begun = time.perf_counter()
            wait = seconds(lambda: ways["async"].save(model, optimizer, beside))  # noqa: B023
            taken, slower = steps(lambda: ways["async"].is_writing, left)
            lost = taken * (slower - step)
            written = time.perf_counter() - begun
            ways["async"].wait()
            if number:
                for name, value in zip(times, (sync, wait, lost, written), strict=True):
                    times[name].append(value)
        grown = process.memory_info().rss - before
        size = sum(file.stat().st_size for file in (Path(folder) / "sync").rglob("*.safetensors"))
    middle = {name: statistics.median(values) for name, values in times.items()}
    costs = [a + b for a, b in zip(times["async"], times["lost"], strict=True)]
    print(
        json.dumps(
            {
                "bytes": size,
                "save_seconds": {n: round(middle[n], 3) for n in ("sync", "async")},
                "written_after_seconds": round(middle["written"], 3),
                "async_wait_over_sync": round(middle["async"] / middle["sync"], 3),
                "async_wait_and_slower_steps_over_sync": round(
                    statistics.median(costs) / middle["sync"], 3
                ),
                "memory_over_bytes": round(grown / size, 2),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
