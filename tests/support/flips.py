"""A file in which a single bit has changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random


def flips(path: Path, step: int = 0, count: int = 0, seed: object = 0) -> Iterator[int]:
    """Change one bit of a file after the other, every `step`-th or `count` drawn ones.

    Yields:
        The bit that has changed now; all others are as they were, at the end that too.
    """
    whole = path.read_bytes()
    every = range(8 * len(whole))
    bits: Iterable[int] = every[::step] if step else Random(repr(seed)).sample(every, count)
    for bit in bits:
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        yield bit
    path.write_bytes(whole)
