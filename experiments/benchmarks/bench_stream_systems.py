"""CPU time of a sample that is read, tokenised and packed from a stream, ours and others'.

python experiments/benchmarks/bench_stream_systems.py             # prints a table
python experiments/benchmarks/bench_stream_systems.py mixopt hf   # of some systems
uv run --with litdata python experiments/benchmarks/bench_stream_systems.py

Three domains of JSON lines (random words, 8 shards each, 400 words a document) are tokenised to
bytes with an end of document, packed into rows of 1,024 and mixed .5/.3/.2. `mixopt` and `hf` read
them by `datasets`; `hf` packs Arrow tables, the quickest format of `datasets`, drops what fills no
row at the end of each table, and does not shuffle; `hf-shuffled` shuffles rows in a buffer, as
`mixopt` does. `litdata` reads its own chunks of the same text, shuffled, and runs where it is
installed.

Each system is a process of its own, with 0 and with 2 worker processes; CPU time is that of the
process and its workers, starting included. `resume` is CPU time from a state to the first batch
after the state was taken half way, and `exact` whether the rows that then come are those of the run
that was not disturbed, or what the system says where it cannot go on.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sampler_systems import cpu_seconds

WEIGHTS = {"web": 0.5, "code": 0.3, "books": 0.2}
LENGTH, BATCH, BATCHES, AFTER = 1024, 32, 80, 20
BUFFER, ROWS = 160, 1200  # documents of a domain shuffled together, and as many rows of all
SHARDS, DOCUMENTS, WORDS = 8, 250, 400


def write(folder: Path) -> None:
    """Write the domains as JSON lines."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=k % 8 + 2)) for k in range(5000)]
    for name, shard in itertools.product(WEIGHTS, range(SHARDS)):
        with (folder / f"{name}-{shard}.jsonl").open("w") as stream:
            for _ in range(DOCUMENTS):
                stream.write(json.dumps({"text": " ".join(draw.choices(words, k=WORDS))}) + "\n")


def tokens_of(document: Any) -> np.ndarray:
    """Return the bytes of a document and its end."""
    return np.frombuffer(document["text"].encode() + b"\0", np.uint8).astype(np.int64)


def streamed(folder: Path, name: str) -> Any:
    """Return a domain as a streaming data set."""
    from datasets import load_dataset

    files = sorted(map(str, folder.glob(f"{name}-*.jsonl")))
    return load_dataset("json", data_files=files, split="train", streaming=True)


def mixopt(folder: Path, workers: int) -> Any:
    """MixtureStream."""
    from mixopt import MixtureStream

    sources = {name: streamed(folder, name) for name in WEIGHTS}
    form = {"length": LENGTH, "tokenize": tokens_of, "buffer": BUFFER}
    return MixtureStream(sources, WEIGHTS, batch_size=BATCH, workers=workers, **form)


def hugging_face(folder: Path, workers: int, *, shuffled: bool = False) -> Any:
    """Pack datasets' tables with map, mix them with interleave_datasets."""
    from datasets import interleave_datasets
    from torchdata.stateful_dataloader import StatefulDataLoader

    parts = [
        streamed(folder, name)
        .with_format("arrow")
        .map(_packed_table, batched=True, batch_size=100, remove_columns=["text"])
        for name in WEIGHTS
    ]
    mixed = interleave_datasets(
        parts, list(WEIGHTS.values()), seed=0, stopping_strategy="all_exhausted"
    )
    if shuffled:
        mixed = mixed.shuffle(seed=0, buffer_size=ROWS)
    rows = mixed.with_format("arrow")
    return StatefulDataLoader(rows, BATCH, num_workers=workers, collate_fn=_rows_of_tables)


def _packed_table(texts: pa.Table) -> pa.Table:
    """Return the rows of a table of documents; what is left at its end is dropped."""
    tokens = np.concatenate([tokens_of({"text": text}) for text in texts["text"].to_pylist()])
    whole = len(tokens) // LENGTH * LENGTH
    rows = pa.FixedSizeListArray.from_arrays(pa.array(tokens[:whole]), LENGTH)
    return pa.table({"input_ids": rows})


def _rows_of_tables(tables: list[pa.Table]) -> dict[str, np.ndarray]:
    """Return a batch of tables of a row each."""
    chunks = [chunk for table in tables for chunk in table["input_ids"].chunks]
    return {"input_ids": np.stack([chunk.flatten().to_numpy() for chunk in chunks])}


def litdata(folder: Path, workers: int) -> Any:
    """Mix litdata's streams of text, each tokenised and packed as it is read."""
    from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset
    from litdata.streaming.cache import Cache

    parts = []
    for name in WEIGHTS:
        chunks = folder / f"lit-{name}"
        if not chunks.exists():
            cache = Cache(str(chunks), chunk_bytes=1 << 20)
            files = sorted(folder.glob(f"{name}-*.jsonl"))
            lines = (line for file in files for line in file.read_text().splitlines())
            for number, line in enumerate(lines):
                cache[number] = {"text": json.loads(line)["text"]}
            cache.done()
            cache.merge()
        parts.append(StreamingDataset(str(chunks), shuffle=True, seed=0))
    weights = list(WEIGHTS.values())
    mixed = CombinedStreamingDataset(parts, weights=weights, seed=0, iterate_over_all=False)
    loader = StreamingDataLoader(
        mixed, batch_size=BATCH, num_workers=workers, collate_fn=_tokens_of_all
    )
    return _Packed(loader)


def _tokens_of_all(documents: list[Any]) -> np.ndarray:
    return np.concatenate([tokens_of(document) for document in documents])


class _Packed:
    """Rows that are cut off documents in the order in which they come."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._left = np.empty(0, np.int64)

    def __iter__(self) -> Iterator[Any]:
        size = BATCH * LENGTH
        read = iter(self._loader)
        while True:
            while len(self._left) < size:
                self._left = np.concatenate([self._left, next(read)])
            rows, self._left = self._left[:size].reshape(BATCH, LENGTH), self._left[size:]
            yield {"input_ids": rows}

    def state_dict(self) -> Any:
        return {"loader": self._loader.state_dict(), "left": self._left}

    def load_state_dict(self, state: Any) -> None:
        self._loader.load_state_dict(state["loader"])
        self._left = state["left"]


SYSTEMS = {
    "mixopt": mixopt,
    "hf": hugging_face,
    "hf-shuffled": partial(hugging_face, shuffled=True),
    "litdata": litdata,
}


def measure(name: str, folder: Path, workers: int) -> dict[str, Any]:
    """Read batches, then go on from a state that was taken half way."""
    loader = SYSTEMS[name](folder, workers)
    iterator, rows, state, began = iter(loader), [], None, cpu_seconds()
    for batch in range(BATCHES):
        if batch == BATCHES // 2:
            state = loader.state_dict()
        rows.append(np.asarray(next(iterator)["input_ids"]))
    spent = (cpu_seconds() - began) / (BATCHES * BATCH)
    del iterator
    expected = rows[BATCHES // 2 : BATCHES // 2 + AFTER]
    return {"us": spent * 1e6, **resumed(SYSTEMS[name](folder, workers), state, expected)}


def resumed(loader: Any, state: Any, expected: list[np.ndarray]) -> dict[str, Any]:
    """Go on from a state, and compare with the run that was not disturbed."""
    began = time.process_time()
    try:
        loader.load_state_dict(state)
        iterator = iter(loader)
        after = [np.asarray(next(iterator)["input_ids"])]
        spent = cpu_seconds() - began
        after += [np.asarray(next(iterator)["input_ids"]) for _ in expected[1:]]
    except Exception as error:  # of a system: what it cannot go on from is an answer
        return {"resume": "", "exact": f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"}
    exact = all(np.array_equal(a, b) for a, b in zip(after, expected, strict=True))
    return {"resume": f"{spent * 1e3:.0f}", "exact": "yes" if exact else "no"}


def main(names: list[str]) -> None:
    """Print a row for each system and number of workers."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        print(
            "| system | workers | CPU us a sample | resume, CPU ms | exact |\n|---|---|---|---|---|"
        )
        for name, workers in itertools.product(names, (0, 2)):
            command = [sys.executable, __file__, "--one", name, folder, str(workers)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"| {name} | {workers} | {done.stderr.strip().splitlines()[-1][:90]} | | |")
                continue
            one = json.loads(done.stdout.splitlines()[-1])
            print(f"| {name} | {workers} | {one['us']:.0f} | {one['resume']} | {one['exact']} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))), flush=True)
    else:
        main(sys.argv[1:] or list(SYSTEMS))
