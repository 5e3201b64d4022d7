"""Shared input of the document readers: domain, column, and errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mixopt.corpus.text.documents import BadDocuments
from mixopt.errors import CorpusError

_COLUMNS = 20  # names that a message lists


@dataclass(frozen=True)
class Reading:
    """What the readers need to know beside the file.

    Attributes:
        domain: Whose documents they are, for messages.
        column: Where the text is.
        bad: What to do with a document that cannot be read.
    """

    domain: str
    column: str
    bad: BadDocuments

    def text(self, value: object, where: str) -> str | None:
        """Return the text of a value, None for a bad document."""
        if not isinstance(value, str):
            found = "null" if value is None else f"{type(value).__name__}{_shown(value)}"
            return self.is_bad(where, f"column {self.column!r} is {found}, not text")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return self.is_bad(where, f"invalid UTF-8 at character {error.start + 1}")
        return value

    def is_bad(self, where: str, what: str) -> str | None:
        """Raise or count a bad document; what stands for it is None."""
        self.bad.met(f"domain {self.domain!r}: {where}: {what}")
        return None

    def check_column(self, where: object, columns: Iterable[str]) -> None:
        """Raise the error for a column that is not among those there are."""
        names = list(columns)
        if self.column not in names:
            shown = sorted(name if name.isprintable() else repr(name) for name in map(str, names))
            more = f" and {len(shown) - _COLUMNS} more" if len(shown) > _COLUMNS else ""
            raise CorpusError(
                f"domain {self.domain!r}: {where}: no column {self.column!r}; set 'column' to one"
                f" of: {', '.join(name[:80] for name in shown[:_COLUMNS])}{more}"
            )

    def lost(self, where: object, what: str) -> None:
        """Raise or count the rest of a file, which cannot be read; it counts as one document."""
        self.is_bad(str(where), what)

    def unreadable(self, path: object, error: BaseException) -> CorpusError:
        """Return the error for a source that cannot be read at all."""
        return CorpusError(f"domain {self.domain!r}: {path}: {_reason(error)}")

    def damaged(self, path: object, error: BaseException) -> None:
        """Raise or count the rest of a file that is damaged.

        Raises:
            CorpusError: Bad documents are errors, or it is the system that cannot read the file.
        """
        if isinstance(error, OSError) and error.errno is not None:
            raise self.unreadable(path, error) from error
        try:
            self.lost(path, _reason(error))
        except CorpusError as refused:
            raise refused from error


def _reason(error: BaseException) -> str:
    return f"cannot be read: {' '.join(str(error).split())[:300] or type(error).__name__}"


def _shown(value: object) -> str:
    """Return the beginning of a value, and nothing where it cannot be shown."""
    try:
        return f" {str(value)[:40]!r}"
    except (RecursionError, ValueError, MemoryError):  # a deep nest, an endless number
        return ""
