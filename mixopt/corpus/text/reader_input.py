"""What the readers of documents share: whose they are, the column, and the errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mixopt.corpus.text.documents import BadDocuments
from mixopt.errors import CorpusError


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
            found = "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
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
            raise CorpusError(
                f"domain {self.domain!r}: {where}: no column {self.column!r}; set 'column' to one"
                f" of: {', '.join(sorted(names))}"
            )

    def damaged(self, path: object, error: BaseException) -> CorpusError:
        """Return the error for a file that cannot be read at all."""
        reason = " ".join(str(error).split()) or type(error).__name__
        return CorpusError(f"domain {self.domain!r}: {path}: cannot be read: {reason}")
