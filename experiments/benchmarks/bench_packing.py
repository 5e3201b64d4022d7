"""How full packed rows are on real text, what becomes of documents, and what packing costs.

    OMP_NUM_THREADS=1 python experiments/benchmarks/bench_packing.py ../shared/data/corpus

Each folder of CORPUS is a domain of documents (`train.parquet`, column `text`), which is tokenised
and packed on its own. Best fit is compared with first fit in the order of the source, with the
concatenation that is cut, and with one document (or piece of one) a row. Fill is the share of the
rows that is tokens; a document is split where it is in more pieces than one. CPU time is of one
thread, per token: planning all rows, and reading rows in a random order, 8 at a time, with labels,
positions and numbers of documents.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mixopt import MixtureDataset, PackedDocuments
from mixopt.corpus import FastTokenizer, Tokenizer, TokenShards, TokenWriter, open_tokenizer

BATCH, ROWS_READ = 8, 4000
TRAINING_DOCUMENTS = 600  # of each domain, for the tokenizer


@dataclass
class Outcome:
    """What one way of making rows gave, over domains."""

    tokens: int = 0
    room: int = 0
    documents: int = 0
    split: int = 0
    lost: int = 0
    plan_seconds: float = 0.0
    read_seconds: float = 0.0
    tokens_read: int = 0
    fills: dict[str, float] = field(default_factory=dict)

    def add(self, domain: str, tokens: int, rows: int, length: int) -> None:
        """Count a domain's rows."""
        self.tokens += tokens
        self.room += rows * length
        self.fills[domain] = tokens / (rows * length)

    def row(self, name: str) -> str:
        """Return a line of the table."""
        domain, least = min(self.fills.items(), key=lambda one: one[1])
        read = f"{self.read_seconds / self.tokens_read * 1e9:.0f}" if self.tokens_read else ""
        plan = f"{self.plan_seconds / self.tokens * 1e9:.1f}" if self.plan_seconds else ""
        return (
            f"| {name} | {self.tokens / self.room:.2%} | {least:.2%} ({domain})"
            f" | {self.split / self.documents:.1%} | {self.lost / (self.tokens + self.lost):.1%}"
            f" | {plan} | {read} |"
        )


def seconds(act: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds that a call takes, and what it returns."""
    since = time.process_time()
    result = act()
    return time.process_time() - since, result


def documents_of(tokens: np.ndarray, end: int) -> np.ndarray:
    """Return the lengths of documents."""
    return np.diff(np.flatnonzero(tokens == end), prepend=-1)


def pieces_of(lengths: np.ndarray, length: int) -> np.ndarray:
    """Return the lengths of documents, those that are longer than a row in pieces."""
    return np.array([min(length, size - k) for size in lengths for k in range(0, size, length)])


def first_fit(sizes: np.ndarray, length: int) -> int:
    """Return how many rows first fit opens for documents in this order."""
    room = np.full(len(sizes), length)
    opened = 0
    for size in sizes.tolist():
        row = int(np.argmax(room >= size))
        room[row] -= size
        opened = max(opened, row + 1)
    return opened


def read_all(read: Callable[[np.ndarray], Any], rows: int) -> None:
    """Read some rows in a random order."""
    for some in batches(rows):
        read(some)


def batches(rows: int) -> Iterator[np.ndarray]:
    """Yield rows in a random order, some at a time."""
    order = np.random.default_rng(0).permutation(rows)[:ROWS_READ]
    for start in range(0, len(order), BATCH):
        yield order[start : start + BATCH]


def measure(shards: dict[str, TokenShards], end: int, length: int) -> dict[str, Outcome]:
    """Make rows of all domains in each way."""
    found = {
        name: Outcome()
        for name in ("best fit", "best fit, truncated", "first fit", "cut", "a document a row")
    }
    for domain, one in shards.items():
        lengths = documents_of(one.read(0, one.tokens), end)
        sizes = pieces_of(lengths, length)
        long = int((lengths > length).sum())
        for outcome in found.values():
            outcome.documents += len(lengths)
        for name, how in (("best fit", "split"), ("best fit, truncated", "truncate")):
            measure_packed(found[name], domain, one, end, length, how)
        for name, rows in (
            ("first fit", first_fit(sizes, length)),
            ("a document a row", len(sizes)),
        ):
            found[name].add(domain, one.tokens, rows, length)
            found[name].split += long
        measure_cut(found["cut"], domain, one, end, length, lengths)
    return found


def measure_packed(
    outcome: Outcome, domain: str, shards: TokenShards, end: int, length: int, long: Any
) -> None:
    """Pack a domain by best fit."""
    spent, packed = seconds(
        lambda: PackedDocuments(shards, length=length, document_end=end, long=long)
    )
    summary = packed.summary
    outcome.add(domain, summary.tokens, summary.rows, length)
    outcome.plan_seconds += spent
    outcome.split += summary.split
    outcome.lost += summary.left_out
    outcome.read_seconds += seconds(lambda: read_all(packed.read, len(packed)))[0]
    outcome.tokens_read += min(ROWS_READ, len(packed)) * length


def measure_cut(
    outcome: Outcome,
    domain: str,
    shards: TokenShards,
    end: int,
    length: int,
    lengths: np.ndarray,
) -> None:
    """Cut rows off a domain's tokens."""
    dataset = MixtureDataset({domain: shards}, length=length, document_end=end, packed=True)
    rows = len(dataset)
    stops = np.cumsum(lengths)
    outcome.add(domain, rows * length, rows, length)
    outcome.split += int(((stops - lengths) // length != (stops - 1) // length).sum())
    outcome.read_seconds += seconds(lambda: read_all(dataset.read, rows))[0]
    outcome.tokens_read += min(ROWS_READ, rows) * length


def written(texts: dict[str, list[str]], tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    """Write each domain's tokens."""
    shards = {}
    for domain, some in texts.items():
        with TokenWriter(folder / domain, dtype="uint16", tokenizer="bench") as writer:
            tokens = tokenizer.encode(some)
            writer.write(tokens, documents=len(some), bytes=sum(len(t.encode()) for t in some))
        shards[domain] = TokenShards.open(folder / domain)
    return shards


def main() -> None:
    """Print a table for each tokenizer and length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048])
    parser.add_argument("--most", type=int, help="documents of each domain")
    args = parser.parse_args()
    files = sorted(args.corpus.glob("*/train.parquet"))
    texts = {f.parent.name: pl.read_parquet(f)["text"].to_list()[: args.most] for f in files}
    learned = (text for some in texts.values() for text in some[:TRAINING_DOCUMENTS])
    tokenizers = {"bytes": open_tokenizer("bytes"), "bpe:8192": FastTokenizer.train(learned, 8192)}
    for name, tokenizer in tokenizers.items():
        with tempfile.TemporaryDirectory() as folder:
            shards = written(texts, tokenizer, Path(folder))
            total = sum(one.tokens for one in shards.values())
            for length in args.lengths:
                print(f"\n## {name}, {total / 1e6:.0f}M tokens, rows of {length}\n")
                print(
                    "| rows | fill | least filled domain | documents split | tokens left out"
                    " | planning, ns a token | reading, ns a token |\n|---|---|---|---|---|---|---|"
                )
                for way, outcome in measure(shards, tokenizer.end_of_document, length).items():
                    print(outcome.row(way), flush=True)


if __name__ == "__main__":
    main()
