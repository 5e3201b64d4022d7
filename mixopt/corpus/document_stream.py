"""The documents of one domain as a stream that resumes from a place in it.

A place is the number of a file and of a document in it, so that resuming reads one file again up
to there; a data set that `datasets` streams has a state of its own. Documents that are empty or
held out anywhere are left out, by their content, wherever they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from mixopt.config import SourceConfig
from mixopt.corpus.documents import BadDocuments, Reading, content_digest
from mixopt.corpus.environment import environment_documents
from mixopt.corpus.sources import is_local, load_rows, text_files
from mixopt.errors import CorpusError
from mixopt.system import StateFields

_WHERE = "its place in the documents"
_Part = tuple[str, Callable[[], Iterator[str]]]  # what tells a file from another, and its texts


class DocumentStream:
    """One pass over the documents of a domain."""

    def __init__(
        self, domain: str, source: SourceConfig, bad: BadDocuments, held_out: frozenset[bytes]
    ) -> None:
        """Begin at the start; nothing is read yet.

        Args:
            domain: Whose documents they are, for messages.
            source: Where they are; `max_bytes` ends the pass.
            bad: What to do with a document that cannot be read.
            held_out: Digests of documents that are left out.

        Raises:
            CorpusError: Files or a data set that are not there.
        """
        self._texts = _texts(domain, source, Reading(domain, source.column, bad))
        self._held_out, self._most, self._bytes = held_out, source.max_bytes, 0

    def __iter__(self) -> Iterator[str]:
        """Give the documents from the present place on.

        Raises:
            CorpusError: A file or data set is damaged or has no such column.
        """
        for text in self._texts:
            if self._most is not None and self._bytes >= self._most:
                return
            if text.strip() and content_digest(text) not in self._held_out:
                self._bytes += len(text.encode())
                yield text

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last document that was given, ready for JSON."""
        return {"bytes": self._bytes, "place": self._texts.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a place.

        Raises:
            CorpusError: The files are not those that the place is in, or a field cannot be right.
        """
        fields = StateFields(state, _WHERE, CorpusError)
        read, place = fields.whole("bytes"), fields.part("place")
        self._texts.load_state_dict(place.content)
        self._bytes = read


class _FileTexts:
    """Texts of one file after the other."""

    def __init__(self, domain: str, parts: Sequence[_Part]) -> None:
        self._domain, self._parts = domain, parts
        self._part = self._text = 0

    def __iter__(self) -> Iterator[str]:
        while self._part < len(self._parts):
            for text in islice(self._parts[self._part][1](), self._text, None):
                self._text += 1
                yield text
            self._part, self._text = self._part + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"part": self._part, "label": self._label(self._part), "text": self._text}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        fields = StateFields(state, f"domain {self._domain!r}: {_WHERE}", CorpusError)
        part, text = fields.whole("part", 0, len(self._parts)), fields.whole("text")
        before, here = fields.text("label"), self._label(part)
        if here != before:
            was = " ".join(before.split())[:200]
            raise CorpusError(
                f"domain {self._domain!r}: the run had reached {was}, and now this is {here}; "
                "bring its files back as they were, or use another --out"
            )
        self._part, self._text = part, text

    def _label(self, part: int) -> str:
        return self._parts[part][0] if part < len(self._parts) else "the end"


class _DatasetTexts:
    """Texts of a data set that has a state."""

    def __init__(self, name: str | None, rows: Any, reading: Reading) -> None:
        self._name, self._rows, self._reading = name, rows, reading
        self._row = 0

    def __iter__(self) -> Iterator[str]:
        try:
            for row in self._rows:
                self._row += 1
                self._reading.check_column(self._name, row)
                where = f"{self._name} (row {self._row})"
                text = self._reading.text(row[self._reading.column], where)
                if text is not None:
                    yield text
        except (OSError, ValueError) as error:
            raise self._reading.unreadable(self._name, error) from error

    def state_dict(self) -> dict[str, Any]:
        return {"row": self._row, "rows": self._rows.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        fields = StateFields(state, f"{self._name}: {_WHERE}", CorpusError)
        row = fields.whole("row")
        self._rows.load_state_dict(dict(fields.part("rows").content))
        self._row = row


def _texts(domain: str, source: SourceConfig, reading: Reading) -> _FileTexts | _DatasetTexts:
    name = source.environment
    if name is not None:
        return _FileTexts(domain, [(f"environment {name}", partial(_installed, name))])
    if is_local(source):
        files = text_files(domain, source)
        return _FileTexts(domain, [(one.label, partial(one.documents, reading)) for one in files])
    rows = load_rows(source, reading)
    if not hasattr(rows, "state_dict"):  # it has an index, as what was saved to disk does
        rows = rows.to_iterable_dataset()
    return _DatasetTexts(source.one_path, rows, reading)


def _installed(name: str) -> Iterator[str]:
    return (piece.text for piece in environment_documents(name))
