"""The documents of a domain from the rows of its files: check columns and text, count bad rows."""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from mixopt.config import SourceConfig
from mixopt.errors import CorpusError, MixoptError
from mixopt.system import PlainMapping, first_few, one_line

MAX_COLUMNS = 20  # names listed in a message

BadPolicy = Literal["error", "skip"]
Values = PlainMapping


class Document(NamedTuple):
    """Text, and the group that must stay on one side of a split (itself if omitted)."""

    text: str
    group: str | None = None


class Row(NamedTuple):
    """A row: its place, and its values by column, or the reason that it is unreadable."""

    where: str
    values: Values | None
    fault: str = ""


class ReaderContext:
    """Turns rows into the documents of a domain; skips and counts unreadable ones, or raises."""

    def __init__(self, domain: str, source: SourceConfig, on_bad: BadPolicy = "error") -> None:
        """Store the text column and the cell values of a source."""
        self.domain = domain
        self.column = source.column
        self.cell = source.cell
        self.bad = 0
        self.first_bad = ""
        self._on_bad = on_bad

    @property
    def columns(self) -> list[str]:
        """Columns to read: the text, and those that select the rows of the domain."""
        return [self.column, *self.cell]

    def documents(self, rows: Iterable[Row], name: object) -> Iterator[str]:
        """Yield the documents of a file or data set, in order."""
        try:
            for row in rows:
                try:
                    text = self._text(row)
                except _RowError as error:
                    self._add_bad(f"domain {self.domain!r}: {row.where}: {error}")
                    continue
                if text is not None:
                    yield text
        except MixoptError:
            raise
        except Exception as error:  # libraries raise any type on a damaged file
            if isinstance(error, OSError) and error.errno is not None:
                raise self.unreadable(name, error) from error
            self._add_bad(str(self.unreadable(name, error)))

    def check_columns(self, where: object, columns: Iterable[str]) -> None:
        """Check that the columns of the text and of the cell exist."""
        names = list(map(str, columns))
        for name in self.cell.keys() - set(names):
            raise CorpusError(f"domain {self.domain!r}: {where}: by: no column {name!r}")
        if self.column not in names:
            listed = [name[:80] for name in sorted(map(_printable, names))]
            raise CorpusError(
                f"domain {self.domain!r}: {where}: no column {self.column!r}; set"
                f" 'column' to one of: {first_few(listed, MAX_COLUMNS)}"
            )

    def unreadable(self, where: object, error: BaseException) -> CorpusError:
        """Return the error for a source that cannot be read completely."""
        return CorpusError(f"domain {self.domain!r}: {where}: {unreadable_text(error)}")

    def _add_bad(self, message: str) -> None:
        if self._on_bad == "error":
            raise CorpusError(f"{message}; fix it, or set on_bad_document: skip")
        self.bad += 1
        self.first_bad = self.first_bad or message

    def _text(self, row: Row) -> str | None:
        """Return the text of a row; None: the row belongs to another domain."""
        values = row.values
        if values is None:
            raise _RowError(row.fault)
        for name, expected in self.cell.items():
            value = values.get(name)
            if value is None or not str(value).strip():
                raise _RowError(f"column {name!r} has no value, so its domain is unknown")
            if str(value) != expected:
                return None
        value = values.get(self.column)
        if not isinstance(value, str):
            if self.column not in values:
                raise _RowError(f"no column {self.column!r}")
            kind = "null" if value is None else type(value).__name__
            number = f" '{value}'" if isinstance(value, (int, float)) else ""
            raise _RowError(f"column {self.column!r} is {kind}{number}, not text")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _RowError(f"invalid UTF-8 at character {error.start + 1}") from error
        return value


class _RowError(Exception):
    """A row that is not a document; its text is the reason."""


def unreadable_text(error: BaseException) -> str:
    """Return why a file or data set cannot be read, in one line."""
    return f"cannot be read: {one_line(error)}"


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)
