"""How much host memory each rank of a sharded run takes at its start, over the size of the model.

    OMP_NUM_THREADS=1 python experiments/benchmarks/bench_sharded_start.py [--width 768]

Real ranks (gloo, on this machine) build a llama and shard it with FSDP, in two ways: as a run does,
with the whole model on rank 0 alone; and, for comparison, built on every rank and sharded from
there, as it has to be where nothing is sent. Printed are the bytes of the model and of a rank's
part; the most memory of each process (VmHWM of /proc, above what it had before the model was
built), over the bytes of the model; and the seconds until the model is ready. The weights of both
ways are compared by a hash of each rank's parts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import socket
import time
from multiprocessing.queues import Queue
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from mixopt.pretraining import (
    ParallelModel,
    PretrainConfig,
    build_model,
    joined,
    load_pretraining,
    starting_model,
)

VOCAB, LENGTH = 32_000, 512
WAYS = ("on rank 0", "on every rank")
CONFIG = """\
model:
  name: llama
  options: {{hidden_size: {width}, intermediate_size: {inner}, num_hidden_layers: {layers},
            num_attention_heads: 8, num_key_value_heads: 8}}
training: {{steps: 1, batch: 8, sequence_length: {length}, precision: float32}}
mixture: {{weights: {{a: 1}}}}
prepared_corpus: unused
parallel: fsdp
"""


def memory(field: str) -> int:
    """Return a field of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def parallel_model(config: PretrainConfig, way: str, out: Path) -> ParallelModel:
    """Start in one of the ways."""
    with joined("cpu") as ranks:
        if way == WAYS[0]:
            start = starting_model(config, VOCAB, out, ranks)
            return ParallelModel(start.module, config, ranks, held_by_first=start.held_by_first)
        built = build_model(
            config.model, vocab_size=VOCAB, sequence_length=LENGTH, seed=config.seed
        )
        return ParallelModel(built, config, ranks)


def rank_of(
    rank: int, count: int, port: int, way: str, folder: Path, said: Queue[dict[str, Any]]
) -> None:
    """Be a rank, and say what it took."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    config = load_pretraining(folder / "run.yaml")
    small = config.model.model_copy(update={"options": {**config.model.options, **_TINY}})
    build_model(small, vocab_size=64, sequence_length=8, seed=0)  # imports what building needs
    torch.distributed.init_process_group("gloo")
    torch.distributed.barrier()
    Path("/proc/self/clear_refs").write_text("5")  # the most memory counts from here
    before, begun = memory("VmRSS"), time.perf_counter()
    model = parallel_model(config, way, folder / "run").plain
    seconds, most = time.perf_counter() - begun, memory("VmHWM") - before
    parts = [w.detach().to_local() for w in model.parameters() if isinstance(w, DTensor)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.numpy().tobytes())
    said.put(
        {
            "rank": rank,
            "most": most,
            "seconds": seconds,
            "bytes": sum(w.numel() * 4 for w in model.parameters()),
            "part": sum(part.nbytes for part in parts),
            "hash": digest.hexdigest(),
        }
    )
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


_TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}


def measured(way: str, count: int, folder: Path) -> list[dict[str, Any]]:
    """Return what each rank says of one way."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    said: Queue[dict[str, Any]] = context.Queue()
    processes = [
        context.Process(target=rank_of, args=(rank, count, port, way, folder, said))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    found = sorted((said.get() for _ in processes), key=lambda one: int(one["rank"]))
    for process in processes:
        process.join()
    return found


def main() -> None:
    """Start in both ways, and print what each rank took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--ranks", type=int, default=4)
    asked = parser.parse_args()
    text = CONFIG.format(
        width=asked.width, inner=3 * asked.width, layers=asked.layers, length=LENGTH
    )
    with TemporaryDirectory() as folder:
        (Path(folder) / "run.yaml").write_text(text)
        found = {way: measured(way, asked.ranks, Path(folder)) for way in WAYS}
    size = found[WAYS[0]][0]["bytes"]
    hashes = {way: [one["hash"] for one in ranks] for way, ranks in found.items()}
    shown: dict[str, Any] = {
        "model_bytes": size,
        "part_bytes": [one["part"] for one in found[WAYS[0]]],
        "weights_are_equal": hashes[WAYS[0]] == hashes[WAYS[1]],
    }
    for way, ranks in found.items():
        shown[f"{way}, most memory over the model"] = [
            round(one["most"] / size, 2) for one in ranks
        ]
        shown[f"{way}, all ranks"] = round(sum(one["most"] for one in ranks) / size, 2)
        shown[f"{way}, seconds"] = round(max(one["seconds"] for one in ranks), 1)
    print(json.dumps(shown, indent=1))


if __name__ == "__main__":
    main()
