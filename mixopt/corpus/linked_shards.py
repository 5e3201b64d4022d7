"""Write a folder of shards whose files are links to existing files.

`import_tokens` makes symbolic links, which its index names: the user opens that folder by hand. In
a run's corpus links are hard ones: a run directory is data that may come from anybody, and a
symbolic link in it would let it read files of its reader's choice whose place it knows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mixopt.corpus.foreign import Foreign
from mixopt.corpus.shard import Shard
from mixopt.corpus.token_writer import FORMAT, SHARD_TOKENS
from mixopt.errors import CorpusError
from mixopt.system import temporary_path, write_sealed

_FEW = 256  # files that are linked however small they are


class LinkedFile(NamedTuple):
    """A file that is a shard as it is."""

    file: Path
    tokens: int
    sha256: str


def can_be_linked(foreign: Sequence[Foreign]) -> bool:
    """Tell whether all files are shards of one type as they are, and not many small ones."""
    tokens = sum(one.tokens or 0 for one in foreign)
    is_small = len(foreign) > _FEW and tokens < len(foreign) * SHARD_TOKENS / 2
    kinds = {one.dtype for one in foreign}
    return len(kinds) == 1 and all(one.file is not None for one in foreign) and not is_small


def write_linked(
    out: Path,
    files: Sequence[LinkedFile],
    dtype: np.dtype[Any],
    tokenizer: str,
    *,
    documents: int,
    bytes: int = 0,
    how: Literal["symbolic", "hard", "moved"] = "symbolic",
) -> None:
    """Write the links and their index; the folder appears whole.

    Args:
        out: The folder of shards; what is there is replaced.
        files: What is linked, in order.
        dtype: uint16 or uint32.
        tokenizer: Kept in the index.
        documents: How many there are in all files.
        bytes: Length of their text in UTF-8; 0 where that is not known.
        how: Links that name their files, hard links, or the files themselves, which are then
            there and no longer here; the last two take files of the same file system.

    Raises:
        CorpusError: The folder cannot be written.
        OSError: A hard link cannot be made.
    """
    folder = temporary_path(out)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shards = [_linked(folder, place, one, how).to_json() for place, one in enumerate(files)]
        content = {
            "format": FORMAT,
            "dtype": dtype.name,
            "tokens": sum(one.tokens for one in files),
            "documents": documents,
            "bytes": bytes,
            "tokenizer": tokenizer,
            "shards": shards,
        }
        write_sealed(folder / "index.json", content)
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        if how == "hard":
            raise
        raise CorpusError(f"{out}: cannot be written: {error.strerror}") from error


def _linked(folder: Path, place: int, one: LinkedFile, how: str) -> Shard:
    name, target = f"{place:05d}.bin", one.file.resolve()
    if how == "symbolic":
        (folder / name).symlink_to(target)
    else:
        (os.link if how == "hard" else os.rename)(target, folder / name)
    return Shard(name, one.tokens, one.sha256, str(target) if how == "symbolic" else None)
