"""Fetch shards of a store before the batches that need them are read.

Rows are known long before they are read: they are a few numbers a batch. While a batch waits for
its shards, those of the batches behind it are under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from mixopt.corpus import Shard, ShardStore
from mixopt.system import IntArray

_AT_ONCE = 4  # shards that are fetched at the same time
_FARTHEST = 1024  # chunks of rows that are looked at before they are read
_FASTER = 4  # chunks that are looked at for each one that is read, until that many are


class NeededShard(NamedTuple):
    """A shard that rows are in."""

    store: ShardStore
    shard: Shard
    size: int


def fetched_ahead(
    rows: Iterator[IntArray], needed: Callable[[IntArray], list[NeededShard]]
) -> Iterator[IntArray]:
    """Yield rows in order once the shards that they are in are here.

    Args:
        rows: Rows of some batches at a time.
        needed: Gives the shards that rows are in.

    Raises:
        ShardError: A shard cannot be fetched.
        RunError: The cache cannot be written, or has no room.
    """
    pool = ThreadPoolExecutor(_AT_ONCE)
    ahead = _ShardQueue(rows, needed, pool)
    try:
        while (chunk := ahead.next()) is not None:
            yield chunk
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _ShardQueue:
    """Rows that were looked at, each with the shards that it waits for."""

    def __init__(
        self,
        rows: Iterator[IntArray],
        needed: Callable[[IntArray], list[NeededShard]],
        pool: ThreadPoolExecutor,
    ) -> None:
        self._rows = rows
        self._needed = needed
        self._pool = pool
        self._queue: deque[tuple[IntArray, list[NeededShard]]] = deque()
        self._coming: dict[str, Future[None]] = {}
        self._held: dict[str, int] = {}  # how many chunks in the queue need a shard
        self._bytes = 0  # of all these shards
        self._seen: tuple[IntArray, list[NeededShard]] | None = None  # what did not fit yet

    def next(self) -> IntArray | None:
        for _ in range(_FASTER):
            if len(self._queue) < _FARTHEST:
                self._look_ahead()
        if not self._queue:
            return None
        chunk, needed = self._queue.popleft()
        for one in needed:
            coming = self._coming.get(one.shard.sha256)
            if coming is not None:
                coming.result()
        for one in needed:
            self._release(one)
        return chunk

    def _look_ahead(self) -> None:
        """Look at the next rows, unless what they need would not fit beside what is needed before.

        They are looked at again when more was read.
        """
        if self._seen is None:
            chunk = next(self._rows, None)
            if chunk is None:
                return
            self._seen = chunk, self._needed(chunk)
        new = [one for one in self._seen[1] if one.shard.sha256 not in self._held]
        more = sum(one.size for one in new)
        if self._queue and new and self._bytes + more > new[0].store.cache.most_bytes:
            return
        self._bytes += more
        for one in self._seen[1]:
            self._held[one.shard.sha256] = self._held.get(one.shard.sha256, 0) + 1
        self._bring([one for one in new if not one.store.has(one.shard)])
        self._queue.append(self._seen)
        self._seen = None

    def _bring(self, absent: list[NeededShard]) -> None:
        if absent:  # room is made of what was not asked for longest
            for key in self._held:
                absent[0].store.cache.touch(key)
        for one in absent:
            fetch = self._pool.submit(one.store.bring, one.shard, one.size)
            self._coming[one.shard.sha256] = fetch

    def _release(self, one: NeededShard) -> None:
        key = one.shard.sha256
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
            self._coming.pop(key, None)
            self._bytes -= one.size
