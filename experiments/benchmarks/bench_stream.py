"""Memory and speed of reading a streamed domain, for sources of growing size.

python experiments/benchmarks/bench_stream.py 10 200

Writes a file of so many MB of JSON lines, reads it once as `mixopt pretrain` does (held-out text
left out, tokenised to bytes, packed, shuffled), and prints rows, speed and the peak of resident
memory; each size in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from mixopt.pretraining import PretrainConfig, StreamedText, prepare_streams, rows_of

LENGTH = 1024
WORDS = 400  # of a document


def write(path: Path, megabytes: int) -> None:
    """Write documents of random words."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=k % 8 + 2)) for k in range(5000)]
    with path.open("w") as stream:
        while stream.tell() < megabytes * 1_000_000:
            stream.write(json.dumps({"text": " ".join(draw.choices(words, k=WORDS))}) + "\n")


def measure(megabytes: int) -> None:
    """Read a source of this size once, and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "source.jsonl")
        write(path, megabytes)
        config = PretrainConfig.model_validate(
            {
                "stream": {"domains": {"text": {"path": str(path)}}},
                "model": {"name": "decoder"},
                "training": {"steps": 1, "batch": 64, "sequence_length": LENGTH, "lr": 1e-3},
            }
        )
        assert config.stream is not None
        prepare_streams(config, config.stream, Path(folder), lambda line: None)
        text = StreamedText.open(config.stream, Path(folder))
        rows = rows_of(text, config.stream, config)["text"]
        count, since = 0, time.perf_counter()
        while rows.epoch == 0:
            next(rows)
            count += 1
        speed = count * (LENGTH + 1) / (time.perf_counter() - since)
        rows.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{megabytes:>5} MB: {count:>8,} rows, {speed / 1e6:.1f}M tokens/s, peak {peak:.0f} MiB")


if __name__ == "__main__":
    for size in sys.argv[1:]:
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(int(size),))
        process.start()
        process.join()
