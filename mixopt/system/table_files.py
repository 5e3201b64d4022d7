"""Write and read tables as Parquet that carries a seal: the SHA-256 of its own bytes.

The seal stands between the data and the footer, where readers of Parquet do not look. It is checked
before polars sees the file, since polars may end the whole process on a page that is damaged. A
table without a seal is somebody else's, and read as it is.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.errors import MixoptError, RunError
from mixopt.system.files import write_bytes

if TYPE_CHECKING:
    import polars as pl

_MARK = b"mixopt:sha256:"
_DIGITS = 64
_TAIL = 8  # the length of the footer and "PAR1"


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write a table and its seal at once; a full disk leaves the table that was there.

    Raises:
        RunError: The file cannot be written.
    """
    stream = io.BytesIO()
    table.write_parquet(stream)
    write_bytes(path, _sealed(stream.getvalue()))


def read_table(path: Path, *, mend: str = "", error: type[MixoptError] = RunError) -> pl.DataFrame:
    """Read a table; one that has a seal must be what was written.

    Args:
        path: A Parquet file.
        mend: What makes the file again, for the message.
        error: What is raised.

    Raises:
        MixoptError: `error`; the file cannot be read, or has changed.
    """
    import polars as pl

    hint = f"; {mend}" if mend else ""
    try:
        content = path.read_bytes()
        if not _is_whole(content):
            raise error(f"{path}: has changed since it was written (its sha256 differs){hint}")
        return pl.read_parquet(content)
    except FileNotFoundError as reason:
        raise error(f"{path}: not found{hint}") from reason
    except (OSError, pl.exceptions.PolarsError, MemoryError, ValueError) as reason:
        text = " ".join(str(reason).split())[:300]
        raise error(f"{path}: cannot be read: {text or type(reason).__name__}{hint}") from reason
    except pl.exceptions.PanicException as reason:
        raise error(f"{path}: cannot be read: it is damaged{hint}") from reason


def _sealed(content: bytes) -> bytes:
    """Return Parquet with its seal before the footer."""
    footer = int.from_bytes(content[-_TAIL:-4], "little") + _TAIL
    seal = _MARK + hashlib.sha256(content).hexdigest().encode()
    return content[:-footer] + seal + content[-footer:]


def _is_whole(content: bytes) -> bool:
    """Tell whether Parquet is what its seal says; true where it has none."""
    place = content.rfind(_MARK)
    if place < 0:
        return True
    end = place + len(_MARK) + _DIGITS
    found = hashlib.sha256(content[:place])
    found.update(content[end:])
    return content[place + len(_MARK) : end] == found.hexdigest().encode()
