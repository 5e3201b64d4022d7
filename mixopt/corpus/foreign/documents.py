"""Split the tokens of a file into documents, or into blocks if document ends are unknown.

A document keeps the id that ends it. Documents do not reach from one file into the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.foreign.foreign import Foreign
from mixopt.system import IntArray

BLOCK = 4096  # tokens

_Cut = tuple[NDArray[Any], IntArray]  # some tokens, and where to cut them


def has_documents(foreign: Foreign, document_end: int | None) -> bool:
    """Tell whether it is known where documents end."""
    return foreign.ends is not None or foreign.is_sampled or document_end is not None


def pieces(foreign: Foreign, document_end: int | None) -> Iterator[NDArray[Any]]:
    """Give the documents of a file one by one, or its blocks.

    Args:
        foreign: The tokens.
        document_end: The id that ends a document, where the format does not say; a sample may have
            several documents then.
    """
    if foreign.ends is not None:
        yield from _joined(_at_ends(foreign))
    elif document_end is not None:
        yield from _joined(
            (part, np.flatnonzero(part == document_end) + 1) for part in foreign.parts()
        )
    elif foreign.is_sampled:
        yield from (part for part in foreign.parts() if len(part))
    else:
        yield from _joined(_at_blocks(foreign))


def _joined(cuts: Iterator[_Cut]) -> Iterator[NDArray[Any]]:
    """Cut parts, joining what reaches from one into the next."""
    held: list[NDArray[Any]] = []
    for part, stops in cuts:
        start = 0
        for stop in stops.tolist():
            piece = part[start:stop]
            if held:
                piece, held = np.concatenate([*held, piece]), []
            if len(piece):
                yield piece
            start = stop
        if start < len(part):
            held.append(part[start:])
    if held:
        yield np.concatenate(held)


def _at_ends(foreign: Foreign) -> Iterator[_Cut]:
    assert foreign.ends is not None, "only a format that says where documents end is cut there"
    waiting, passed = np.empty(0, np.int64), 0
    ends = foreign.ends()
    for part in foreign.parts():
        stop = passed + len(part)
        chunks = [waiting]
        while not len(chunks[-1]) or int(chunks[-1][-1]) < stop:
            more = next(ends, None)
            if more is None:
                break
            if len(more):
                chunks.append(more)
        waiting = np.concatenate(chunks)
        inside = int(np.searchsorted(waiting, stop, side="right"))
        yield part, waiting[:inside] - passed
        waiting, passed = waiting[inside:], stop


def _at_blocks(foreign: Foreign) -> Iterator[_Cut]:
    passed = 0
    for part in foreign.parts():
        first = -passed % BLOCK
        yield part, np.arange(first, len(part) + 1, BLOCK)
        passed += len(part)
