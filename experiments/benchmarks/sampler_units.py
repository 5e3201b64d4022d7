"""What the sampler's units, packing and many changes of weights cost, for bench_sampler.

All is CPU time of one thread; each unit is compared with `unit="samples"` of the same run.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.corpus import TokenShards
from mixopt.loading import MixtureDataset, MixtureLoader, PackedDocuments
from mixopt.sampling import MixtureSampler

BATCH = 256
ROWS = 10_000  # of a domain
LONGEST = 2048
LENGTH = 2048
BLOCKS = 1000  # batches, which are several of the blocks that are laid out at once
READ = 60  # batches of packed rows
CHANGES = (100, 4000, 10_000)
AFTER = 128  # batches that are timed after them, each of which changes the weights too
Row = tuple[str, str, str]


def seconds_each(steps: Iterator[Any], count: int, reps: int = 3) -> float:
    """Return the median CPU seconds of a step, after as many steps again."""
    spent = []
    for _ in islice(steps, count):
        pass
    for _ in range(reps):
        before = time.process_time()
        for _ in islice(steps, count):
            pass
        spent.append(time.process_time() - before)
    return statistics.median(spent) / count


def unit_rows() -> list[Row]:
    """Compare the units at 8 and at 1,000 domains."""
    return [row for domains in (8, 1000) for row in _units(domains)]


def _units(domains: int) -> list[Row]:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(domains))
    lengths = {str(d): rng.integers(1, LONGEST, ROWS) for d in range(domains)}
    sizes = dict.fromkeys(lengths, ROWS)
    steps = 100 if domains == 8 else 20

    def sampler(**options: Any) -> MixtureSampler:
        return MixtureSampler(sizes, weights, batch_size=BATCH, rank=0, world_size=1, **options)

    found = {
        "samples": seconds_each(iter(sampler()), BLOCKS),
        "tokens": seconds_each(iter(sampler(unit="tokens", lengths=lengths)), steps),
    }
    per = {name: each / BATCH * 1e6 for name, each in found.items()}
    return [
        (
            f"unit {name}, {domains:,} domains",
            f"{us:.3f} us a sample, {us / per['samples']:.1f}x samples",
            "-",
        )
        for name, us in per.items()
    ]


def change_rows() -> list[Row]:
    """Compare batches after many changes of weights with those after the first."""
    return [row for kind in ("constant", "linear") for row in _changed(kind)]


def _changed(kind: str) -> list[Row]:
    rng = np.random.default_rng(0)
    names = [str(d) for d in range(8)]
    weights = [
        dict(zip(names, map(float, w), strict=True))
        for w in rng.dirichlet(np.ones(8), CHANGES[-1] + 4 * AFTER + 1)
    ]
    rows, first = [], 0.0
    for changes in (0, *CHANGES):
        later: list[Any] = [
            (k, weights[k]) if kind == "constant" else (k, weights[k], k + 1, weights[k + 1])
            for k in range(1, changes + 4 * AFTER)
        ]
        sizes = dict.fromkeys(names, 10**6)
        one = MixtureSampler(
            sizes, weights[0], batch_size=BATCH, rank=0, world_size=1, schedule=later
        )
        one.load_state_dict({**one.state_dict(), "position": changes * BATCH})
        state = len(json.dumps(one.state_dict())) / 1000
        each = seconds_each(iter(one), AFTER) * 1e3
        if not changes:
            first = each
            rows.append((f"a batch, {kind} stages of a batch", f"{each:.2f} ms", "-"))
            continue
        rows.append(
            (
                f"a batch after {changes:,} {kind} stages that were given, and the state",
                f"{each:.2f} ms, {each / first:.2f}x the first; {state:.1f} KB",
                "<= 1.2x the first, <= 100 KB",
            )
        )
    return rows


def packed_rows(data: Path) -> list[Row]:
    """Compare rows of whole documents with plain rows of the same tokens."""
    folders = sorted((data / "domains").iterdir())
    shards = {path.name: TokenShards.open(path, verify=False) for path in folders}
    plain = MixtureDataset(shards, length=LENGTH)
    cut = MixtureDataset(shards, length=LENGTH, document_end=ord("\n"), packed=True)
    packed = MixtureDataset(
        {
            name: PackedDocuments(one, length=LENGTH, document_end=ord("\n"))
            for name, one in shards.items()
        }
    )
    found = {}
    for name, dataset in (("plain", plain), ("cut, with fields", cut), ("best fit", packed)):
        weights = dict.fromkeys(dataset.sizes, 1 / len(dataset.sizes))
        order = MixtureSampler(dataset.sizes, weights, batch_size=8, rank=0, world_size=1)
        loader = MixtureLoader(dataset, order, prefetch=0, output="numpy")
        found[name] = seconds_each(iter(loader), READ) / 8 * 1e6
    return [
        (
            f"rows of {LENGTH} tokens, {name}",
            f"{us:.1f} us a row, {us / found['plain']:.1f}x plain",
            "-",
        )
        for name, us in found.items()
    ]
