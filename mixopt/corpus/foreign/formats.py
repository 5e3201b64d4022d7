"""The formats of tokens by name, with the reader of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mixopt.corpus.foreign.foreign import Foreign, Stated
from mixopt.corpus.foreign.indexed_tokens import read_datatrove, read_megatron
from mixopt.corpus.foreign.npy import read_npy, read_olmo
from mixopt.corpus.foreign.raw_tokens import read_llmc, read_raw
from mixopt.corpus.foreign.sampled_tokens import read_litdata, read_mds, read_webdataset

FORMATS: dict[str, Callable[[Path, Stated], Foreign]] = {
    "megatron": read_megatron,
    "nanogpt": read_raw,
    "raw": read_raw,
    "llmc": read_llmc,
    "npy": read_npy,
    "olmo": read_olmo,
    "datatrove": read_datatrove,
    "mds": read_mds,
    "litdata": read_litdata,
    "webdataset": read_webdataset,
}


def read_foreign(path: Path, format: str, stated: Stated) -> Foreign:
    """Open the tokens of one file, prefix or folder.

    Args:
        path: As `token_files` gives it.
        format: One of `FORMATS`.
        stated: What the caller says of the files, its type one of `TYPES`.

    Raises:
        CorpusError: The files are not of the format, or are damaged.
    """
    return FORMATS[format](path, stated)
