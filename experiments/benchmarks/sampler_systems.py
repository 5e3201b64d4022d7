"""Systems that bench_sampler.py times, one a process: ours, its limit, and its peers.

    python experiments/benchmarks/sampler_systems.py SYSTEM DATA LENGTH BATCH SAMPLES

prints the CPU microseconds of a sample (this process and its workers) as JSON. Each delivers
batches of BATCH rows of LENGTH uint16 tokens, or single rows where that is what it does best.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

WEIGHTS = [0.30, 0.20, 0.15, 0.12, 0.10, 0.06, 0.04, 0.03]


def domains(data: Path) -> list[Path]:
    """Return the folders of token shards, in order."""
    return sorted(path for path in (data / "domains").iterdir())


def mapped(data: Path, length: int) -> list[np.ndarray]:
    """Return each domain's rows, mapped."""
    rows = []
    for folder in domains(data):
        tokens = np.asarray(np.memmap(folder / "00000.bin", dtype="<u2", mode="r"))
        rows.append(tokens[: len(tokens) // length * length].reshape(-1, length))
    return rows


def sampler(data: Path, length: int, batch: int, **options: Any) -> Any:
    """Return our dataset and sampler."""
    from mixopt.corpus import TokenShards
    from mixopt.loading import MixtureDataset
    from mixopt.sampling import MixtureSampler

    shards = {path.name: TokenShards.open(path, verify=False) for path in domains(data)}
    dataset = MixtureDataset(shards, length=length)
    return dataset, MixtureSampler(dataset.sizes, WEIGHTS, batch_size=batch, **options)


def limit_rows(data: Path, length: int, batch: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return all rows as one map, and the rows that our sampler draws of them."""
    _, order = sampler(data, length, batch)
    tokens = np.asarray(np.memmap(data / "all.bin", dtype="<u2", mode="r"))
    rows = tokens[: len(tokens) // length * length].reshape(-1, length)
    return rows, list(np.minimum(order.order.rows(0, 100_000 // batch), len(rows) - 1))


def limit(data: Path, length: int, batch: int) -> Iterator[Any]:
    """np.take of the same rows from one memory map."""
    rows, drawn = limit_rows(data, length, batch)
    while True:
        for here in drawn:
            yield np.take(rows, here, axis=0)


def mixopt_loader(data: Path, length: int, batch: int, **options: int) -> Iterator[Any]:
    """MixtureLoader in line, with its thread, or with worker processes."""
    from mixopt.loading import MixtureLoader

    return iter(MixtureLoader(*sampler(data, length, batch), output="numpy", **options))


def mixopt_dataloader(data: Path, length: int, batch: int) -> Iterator[Any]:
    """MixtureDataset and MixtureSampler in torch's DataLoader with two workers."""
    from torch.utils.data import DataLoader

    from mixopt.loading import stack_samples

    dataset, order = sampler(data, length, batch)
    return iter(DataLoader(dataset, batch_sampler=order, num_workers=2, collate_fn=stack_samples))


def raw_dataloader(data: Path, length: int, batch: int) -> Iterator[Any]:
    """Torch's DataLoader with two workers over the raw map."""
    from torch.utils.data import DataLoader

    rows, drawn = limit_rows(data, length, batch)
    return iter(DataLoader(_Gather(rows, drawn), batch_size=None, num_workers=2))


class _Gather:
    """A whole batch of the limit's rows for each index."""

    def __init__(self, rows: np.ndarray, drawn: list[np.ndarray]) -> None:
        self.rows, self.drawn = rows, drawn

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, index: int) -> Any:
        import torch

        rows = self.rows[self.drawn[index % len(self.drawn)]]
        return torch.from_numpy(rows.view(np.int16))


def torchdata(data: Path, length: int, batch: int) -> Iterator[Any]:
    """Torchdata's MultiNodeWeightedSampler over the maps."""
    from torch.utils.data import RandomSampler
    from torchdata.nodes import MapStyleWrapper, MultiNodeWeightedSampler, StopCriteria

    rows = [_Rows(rows) for rows in mapped(data, length)]
    nodes = {str(k): MapStyleWrapper(r, RandomSampler(r)) for k, r in enumerate(rows)}
    weights = {str(k): weight for k, weight in enumerate(WEIGHTS)}
    node = MultiNodeWeightedSampler(nodes, weights, stop_criteria=StopCriteria.CYCLE_FOREVER)
    node.reset()
    return iter(node)


def hugging_face(data: Path, length: int) -> list[Any]:
    """Return each domain as a datasets.Dataset on disk."""
    import datasets
    import pyarrow as pa

    tables = []
    for k, rows in enumerate(mapped(data, length)):
        folder = data / f"hf-{length}" / str(k)
        if not folder.exists():
            column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), length)
            datasets.Dataset(pa.table({"input_ids": column})).save_to_disk(str(folder))
        tables.append(datasets.load_from_disk(str(folder)))
    return tables


def hf_map(data: Path, length: int, batch: int) -> Iterator[Any]:
    """interleave_datasets of map-style datasets, read in slices."""
    import datasets

    tables = [table.shuffle(seed=0).with_format("numpy") for table in hugging_face(data, length)]
    mixed = datasets.interleave_datasets(tables, probabilities=WEIGHTS, seed=0)
    while True:
        for start in range(0, len(mixed) - batch, batch):
            yield mixed[start : start + batch]["input_ids"]


def hf_iterable(data: Path, length: int, batch: int) -> Iterator[Any]:
    """interleave_datasets of iterable datasets in their quickest format, without a shuffle."""
    import datasets

    streams = [t.to_iterable_dataset().with_format("arrow") for t in hugging_face(data, length)]
    return iter(datasets.interleave_datasets(streams, probabilities=WEIGHTS, seed=0))


def grain(data: Path, length: int, batch: int) -> Iterator[Any]:
    """Grain's MapDataset.mix, without read threads, which is its quickest here."""
    import grain.python as pygrain

    parts = [
        pygrain.MapDataset.source(_Rows(rows)).shuffle(seed=k).repeat()
        for k, rows in enumerate(mapped(data, length))
    ]
    mixed = pygrain.MapDataset.mix(parts, weights=WEIGHTS)
    return iter(mixed.to_iter_dataset(pygrain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))


class _Rows:
    """Rows of a map, one at a time."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.rows[index].copy()


def mosaic(data: Path, length: int, batch: int) -> Iterator[Any]:
    """Mosaic's StreamingDataset of local shards."""
    from streaming import MDSWriter, Stream, StreamingDataset

    streams = []
    for k, rows in enumerate(mapped(data, length)):
        folder = data / f"mds-{length}" / str(k)
        if not folder.exists():
            columns = {"tokens": f"ndarray:uint16:{length}"}
            with MDSWriter(out=str(folder), columns=columns) as writer:
                for row in rows:
                    writer.write({"tokens": np.array(row)})
        streams.append(Stream(local=str(folder), proportion=WEIGHTS[k]))
    return iter(StreamingDataset(streams=streams, batch_size=batch, shuffle=True))


SYSTEMS: dict[str, tuple[Callable[[Path, int, int], Iterator[Any]], bool]] = {
    "limit": (limit, True),
    "mixopt plain": (partial(mixopt_loader, prefetch=0), True),
    "mixopt thread": (mixopt_loader, True),
    "mixopt 2 workers": (partial(mixopt_loader, workers=2), True),
    "mixopt in a DataLoader, 2 workers": (mixopt_dataloader, True),
    "raw map in a DataLoader, 2 workers": (raw_dataloader, True),
    "torchdata": (torchdata, False),
    "HF map": (hf_map, True),
    "HF iterable": (hf_iterable, False),
    "grain": (grain, False),
    "mosaicml": (mosaic, False),
}


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its workers so far."""
    spent = time.process_time()
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")", 1)[1].split()
        spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def main(name: str, data: Path, length: int, batch: int, samples: int) -> None:
    """Time one system, after a tenth of the samples."""
    make, is_batched = SYSTEMS[name]
    steps = max(samples // (batch if is_batched else 1), 1)
    iterator = make(data, length, batch)
    for _ in islice(iterator, max(steps // 10, 1)):
        pass
    before, began = cpu_seconds(), time.monotonic()
    for _ in islice(iterator, steps):
        pass
    spent = cpu_seconds() - before
    count = steps * (batch if is_batched else 1)
    print(json.dumps({"us": spent / count * 1e6, "wall_s": time.monotonic() - began}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *(int(value) for value in sys.argv[3:6]))
    sys.stdout.flush()
    os._exit(0)
