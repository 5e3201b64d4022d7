"""The token shards behind a dataset's rows: which are fetched from a store, and the cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mixopt.corpus import TokenShards
from mixopt.errors import CorpusError, SamplerError
from mixopt.loading.read_ahead import NeededShard, fetched_ahead
from mixopt.loading.row_sources import Indexable, TokenRows
from mixopt.system import IntArray

_WINDOW = 4  # shards of a domain that rows are shuffled over

Split = Callable[[IntArray], tuple[IntArray, IntArray]]


class ShardRows:
    """The rows of those domains that are token shards."""

    def __init__(self, readers: Sequence[TokenRows | Indexable], split: Split) -> None:
        """Pick the domains that are token shards.

        Args:
            readers: What the rows of each domain are read from.
            split: Gives domain and row of rows in the concatenated domains.
        """
        self._tokens = {d: rows for d, rows in enumerate(readers) if isinstance(rows, TokenRows)}
        self._split = split

    @property
    def chunks(self) -> tuple[int, int]:
        """A sampler's `chunks` with which a few shards of each domain are read at a time.

        That is the rows of the largest shard, and 4. It follows from the shards alone, so that the
        order is the same wherever the corpus is.

        Raises:
            CorpusError: No domain is token shards.
        """
        if not self._tokens:
            raise CorpusError("no domain is token shards, so there are no shards to read in turn")
        largest = max(_largest(rows.shards) // rows.length for rows in self._tokens.values())
        return max(largest, 1), _WINDOW

    def check_room(self, chunks: tuple[int, int] | None) -> None:
        """Check that this node's cache holds the shards of a store that an order reads in turn.

        Args:
            chunks: The sampler's: rows of a chunk, and chunks of a window; None for any row.

        Raises:
            SamplerError: It does not, so that shards would be fetched again and again.
        """
        stored = [rows for rows in self._tokens.values() if rows.shards.store is not None]
        cache = next((r.shards.store.cache for r in stored if r.shards.store is not None), None)
        needed = sum(_read_in_turn(rows, chunks) for rows in stored)
        if cache is None or needed <= cache.most_bytes:
            return
        mend = "" if chunks == self.chunks else f"MixtureSampler(..., chunks={self.chunks}), or "
        raise SamplerError(
            f"this order of rows jumps between {needed:,} bytes of shards in a store, but "
            f"{cache.folder} has room for {cache.most_bytes:,}: {mend}give it more: "
            f"from_corpus(..., cache_bytes={needed})"
        )

    def fetching_ahead(self, rows: Iterator[IntArray]) -> Iterator[IntArray]:
        """Yield rows as they come; shards of a store that later ones need are fetched meanwhile."""
        stored = any(one.shards.store is not None for one in self._tokens.values())
        return fetched_ahead(rows, self._needed) if stored else rows

    def _needed(self, rows_NB: IntArray) -> list[NeededShard]:
        domain, row = self._split(rows_NB.ravel())
        found = []
        for d in np.unique(domain).tolist():
            if d in self._tokens:
                found += _stored_shards(self._tokens[d], row[domain == d])
        return found


def _stored_shards(rows: TokenRows, row_B: IntArray) -> list[NeededShard]:
    shards, store = rows.shards, rows.shards.store
    if store is None:
        return []
    first_B = shards.shards_of(row_B * rows.length)
    last_B = shards.shards_of(row_B * rows.length + rows.length - 1)
    found = (shards.shards[k] for k in np.union1d(first_B, last_B).tolist())
    return [NeededShard(store, one, one.tokens * shards.dtype.itemsize) for one in found]


def _read_in_turn(rows: TokenRows, chunks: tuple[int, int] | None) -> int:
    shards, item = rows.shards, rows.shards.dtype.itemsize
    if chunks is None:
        return shards.tokens * item
    chunk, window = chunks
    windows = 2 * window * max(chunk * rows.length, _largest(shards))  # with the one after it
    return min(windows, shards.tokens) * item


def _largest(shards: TokenShards) -> int:
    return int(np.diff(shards.offsets).max(initial=0))
