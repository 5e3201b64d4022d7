"""A document, duplicate detection, and checks of its text.

Two documents are the same when their text is, after runs of white space became one space.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mixopt.errors import CorpusError


class Document(NamedTuple):
    """Text, and the group that must stay on one side of a split (itself if omitted)."""

    text: str
    group: str | None = None


def content_digest(text: str) -> bytes:
    """Return 16 bytes that are equal for texts that differ in white space only."""
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


@dataclass
class BadDocuments:
    """What becomes of documents that cannot be read: an error, or a count.

    Attributes:
        policy: `error` raises at the first, `skip` counts them.
        count: How many were skipped.
        first: What was wrong with the first.
    """

    policy: Literal["error", "skip"] = "error"
    count: int = 0
    first: str | None = field(default=None)

    def met(self, message: str) -> None:
        """Raise the message, or count it.

        Raises:
            CorpusError: The policy is `error`.
        """
        if self.policy == "error":
            raise CorpusError(f"{message}; fix it, or set on_bad_document: skip")
        self.count += 1
        self.first = self.first or message
