"""Token files as the tools that own their formats write them, where that is a few lines of numpy.

nanoGPT's and llm.c's lines are theirs (data/openwebtext/prepare.py; dev/data/data_common.py), as is
OLMo-core's (a numpy.memmap of a stated type). Megatron's index is written here for what its own
writer does not do: a version, type or length that is wrong.
"""

from __future__ import annotations

import struct

import numpy as np


def write_nanogpt(path, documents):
    arr_len = sum(map(len, documents))
    arr = np.memmap(path, dtype=np.uint16, mode="w+", shape=(arr_len,))
    idx = 0
    for arr_batch in documents:
        arr[idx : idx + len(arr_batch)] = arr_batch
        idx += len(arr_batch)
    arr.flush()


def write_llmc(path, toks, model_desc="gpt-2"):
    magic, version, token_dtype = {
        "gpt-2": (20240520, 1, np.uint16),
        "llama-3": (20240801, 7, np.uint32),
    }[model_desc]
    header = np.zeros(256, dtype=np.int32)
    header[0] = magic
    header[1] = version
    header[2] = len(toks)
    toks_np = np.array(toks, dtype=token_dtype)
    with open(path, "wb") as f:
        f.write(header.tobytes())
        f.write(toks_np.tobytes())


def write_olmo(path, tokens, dtype=np.uint16):
    mmap = np.memmap(path, mode="w+", dtype=dtype, shape=(len(tokens),))
    mmap[:] = tokens
    mmap.flush()


def write_megatron(prefix, documents, dtype="<u2", *, code=8, version=1, magic=b"MMIDIDX\0\0"):
    np.array([t for document in documents for t in document], dtype).tofile(
        prefix.with_suffix(".bin")
    )
    lengths = np.array([len(d) for d in documents], "<i4")
    pointers = np.concatenate([[0], np.cumsum(lengths[:-1])]) * np.dtype(dtype).itemsize
    with prefix.with_suffix(".idx").open("wb") as index:
        index.write(magic + struct.pack("<QBQQ", version, code, len(lengths), len(lengths) + 1))
        index.write(lengths.tobytes() + pointers.astype("<i8").tobytes())
        index.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())
