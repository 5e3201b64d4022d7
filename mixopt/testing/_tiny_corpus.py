"""A small corpus of text that every Python ships: its own sources and manual."""

import argparse
import inspect
import tarfile
from pathlib import Path

import numpy as np

from mixopt.corpus import (
    CORPUS_FORMAT,
    Corpus,
    Item,
    TokenWriter,
    encode_task,
    open_tokenizer,
    write_task,
)
from mixopt.system import write_sealed

END_OF_DOCUMENT = 256
DOCUMENT = 2_000  # characters
TRAIN, VALIDATION = 64_000, 8_000
TASK = "next_line"


def tiny_corpus(path: Path) -> Corpus:
    """Write and open a corpus of bytes with two domains, a target and a task.

    Args:
        path: Folder to write; created if missing.
    """
    from pydoc_data.topics import topics

    manual = "".join(topics[name] for name in sorted(topics))
    texts = {"code": inspect.getsource(argparse), "manual": manual}
    tar = inspect.getsource(tarfile)
    for name, text in texts.items():
        _write(path / name / "train", text[:TRAIN])
        _write(path / name / "validation", text[TRAIN : TRAIN + VALIDATION])
    _write(path / "other_code" / "validation", tar[TRAIN : TRAIN + VALIDATION])
    lines = [line for line in tar.splitlines(keepends=True) if line.strip()]
    items = [
        Item(str(number), "".join(lines[start : start + 3]), lines[start + 3])
        for number, start in enumerate(range(100, 700, 30))
    ]
    write_task(encode_task(TASK, items, open_tokenizer("bytes")), path)
    index = {
        "format": CORPUS_FORMAT,
        "domains": list(texts),
        "targets": ["other_code"],
        "tasks": [TASK],
        "tokenizer": "bytes",
        "vocab_size": END_OF_DOCUMENT + 1,
        "fingerprint": "tiny",
        "provenance": {},
        "files": {},
    }
    write_sealed(path / "index.json", index)
    return Corpus.open(path)


def _write(path: Path, text: str) -> None:
    """Write a text as documents of equal length."""
    with TokenWriter(path, dtype="uint16", tokenizer="bytes") as writer:
        for start in range(0, len(text), DOCUMENT):
            document = text[start : start + DOCUMENT].encode()
            tokens = np.array([*document, END_OF_DOCUMENT], dtype=np.uint16)
            writer.write(tokens, documents=1, bytes=len(document))
