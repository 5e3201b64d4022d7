"""Checks over all token files of a domain: type, ids, and no change while reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.corpus.foreign import Foreign
from mixopt.corpus.token_writer import DTYPES
from mixopt.corpus.vocabulary import Vocabulary
from mixopt.errors import CorpusError


class Unchanged:
    """Files as they were when reading began."""

    def __init__(self, foreign: Sequence[Foreign]) -> None:
        """Note their sizes and time stamps."""
        self._before = {file: _stamp(file) for one in foreign for file in one.files}

    def check(self) -> None:
        """Check that no file has changed since.

        Raises:
            CorpusError: One has.
        """
        for file, before in self._before.items():
            if _stamp(file) != before:
                raise CorpusError(
                    f"{file}: changed while it was being read; wait until nothing writes to it, "
                    "and read it again"
                )


def checked(foreign: Foreign, vocabulary: Vocabulary) -> Foreign:
    """Return the same tokens, whose ids are checked as they are read."""
    return foreign._replace(parts=lambda: vocabulary.checked(foreign.path, foreign.parts()))


def shard_type(foreign: Sequence[Foreign]) -> np.dtype[Any]:
    """Return the smaller of uint16 and uint32 that holds all tokens; read them where need be."""
    for one in foreign:
        if one.dtype is None:
            is_large = any(len(part) and int(part.max()) > 0xFFFF for part in one.parts())
        else:
            is_large = one.dtype.itemsize > 2
        if is_large:
            return DTYPES["uint32"]
    return DTYPES["uint16"]


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
