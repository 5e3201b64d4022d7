"""Documents: when two are the same, what becomes of bad ones, and which are held out.

Two documents are the same when their text is, after runs of white space became one space.

Held out are the first groups in an order by a hash of their name (of their content, for a document
that is its own group) and the seed, until they hold the wanted share of the bytes. Which side a
document falls on does not depend on the order in which documents come. Only candidates are kept in
memory, at most `max_bytes` of text: a group beyond the first `max_bytes` can never be held out.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mixopt.errors import CorpusError

_MAX_COLUMNS = 20  # names that a message lists


class Document(NamedTuple):
    """Text, and the group that must stay on one side of a split (itself if omitted)."""

    text: str
    group: str | None = None


class Spooled(NamedTuple):
    """A document as it is kept on disk: its digest, and its content in UTF-8 (or as tokens)."""

    digest: bytes
    content: bytes


def content_digest(text: str) -> bytes:
    """Return 16 bytes that are equal for texts that differ in white space only."""
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


@dataclass
class BadDocuments:
    """What becomes of documents that cannot be read: an error, or a count."""

    policy: Literal["error", "skip"] = "error"
    count: int = 0
    first: str | None = field(default=None)

    def met(self, message: str) -> None:
        """Raise the message, or count it."""
        if self.policy == "error":
            raise CorpusError(f"{message}; fix it, or set on_bad_document: skip")
        self.count += 1
        self.first = self.first or message


@dataclass(frozen=True)
class Reading:
    """What readers need to know beside the file."""

    domain: str
    column: str
    bad: BadDocuments
    copy: tuple[str, str] | None = None

    def text(self, value: object, where: str) -> str | None:
        """Return the text of a value, None for a bad document."""
        if not isinstance(value, str):
            shown = "null" if value is None else f"{type(value).__name__}{_shown(value)}"
            return self.is_bad(where, f"column {self.column!r} is {shown}, not text")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return self.is_bad(where, f"invalid UTF-8 at character {error.start + 1}")
        return value

    def is_bad(self, where: object, what: str) -> str | None:
        """Raise or count a bad document, or the rest of a file; what stands for it is None."""
        self.bad.met(f"domain {self.domain!r}: {self._named(where)}: {what}")
        return None

    def check_column(self, where: object, columns: Iterable[str]) -> None:
        """Check that the column of the text is there."""
        names = list(columns)
        if self.column not in names:
            shown = sorted(name if name.isprintable() else repr(name) for name in map(str, names))
            more = f" and {len(shown) - _MAX_COLUMNS} more" if len(shown) > _MAX_COLUMNS else ""
            raise CorpusError(
                f"domain {self.domain!r}: {self._named(where)}: no column {self.column!r}; set"
                f" 'column' to one of: {', '.join(n[:80] for n in shown[:_MAX_COLUMNS])}{more}"
            )

    def unreadable(self, where: object, error: BaseException) -> CorpusError:
        """Return the error for a source that cannot be read at all."""
        return CorpusError(f"domain {self.domain!r}: {self._named(where)}: {_reason(error)}")

    def damaged(self, where: object, error: BaseException) -> None:
        """Raise or count the rest of a file that is damaged."""
        if isinstance(error, OSError) and error.errno is not None:
            raise self.unreadable(where, error) from error
        try:
            self.is_bad(where, _reason(error))
        except CorpusError as refused:
            raise refused from error

    def _named(self, where: object) -> str:
        return str(where) if self.copy is None else str(where).replace(*self.copy)


def _reason(error: BaseException) -> str:
    return f"cannot be read: {' '.join(str(error).split())[:300] or type(error).__name__}"


def _shown(value: object) -> str:
    """Return the beginning of a value, and nothing where it cannot be shown."""
    try:
        return f" {str(value)[:40]!r}"
    except (RecursionError, ValueError, MemoryError):  # a deep nest, an endless number
        return ""


class HeldOutSplit:
    """Takes documents one by one, gives back those to train on, and keeps the held-out ones."""

    def __init__(self, fraction: float, max_bytes: int, seed: int) -> None:
        """Choose how much to hold out."""
        self._fraction, self._max_bytes = fraction, max_bytes
        self._key = seed.to_bytes(8, "little")
        self._total = self._held = 0
        self._groups: dict[int, list[Spooled]] = {}
        self._sizes: dict[int, int] = {}
        self._last: list[int] = []
        self._limit = 1 << 64

    def add(self, document: Document, spooled: Spooled) -> Iterator[Spooled]:
        """Take a document and give those that now are for training."""
        place, size = self._place(document, spooled), len(spooled.content)
        self._total += size
        if place >= self._limit:
            yield spooled
            return
        if place not in self._groups:
            self._groups[place], self._sizes[place] = [], 0
            heapq.heappush(self._last, -place)
        self._groups[place].append(spooled)
        self._sizes[place] += size
        self._held += size
        while self._held > self._max_bytes and len(self._last) > 1:
            yield from self._drop()

    def finish(self) -> Iterator[Spooled]:
        """Give the remaining training documents; `kept` are then the held-out ones."""
        wanted = self._fraction * self._total
        while len(self._last) > 1 and self._is_enough_without_last(wanted):
            yield from self._drop()

    @property
    def kept(self) -> list[Spooled]:
        """The documents that are held out, group after group."""
        return [one for place in sorted(self._groups) for one in self._groups[place]]

    def _is_enough_without_last(self, wanted: float) -> bool:
        """Tell whether the last group can go: half will do where it would give twice too much."""
        without = self._held - self._sizes[-self._last[0]]
        return without >= (wanted / 2 if self._held > 2 * wanted else wanted)

    def _place(self, document: Document, spooled: Spooled) -> int:
        name = spooled.digest if document.group is None else document.group.encode()
        digest = hashlib.blake2b(name, digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "big")

    def _drop(self) -> list[Spooled]:
        """Let go of the last group in order."""
        self._limit = -heapq.heappop(self._last)
        self._held -= self._sizes.pop(self._limit)
        return self._groups.pop(self._limit)
