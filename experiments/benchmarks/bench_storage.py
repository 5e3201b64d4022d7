"""What it costs to open and read corpora of very many shards, and of a store.

    python experiments/benchmarks/bench_storage.py --out experiments/benchmarks/results_storage.md

Corpora of 1e12 tokens are sparse files: nothing is on the disk but their indices, and reading them
costs what reading zeros costs. Their hashes are not compared, since that is hours of hashing zeros;
what comparing costs is measured on files that are small enough, by `hashing`. Each line is a
process of its own under `ulimit -n 1024`, whose CPU time is that of its threads together from
before the corpus is opened to its first batch. The first time nothing is known of the corpus on
this node, the second time all is. A million shards are indices alone, opened as those of a store.

S3 is moto's server on 127.0.0.1, which is Python: it is slower than a store, and its CPU time is
not counted. The same batches are read from a local copy in the same run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

LENGTH = 2048
TRILLION = 10**12
LIMIT = 1024  # descriptors
# domains, shards of each, tokens of a shard
CORPORA = {
    "1 domain, 10,000 shards": (1, 10_000, TRILLION // 10_000),
    "8 domains, 1,250 shards each": (8, 1_250, TRILLION // 10_000),
    "1,000 domains, 10 shards each": (1_000, 10, TRILLION // 10_000),
    "2 domains, 50,000 shards each": (2, 50_000, TRILLION // 100_000),
}
ROWS = 20_000  # that are read to time a row
STORED_TOKENS = 1 << 22  # of a domain in the store
STORED_SHARD = 1 << 19


def write_sparse(folder: Path, domains: int, shards: int, tokens: int) -> None:
    """Write a corpus of files without content; the index's hashes are those of nothing."""
    from mixopt.system import write_json, write_sealed

    tokens -= tokens % LENGTH
    nothing = hashlib.sha256().hexdigest()
    for d in range(domains):
        place = folder / f"domain{d:04d}" / "train"
        place.mkdir(parents=True)
        for k in range(shards):
            with (place / f"{k:05d}.bin").open("wb") as stream:
                stream.truncate(2 * tokens)
        entries = [
            {"file": f"{k:05d}.bin", "tokens": tokens, "sha256": nothing} for k in range(shards)
        ]
        fields = {"dtype": "uint16", "tokens": tokens * shards, "documents": 1, "bytes": 0}
        content = {"format": "mixopt-tokens/2", "tokenizer": "t", **fields, "shards": entries}
        write_sealed(place / "index.json", content)
    write_json(folder / "index.json", {"domains": [f"domain{d:04d}" for d in range(domains)]})


def read(folder: str) -> dict[str, float]:
    """Open a corpus and read batches, in this process; return what that cost."""
    from mixopt import MixtureDataset, MixtureLoader, MixtureSampler

    begun = time.process_time()
    dataset = MixtureDataset.from_corpus(folder, length=LENGTH, verify=False)
    opened = time.process_time() - begun
    domains = len(dataset.sizes)
    sampler = MixtureSampler(dataset.sizes, [1 / domains] * domains, batch_size=32)
    batches = iter(MixtureLoader(dataset, sampler, output="numpy", prefetch=0))
    next(batches)
    first = time.process_time() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    for _ in range(ROWS // 32):
        next(batches)
    row = (time.process_time() - begun - first) / (ROWS // 32 * 32)
    return {
        "open s": opened,
        "first s": first,
        "MB": memory,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mappings": len(Path("/proc/self/maps").read_text().splitlines()),
        "row us": row * 1e6,
    }


def open_indices(folder: str) -> dict[str, float]:
    """Open a corpus of which the indices alone are here, in this process."""
    from mixopt.corpus import ShardStore, TokenShards
    from mixopt.system import ContentCache

    begun = time.process_time()
    store = ShardStore("memory://none", ContentCache(Path(folder, "none"), 1))
    places = sorted(Path(folder).glob("*/train"))
    domains = [TokenShards.open(place, store=store) for place in places]
    shards = sum(len(one.shards) for one in domains)
    opened = time.process_time() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"open s": opened, "MB": memory, "shards": shards}


def index_lines(scratch: Path) -> Iterator[str]:
    """Give a line for a million shards, the first and the second time."""
    folder = scratch / "indices"
    write_sparse(folder, 1, 10_000, TRILLION // 1_000_000)
    whole = (folder / "domain0000/train/index.json").read_bytes()
    for d in range(100):
        place = folder / f"copy{d:04d}" / "train"
        place.mkdir(parents=True)
        (place / "index.json").write_bytes(whole)
    shutil.rmtree(folder / "domain0000")
    for which in ("first", "second"):
        cost = in_process("open_indices", str(folder), cache=scratch / "cache")
        yield _row(
            "100 domains, 10,000 shards each", which, f"{cost['open s']:.2f}", f"{cost['MB']:.0f}"
        )


def in_process(call: str, *given: str, cache: Path) -> dict[str, Any]:
    """Call a function of this file in a process of its own with few descriptors."""
    limit = f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))"
    code = f"{limit}; import json, bench_storage as b; print(json.dumps(b.{call}(*{given!r})))"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MIXOPT_CACHE": str(cache)}
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, capture_output=True, text=True, env=environment,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{call} {given}: {done.stderr.strip().splitlines()[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def sparse_lines(scratch: Path) -> Iterator[str]:
    """Give a line of the table for each corpus, the first and the second time."""
    for name, (domains, shards, tokens) in CORPORA.items():
        folder = scratch / f"{domains}-{shards}"
        write_sparse(folder, domains, shards, tokens)
        for which in ("first", "second"):
            cost = in_process("read", str(folder), cache=scratch / "cache")
            numbers = [f"{cost['open s']:.3f}", f"{cost['first s']:.2f}", f"{cost['MB']:.0f}"]
            counts = [f"{cost['descriptors']:.0f}", f"{cost['mappings']:.0f}"]
            yield _row(name, which, *numbers, *counts, f"{cost['row us']:.0f}")


def hash_some(folder: str) -> dict[str, float]:
    """Open a folder and compare hashes, in this process."""
    from mixopt.corpus import TokenShards

    begun, wall = time.process_time(), time.monotonic()
    TokenShards.open(folder)
    return {"cpu": time.process_time() - begun, "wall": time.monotonic() - wall}


def hashing(scratch: Path) -> list[str]:
    """Return what comparing 1 GB of hashes costs eight processes that begin at once."""
    from mixopt.corpus import TokenWriter

    folder = scratch / "hashed" / "train"
    with TokenWriter(folder, dtype="uint16", tokenizer="t", shard_tokens=1 << 24) as writer:
        for _ in range(32):
            writer.write(
                np.random.default_rng(0).integers(0, 1 << 16, 1 << 24), documents=1, bytes=1
            )
    lines = []
    for which in ("first", "second"):
        with ThreadPoolExecutor(8) as pool:
            given = [("hash_some", str(folder))] * 8
            found = list(pool.map(lambda g: in_process(*g, cache=scratch / "cache"), given))
        spent = sorted(one["cpu"] for one in found)
        lines.append(_row(which, f"{sum(spent):.2f}", f"{spent[-1]:.2f}", f"{spent[-2]:.2f}"))
    return lines


def read_some(place: str, chunked: str) -> dict[str, float]:
    """Read an epoch of a corpus in this process; return samples a second."""
    from mixopt import MixtureDataset, MixtureLoader, MixtureSampler

    dataset = MixtureDataset.from_corpus(place, length=LENGTH, cache_bytes=1 << 30)
    chunks = dataset.shards.chunks if chunked else None
    sampler = MixtureSampler(dataset.sizes, [0.5, 0.5], batch_size=32, chunks=chunks)
    begun, count = time.monotonic(), 0
    for batch in MixtureLoader(dataset, sampler, output="numpy"):
        count += len(batch["input_ids"])
        if count >= len(dataset) - 32:
            break
    return {"rate": count / (time.monotonic() - begun)}


def stored_lines(scratch: Path) -> Iterator[str]:
    """Give a line for each way to read a corpus of a store, and a copy of it."""
    from mixopt.corpus import TokenWriter
    from mixopt.system import write_json

    folder = scratch / "stored"
    for d, name in enumerate(("a", "b")):
        path = folder / name / "train"
        with TokenWriter(path, dtype="uint16", tokenizer="t", shard_tokens=STORED_SHARD) as writer:
            tokens = np.random.default_rng(d).integers(0, 1 << 16, STORED_TOKENS)
            writer.write(tokens, documents=1, bytes=1)
    write_json(folder / "index.json", {"domains": ["a", "b"]})
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
    from s3_server import s3_server

    with s3_server(scratch) as server:
        os.environ |= server.environment
        for path in folder.rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                server.put(f"bench/{path.relative_to(folder).as_posix()}", path)
        for chunked in ("", "yes"):
            order = "chunks" if chunked else "any row"
            cache = scratch / f"store-cache{chunked}"
            for name, place in (
                ("a local copy", str(folder)),
                ("S3, nothing in the cache", "s3://texts/bench"),
                ("S3, all in the cache", "s3://texts/bench"),
            ):
                rate = in_process("read_some", place, chunked, cache=cache)["rate"]
                yield _row(name, order, f"{rate:,.0f}")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _table(header: str, lines: Iterator[str] | list[str]) -> list[str]:
    table = [_row(*header.split("; ")), "|" + "---|" * len(header.split("; "))]
    for line in lines:
        print(line, flush=True)
        table.append(line)
    return table


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--scratch", type=Path, help="a folder for sparse files (4 GB for the rest)"
    )
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        costs = "corpus of 1e12 tokens; time; open, s CPU; with the first batch; MB; descriptors"
        sparse = _table(f"{costs}; mappings; us a row after", sparse_lines(folder))
        million = _table("indices alone; time; open, s CPU; MB", index_lines(folder))
        stored = _table("read from; order; samples/s", stored_lines(folder))
        hashed = _table("time; CPU s of eight; of the slowest; of the next", hashing(folder))
    head = (
        "# What storage costs\n\n`python experiments/benchmarks/bench_storage.py`:"
        f" {os.cpu_count()} cores, load {load:.1f} at the start; Python"
        f" {platform.python_version()}, numpy {np.__version__}.\n"
    )
    parts = [
        head, f"## Very many shards, under `ulimit -n {LIMIT}`\n", *sparse, "", *million,
        f"\n## A store on 127.0.0.1, rows of {LENGTH} tokens, 16 MB in 16 shards\n", *stored,
        "\n## Eight processes that open 1 GB and compare hashes\n", *hashed,
    ]  # fmt: skip
    text = "\n".join(parts) + "\n"
    if arguments.out:
        arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
