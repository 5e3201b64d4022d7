"""The decompressed size of a compressed file, from its beginning.

The first frame of a .zst file often says its length; it is believed where that is near what the
beginning suggests, which it is not where other frames follow.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHUNK = 1 << 12  # compressed bytes read at once: a bomb makes 32,000 times as many of them
_NEAR = 0.25  # the beginning of a file may be compressed so much less than the rest


def expansion(path: Path, most: int) -> float:
    """Return how many bytes a compressed byte of a file becomes.

    Args:
        path: A .gz, .bz2, .xz or .zst file.
        most: Decompressed bytes to make, about.
    """
    make, suffix = _decompressor(path), path.suffix.lower()
    read = given = 0
    decoder: Any = None
    with path.open("rb") as file:
        while given < most and (content := file.read(_CHUNK)):
            read += len(content)
            while content:  # a file may have several members, one after the other
                decoder = make() if decoder is None or decoder.eof else decoder
                given += len(decoder.decompress(content))
                content = decoder.unused_data if decoder.eof else b""
                if suffix in (".gz", ".xz"):  # zeros may follow the last member
                    content = content.lstrip(b"\0")
    found = given / max(read, 1)
    said = _said(path) / max(path.stat().st_size, 1)
    return said if abs(said - found) < _NEAR * found else found


def _said(path: Path) -> int:
    """Return the length that the first frame of a .zst file says it has; 0 where it does not."""
    if path.suffix.lower() != ".zst":
        return 0
    import zstandard

    with path.open("rb") as file:
        frame = zstandard.get_frame_parameters(file.read(_CHUNK))
    known: int = frame.content_size
    return 0 if known == zstandard.CONTENTSIZE_UNKNOWN else known


def _decompressor(path: Path) -> Callable[[], Any]:
    suffix = path.suffix.lower()
    if suffix == ".zst":
        import zstandard

        return lambda: zstandard.ZstdDecompressor().decompressobj()
    makes: dict[str, Callable[[], Any]] = {
        ".gz": lambda: zlib.decompressobj(31), ".bz2": bz2.BZ2Decompressor,
        ".xz": lzma.LZMADecompressor,
    }  # fmt: skip
    return makes[suffix]
