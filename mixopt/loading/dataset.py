"""MixtureDataset: the domains one after the other, as a map-style dataset.

Its rows are what MixtureSampler yields. Over token shards it reads whole batches from mapped
files; over any other map-style dataset it hands out that dataset's samples. torch is not imported.

Shapes: B rows, L tokens of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mixopt.corpus import ShardStore, TokenShards, read_domain_names, stored_shards
from mixopt.errors import CorpusError
from mixopt.loading.collate import Batch, TokenSamples
from mixopt.loading.field_names import field_names
from mixopt.loading.packing import cumulative_lengths, documents_of
from mixopt.loading.read_ahead import NeededShard, check_room, fetched_ahead
from mixopt.loading.row_sources import TokenRows, read_samples, token_rows
from mixopt.loading.token_span import TokenReader
from mixopt.system import IntArray, is_url


class MixtureDataset:
    """Samples of all domains; each says of which domain and row it is."""

    def __init__(
        self,
        sources: Mapping[str, Any],
        *,
        length: int | None = None,
        document_end: int | None = None,
    ) -> None:
        """Put the domains one after the other.

        Args:
            sources: For each domain token shards, or a dataset with a length and an index.
            length: Tokens of a row of token shards.
            document_end: The tokenizer's end-of-document id, for batches of token shards that
                say which document each token is of (`document`) and where documents begin
                (`cu_seqlens`).

        Raises:
            CorpusError: A domain that has no length and index, or token shards without `length`.
        """
        if not sources:
            raise CorpusError("a dataset needs at least one domain")
        self.length = length
        self.document_end = document_end
        self._sources = {name: token_rows(name, s, length) for name, s in sources.items()}
        self._readers = list(self._sources.values())
        self._offsets = np.array([0, *accumulate(self.sizes.values())], np.int64)
        self.is_tokens = all(isinstance(reader, TokenRows) for reader in self._readers)

    @classmethod
    def from_corpus(
        cls,
        path: str | Path,
        *,
        length: int,
        split: str = "train",
        verify: bool = True,
        document_end: int | None = None,
        cache_bytes: int | None = None,
    ) -> MixtureDataset:
        """Open the domains of a prepared corpus.

        Args:
            path: The folder that `mixopt prepare` wrote, or the URL that `mixopt tokens publish`
                wrote to, from which shards are fetched when rows of them are read.
            length: Tokens of a row.
            split: `train` or `validation`.
            verify: Compare the hash of every shard, once a node; of a store, each is compared when
                it is fetched.
            document_end: As in the constructor.
            cache_bytes: What shards of stores may take on this node; None for half of what the disk
                has for them.

        Raises:
            CorpusError: There is no corpus.
            ShardError: A shard is absent, truncated or altered since it was indexed.
        """
        if is_url(path):
            stored = stored_shards(str(path), split, cache_bytes)
            return cls(stored, length=length, document_end=document_end)
        folder = Path(path)
        names = read_domain_names(folder)
        shards = {n: TokenShards.open(folder / n / split, verify=verify) for n in names}
        return cls(shards, length=length, document_end=document_end)

    def __getstate__(self) -> dict[str, Any]:
        """Send paths to another process, not mapped tokens."""
        return {name: value for name, value in vars(self).items() if name != "_tokens"}

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in order."""
        return tuple(self._sources)

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each domain."""
        return {
            name: source.rows if isinstance(source, TokenRows) else len(source)
            for name, source in self._sources.items()
        }

    @cached_property
    def fields(self) -> dict[str, str]:
        """By what name batches have `domain`, `row` and what else mixopt adds.

        That is the name itself, or `mixopt_` before it where a source has a column of that name.
        """
        return field_names(r for r in self._readers if not isinstance(r, TokenRows))

    def __len__(self) -> int:
        """Count the rows of all domains."""
        return int(self._offsets[-1])

    def __getitem__(self, row: int) -> Batch:
        """Return one sample with `domain` and `row` (`fields` has their names)."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> Sequence[Batch]:
        """Return samples in the order of `rows`, for a collate function to put together."""
        if self.is_tokens:
            return TokenSamples(self.read(rows))
        return self._samples(np.asarray(rows, np.int64))

    def _samples(self, rows: IntArray) -> list[Batch]:
        domain, row = self._split(rows)
        order, bounds = _by_domain(domain)
        samples: list[Batch] = [{} for _ in order]
        of_domain, of_row = self.fields["domain"], self.fields["row"]
        for d, start, stop in bounds:
            places = order[start:stop]
            read = read_samples(self._readers[d], row[places].tolist())
            for k, sample in zip(places.tolist(), read, strict=True):
                named = sample if isinstance(sample, Mapping) else {"sample": sample}
                if of_domain in named or of_row in named:
                    raise CorpusError(
                        f"domain {self.domains[d]!r}, row {int(row[k])}: has a column"
                        f" {of_domain if of_domain in named else of_row!r}, which the domain's"
                        " first row has not; give all its rows the same columns"
                    )
                samples[k] = {**named, of_domain: d, of_row: int(row[k])}
        return samples

    def collated(self, rows: IntArray, collate: Callable[[Sequence[Any]], Batch]) -> Batch:
        """Read rows and put them together; `domain` and `row` are there whatever `collate` keeps.

        Args:
            rows: Rows in the concatenated domains, shape (B,).
            collate: Puts samples together.

        Returns:
            What `collate` returned, with `domain` and `row`, shape (B,).

        Raises:
            CorpusError: It returned no fields.
        """
        batch = collate(self.__getitems__(rows.tolist()))
        if not isinstance(batch, Mapping):
            raise CorpusError(f"collate returned a {type(batch).__name__}; it is to return fields")
        domain, row = self._split(rows)
        return {**batch, self.fields["domain"]: domain, self.fields["row"]: row}

    def read(self, rows: ArrayLike) -> Batch:
        """Read rows of token shards as one batch.

        Args:
            rows: Rows in the concatenated domains, shape (B,).

        Returns:
            `input_ids` of shape (B, L), in the type they are stored in; `domain` and `row` of
            shape (B,); with `document_end` also `document`, shape (B, L), and `cu_seqlens`.

        Raises:
            CorpusError: The domains are not token shards.
        """
        return next(self.read_many(np.asarray(rows, np.int64)[None]))

    def read_many(self, rows_NB: IntArray) -> Iterator[Batch]:
        """Read N batches, which is quicker than one by one; yields what `read` returns of each."""
        if not self.is_tokens:
            raise CorpusError("only domains of token shards can be read as one batch")
        domain_NB, row_NB = self._split(rows_NB)
        read = self._tokens.read_many(domain_NB, row_NB)
        for tokens, domain, row in zip(read, domain_NB, row_NB, strict=True):
            batch = {"input_ids": tokens, "domain": domain, "row": row}
            yield batch if self.document_end is None else self._with_documents(batch)

    @property
    def shard_chunks(self) -> tuple[int, int]:
        """A sampler's `chunks` with which a few shards of each domain are read at a time.

        That is the rows of the largest shard, and 4: for stores, and disks that are slow to seek.

        Raises:
            CorpusError: The domains are not token shards.
        """
        largest = max(int(np.diff(shards.offsets).max(initial=0)) for shards in self._all_shards())
        return max(largest // (self.length or 1), 1), 4

    def check_room(self, chunks: tuple[int, int] | None) -> None:
        """Check that this node's cache holds the shards of a store that an order reads in turn.

        Args:
            chunks: The sampler's: rows of a chunk, and chunks of a window; None for any row.

        Raises:
            SamplerError: Shards would be fetched again and again.
        """
        if self._store is not None:
            shards, cache = list(self._all_shards()), self._store.cache
            check_room(shards, cache, chunks, self.length or 1, self.shard_chunks)

    def fetching_ahead(self, rows: Iterator[IntArray]) -> Iterator[IntArray]:
        """Yield rows as they come; shards of a store that later ones need are fetched meanwhile."""
        return rows if self._store is None else fetched_ahead(rows, self._needed)

    @property
    def _store(self) -> ShardStore | None:
        found = (s.shards.store for s in self._readers if isinstance(s, TokenRows))
        return next((store for store in found if store is not None), None)

    def _all_shards(self) -> Iterator[TokenShards]:
        if not self.is_tokens:
            raise CorpusError("only domains of token shards have shards")
        return (s.shards for s in self._readers if isinstance(s, TokenRows))

    def _needed(self, rows_NB: IntArray) -> list[NeededShard]:
        domain, row = self._split(rows_NB.ravel())
        needed = []
        for d in np.unique(domain).tolist():
            rows = self._readers[d]
            if isinstance(rows, TokenRows) and rows.shards.store is not None:
                needed += rows.needed(row[domain == d], rows.shards.store)
        return needed

    @property
    def itemsize(self) -> int:
        """Bytes of a token."""
        return self._tokens.dtype.itemsize

    def _with_documents(self, batch: Batch) -> Batch:
        batch["document"] = documents_of(batch["input_ids"], self.document_end)
        batch["cu_seqlens"] = cumulative_lengths(batch["document"])
        return batch

    def _split(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        domain = np.searchsorted(self._offsets, rows, side="right") - 1
        return domain, rows - self._offsets[domain]

    @cached_property
    def _tokens(self) -> TokenReader:
        return TokenReader([s for s in self._sources.values() if isinstance(s, TokenRows)])


def _by_domain(
    domain_B: IntArray,
) -> tuple[IntArray, list[tuple[int, int, int]]]:
    """Return places sorted by domain, and the number and bounds of each domain that occurs."""
    order = np.argsort(domain_B.astype(np.uint16), kind="stable")
    counts = np.bincount(domain_B)
    stops = np.cumsum(counts)
    here = np.flatnonzero(counts)
    return order, [(int(d), int(stops[d] - counts[d]), int(stops[d])) for d in here]
