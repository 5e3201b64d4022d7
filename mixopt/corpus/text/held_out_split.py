"""Split the documents of a domain into training and held-out ones, in one pass.

Groups of documents are ordered by a hash of their name (of their content, for a document that is
its own group) and the seed; the first groups, until they hold the wanted share of the bytes, are
held out. Which side a document falls on does not depend on the order in which documents come.
Only candidates are kept in memory, at most `max_bytes` of text: a group that is beyond the first
`max_bytes` can never be held out.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator

from mixopt.corpus.text.documents import Document
from mixopt.corpus.text.spool import Spooled

Held = tuple[Document, Spooled]


class HeldOutSplit:
    """Takes documents one by one, gives back those to train on, and keeps the held-out ones."""

    def __init__(self, fraction: float, max_bytes: int, seed: int) -> None:
        """Choose how much to hold out.

        Args:
            fraction: Share of all bytes; the group that reaches it is held out too, unless
                that gives more than twice the share and half of it is there without.
            max_bytes: At most so many, unless the first group alone has more.
            seed: Which groups come first.
        """
        self._fraction, self._max_bytes = fraction, max_bytes
        self._key = seed.to_bytes(8, "little")
        self._total = self._held = 0
        self._groups: dict[int, list[Held]] = {}
        self._sizes: dict[int, int] = {}
        self._last: list[int] = []
        self._limit = 1 << 64

    def add(self, document: Document, spooled: Spooled) -> Iterator[Held]:
        """Take a document and give those that now are for training."""
        place, size = self._place(document, spooled), len(spooled.content)
        self._total += size
        if place >= self._limit:
            yield document, spooled
            return
        if place not in self._groups:
            self._groups[place], self._sizes[place] = [], 0
            heapq.heappush(self._last, -place)
        self._groups[place].append((document, spooled))
        self._sizes[place] += size
        self._held += size
        while self._held > self._max_bytes and len(self._last) > 1:
            yield from self._drop()

    def finish(self) -> Iterator[Held]:
        """Give the remaining training documents; `kept` are then the held-out ones."""
        wanted = self._fraction * self._total
        while len(self._last) > 1 and self._is_enough_without_last(wanted):
            yield from self._drop()

    @property
    def kept(self) -> list[Held]:
        """The documents that are held out, group after group."""
        return [document for place in sorted(self._groups) for document in self._groups[place]]

    def _is_enough_without_last(self, wanted: float) -> bool:
        """Tell whether the last group can go: half will do where it would give twice too much."""
        without = self._held - self._sizes[-self._last[0]]
        return without >= (wanted / 2 if self._held > 2 * wanted else wanted)

    def _place(self, document: Document, spooled: Spooled) -> int:
        name = spooled.digest if document.group is None else document.group.encode()
        digest = hashlib.blake2b(name, digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "big")

    def _drop(self) -> list[Held]:
        """Let go of the last group in order."""
        self._limit = -heapq.heappop(self._last)
        self._held -= self._sizes.pop(self._limit)
        return self._groups.pop(self._limit)
