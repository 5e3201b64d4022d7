"""Shards in a store, of which this node caches the most recently read.

    <cache>/shards/<SHA-256>

A shard is fetched whole when a row of it is read, or ahead of that, and hashed when it comes. Its
place in the cache is the hash that its index says, so that corpora share what they have in common.
A store that does not answer is asked again, after longer and longer waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mixopt.corpus.shard import Shard
from mixopt.errors import ShardError
from mixopt.system import ContentCache, file_hash, join_url, list_objects, read_object

ATTEMPTS = 5  # with waits of .5, 1, 2 and 4 seconds between them
_PUBLISH_AGAIN = "publish the corpus again: mixopt tokens publish RUN URL"


@dataclass(frozen=True)
class ShardStore:
    """The shards of one folder of a store.

    Attributes:
        url: Where they are.
        cache: Where copies of them are on this node.
    """

    url: str
    cache: ContentCache

    def url_of(self, shard: Shard) -> str:
        """Return where a shard is."""
        return join_url(self.url, shard.file)

    def open(self, shard: Shard, size: int) -> int:
        """Return a descriptor of a shard's copy, fetched unless it is here; the caller closes it.

        Args:
            shard: The shard.
            size: Its bytes.

        Raises:
            ShardError: The store has none, another one, or does not answer.
            RunError: The cache cannot be written, or has no room for it.
        """
        return self.cache.open(shard.sha256, size, partial(self._fetch, shard, size))

    def has(self, shard: Shard) -> bool:
        """Tell whether a shard's copy is here."""
        return self.cache.has(shard.sha256)

    def bring(self, shard: Shard, size: int) -> None:
        """Fetch a shard unless it is here; arguments and errors are those of `open`."""
        self.cache.bring(shard.sha256, size, partial(self._fetch, shard, size))

    def _fetch(self, shard: Shard, size: int, path: Path) -> None:
        url = self.url_of(shard)
        (stored,) = list_objects(url, ShardError, attempts=ATTEMPTS)
        if stored.bytes != size:
            what = "truncated" if stored.bytes < size else "altered"
            raise ShardError(
                f"{url}: {what}: {stored.bytes} bytes, but its index has {size}; {_PUBLISH_AGAIN}"
            )
        read_object(stored, path, ShardError, attempts=ATTEMPTS)
        if file_hash(path) != shard.sha256:
            raise ShardError(
                f"{url}: altered: SHA-256 is not {shard.sha256[:12]}…, the one in its index; "
                f"{_PUBLISH_AGAIN}"
            )
