"""Write and read tables as Parquet that carries a seal: the SHA-256 of its own bytes.

A table without a seal is somebody else's: it is decoded in another process, which may die of it.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.errors import MixoptError, RunError
from mixopt.system.checked_reading import read_bytes
from mixopt.system.files import write_bytes
from mixopt.system.process_pool import in_processes

if TYPE_CHECKING:
    import polars as pl

_MARK = b"mixopt:sha256:"
_DIGITS = 64
_TAIL = 8  # the length of the footer and "PAR1"
LARGEST_TABLE = 1 << 31  # bytes


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write a table and its seal at once; a full disk leaves the table that was there."""
    stream = io.BytesIO()
    table.write_parquet(stream)
    write_bytes(path, _sealed(stream.getvalue()))


def read_table(path: Path, *, mend: str = "", error: type[MixoptError] = RunError) -> pl.DataFrame:
    """Read a table; one that has a seal must be what was written."""
    import polars as pl

    hint = f"; {mend}" if mend else ""
    content = read_bytes(
        path, largest=LARGEST_TABLE, error=error, missing=lambda: error(f"{path}: not found{hint}")
    )
    try:
        whole = _is_whole(content)
        if whole is False:
            raise error(f"{path}: has changed since it was written (its sha256 differs){hint}")
        return pl.read_parquet(content) if whole else _foreign(path, error, hint)
    except (OSError, pl.exceptions.PolarsError, MemoryError, ValueError) as reason:
        text = " ".join(str(reason).split())[:300]
        raise error(f"{path}: cannot be read: {text or type(reason).__name__}{hint}") from reason


def _foreign(path: Path, error: type[MixoptError], hint: str) -> pl.DataFrame:
    """Decode somebody else's table in another process."""
    import polars as pl

    damaged = error(f"{path}: cannot be read: it is damaged{hint}")
    (content,) = in_processes(_decoded, [path], 1, died=lambda _: damaged)
    if isinstance(content, str):
        raise error(f"{path}: cannot be read: {content}{hint}")
    return pl.read_ipc(io.BytesIO(content))


def _decoded(path: Path) -> bytes | str:
    """Return a table as Arrow's bytes, or why it cannot be read."""
    import os

    import polars as pl

    stream = io.BytesIO()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a panic of polars prints
    try:
        pl.read_parquet(path.read_bytes()).write_ipc(stream)
    except pl.exceptions.PanicException:  # no Exception of Python's
        return "it is damaged"
    except (OSError, pl.exceptions.PolarsError, ValueError) as reason:
        return " ".join(str(reason).split())[:300]
    return stream.getvalue()


def _sealed(content: bytes) -> bytes:
    """Return Parquet with its seal before the footer."""
    footer = int.from_bytes(content[-_TAIL:-4], "little") + _TAIL
    seal = _MARK + hashlib.sha256(content).hexdigest().encode()
    return content[:-footer] + seal + content[-footer:]


def _is_whole(content: bytes) -> bool | None:
    """Tell whether Parquet is what its seal says; None where it has none."""
    place = content.rfind(_MARK)
    if place < 0:
        return None
    end = place + len(_MARK) + _DIGITS
    found = hashlib.sha256(content[:place])
    found.update(content[end:])
    return content[place + len(_MARK) : end] == found.hexdigest().encode()
