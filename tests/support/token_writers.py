"""Token files in the layouts of nanoGPT and Megatron-LM, in numpy, and shards.

nanoGPT's are integers alone. Megatron's index is written here for what its own
writer does not do: a magic number or a type that is wrong.
"""

import struct
from unittest.mock import patch

import numpy as np

from mixopt.corpus import CORPUS_FORMAT, TokenShards, TokenWriter, token_shards
from mixopt.system import write_sealed


def write_nanogpt(path, documents):
    np.concatenate(documents).astype("<u2").tofile(path)


def write_megatron(
    prefix, documents, dtype="<u2", *, code=8, magic=b"MMIDIDX\0\0", version=1, bounds=None
):
    np.array([t for document in documents for t in document], dtype).tofile(
        prefix.with_suffix(".bin")
    )
    lengths = np.array([len(d) for d in documents], "<i4")
    pointers = np.concatenate([[0], np.cumsum(lengths[:-1])]) * np.dtype(dtype).itemsize
    with prefix.with_suffix(".idx").open("wb") as index:
        bounds = range(len(lengths) + 1) if bounds is None else bounds
        index.write(magic + struct.pack("<QBQQ", version, code, len(lengths), len(bounds)))
        index.write(lengths.tobytes() + pointers.astype("<i8").tobytes())
        index.write(np.array(bounds, "<i8").tobytes())


def write_shards(path, tokens, *, dtype="uint16", shard_tokens=1 << 20):
    size = patch.object(token_shards, "SHARD_TOKENS", shard_tokens)
    with size, TokenWriter(path, dtype=dtype, tokenizer="t") as writer:
        writer.write(np.asarray(tokens, dtype), documents=1, bytes=1)
    return TokenShards.open(path)


def write_index(folder, names):
    """Make a corpus of the shards of these domains, with nothing to evaluate on."""
    lists = {"domains": list(names), "targets": [], "tasks": []}
    write_sealed(folder / "index.json", {"format": CORPUS_FORMAT, **lists})
