"""A file of documents, on this disk or in a store: its name, size and text.

An object of a store is fetched to this node when it is read (mixopt.system.object_cache). Messages
name it by its URL, wherever its copy is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mixopt.corpus.text.documents import BadDocuments
from mixopt.corpus.text.file_sizes import FileSize, file_size
from mixopt.corpus.text.reader_input import Reading
from mixopt.corpus.text.readers import COMPRESSIONS, builder_of, read_file
from mixopt.errors import CorpusError
from mixopt.system import CachedObject, StoredObject, fetched, list_objects, naming

Note = Callable[[CachedObject], None]


@dataclass(frozen=True)
class TextFile:
    """A file of a source.

    Attributes:
        place: Where it is.
        builder: How it is read: json, parquet, arrow, csv or text.
    """

    place: Path | StoredObject
    builder: str

    @property
    def bytes(self) -> int:
        """Its size."""
        place = self.place
        return place.bytes if isinstance(place, StoredObject) else place.stat().st_size

    @property
    def suffix(self) -> str:
        """The last suffix of its name, in small letters."""
        return PurePosixPath(self.place.name).suffix.lower()

    @property
    def is_plain_text(self) -> bool:
        """Whether it is as long as the text in it."""
        return self.builder == "text" and self.suffix not in COMPRESSIONS

    @property
    def label(self) -> str:
        """What tells it from another content of its name."""
        if isinstance(self.place, Path):
            return f"{self.place} of {self.bytes:,} bytes"
        version = f", version {self.place.version}" if self.place.version else ""
        return f"{self.place.url} of {self.bytes:,} bytes{version}"

    def documents(self, reading: Reading, note: Note | None = None) -> Iterator[str]:
        """Give its documents, in order.

        Args:
            reading: Column and policy.
            note: Receives what an object was when it was fetched.

        Raises:
            CorpusError: It cannot be read, the column is missing, or a document is bad.
        """
        if isinstance(self.place, Path):
            yield from read_file(self.place, self.builder, reading)
            return
        with _copy_of(self.place, reading.domain, note) as path:
            bad = _OfObject(reading.bad, path, self.place.url)
            yield from read_file(path, self.builder, replace(reading, bad=bad))

    def size(self, reading: Reading, most: int, keep: Callable[[str], None]) -> FileSize:
        """Return how much text it holds, as `file_size`."""
        if isinstance(self.place, Path):
            return file_size(self.place, self.builder, reading, most, keep)
        with _copy_of(self.place, reading.domain) as path:
            return file_size(path, self.builder, reading, most, keep)


class _OfObject(BadDocuments):
    """Bad documents of a copy, told as those of the object."""

    def __init__(self, met: BadDocuments, path: Path, url: str) -> None:
        super().__init__(met.policy)
        self._met, self._path, self._url = met, str(path), url

    def met(self, message: str) -> None:
        """Tell of a bad document."""
        self._met.met(message.replace(self._path, self._url))


def objects_of(domain: str, url: str) -> list[StoredObject]:
    """Return the objects that a URL names, for a domain.

    Raises:
        CorpusError: There is none, or the store refuses.
    """
    with _of_domain(domain):
        return list_objects(url)


def builder_of_place(place: Path | StoredObject) -> str | None:
    """Return the builder that the suffix of a file or an object stands for."""
    return builder_of(Path(place.name))


@contextmanager
def _copy_of(stored: StoredObject, domain: str, note: Note | None = None) -> Iterator[Path]:
    """Give the path of an object's copy; errors about it name the object."""
    with _of_domain(domain):
        found = fetched(stored)
    if note is not None:
        note(found)
    with naming(found.path, stored.url):
        yield found.path


@contextmanager
def _of_domain(domain: str) -> Iterator[None]:
    try:
        yield
    except CorpusError as error:
        raise CorpusError(f"domain {domain!r}: {error}") from error
