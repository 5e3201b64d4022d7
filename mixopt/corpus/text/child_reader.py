"""Read files with libraries in C in a child process, so that a file they die of is named.

What a child sends is a document, or the message of a bad one, in the order in which they were met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from mixopt.corpus.text.documents import BadDocuments
from mixopt.corpus.text.reader_input import Reading
from mixopt.errors import CorpusError
from mixopt.system import in_child

_TEXT, _BAD = b"t", b"b"


class _Met(BadDocuments):
    """Bad documents that were met and not yet sent."""

    def __init__(self, policy: Literal["error", "skip"]) -> None:
        super().__init__(policy)
        self.messages: list[str] = []

    def met(self, message: str) -> None:
        """Raise the message, or keep it for who counts them."""
        super().met(message)
        self.messages.append(message)


def read_in_child(
    function: str, where: object, arguments: Mapping[str, Any], reading: Reading
) -> Iterator[str]:
    """Give the documents of a file that another process reads.

    Args:
        function: What reads it there: a generator of `sent`, as `package.module:name`.
        where: The file, for the message where the process dies of it.
        arguments: The function's own, besides domain, column and policy.
        reading: Whose documents they are, the column, and what becomes of bad ones.

    Raises:
        CorpusError: The file is damaged, the column is missing, or a document is bad.
    """
    try:
        for item in in_child(function, {**arguments, **_given(reading)}, died=_DeathError):
            if item[:1] == _TEXT:
                yield item[1:].decode()
            else:
                reading.bad.met(item[1:].decode())
    except _DeathError as death:
        reading.lost(where, f"the reader {death}")


def sent(
    read: Callable[[Reading], Iterator[str]], domain: str, column: str, policy: Any
) -> Iterator[bytes]:
    """Read documents in the child, and give what is sent to the parent."""
    bad = _Met(policy)
    for text in read(Reading(domain, column, bad)):
        yield from _messages(bad)
        yield _TEXT + text.encode()
    yield from _messages(bad)


class _DeathError(CorpusError):
    """The child died; the message is how."""


def _given(reading: Reading) -> dict[str, str]:
    return {"domain": reading.domain, "column": reading.column, "policy": reading.bad.policy}


def _messages(bad: _Met) -> Iterator[bytes]:
    for message in bad.messages:
        yield _BAD + message.encode("utf-8", errors="replace")
    bad.messages.clear()
