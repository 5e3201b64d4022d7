"""A small corpus of real text that every Python has: its own sources and its own manual."""

from __future__ import annotations

import argparse
import inspect
import tarfile
from pathlib import Path

import numpy as np

from mixopt.corpus import (
    FORMAT,
    Corpus,
    EncodedTask,
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
    """Write a corpus of bytes with two domains and one target, and open it.

    Args:
        path: An empty or absent folder.

    Returns:
        Domains `code` and `manual` with 64,000 characters each to train on and 8,000 held out,
        and the target `other_code`, which has held-out text alone; and the task `next_line`, the
        line of code that continues three others.
    """
    texts = {"code": inspect.getsource(argparse), "manual": _manual()}
    for name, text in texts.items():
        _write(path / name / "train", text[:TRAIN])
        _write(path / name / "validation", text[TRAIN : TRAIN + VALIDATION])
    other = inspect.getsource(tarfile)[TRAIN : TRAIN + VALIDATION]
    _write(path / "other_code" / "validation", other)
    write_task(_next_line(inspect.getsource(tarfile)), path)
    index = {
        "format": FORMAT,
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


def _manual() -> str:
    from pydoc_data.topics import topics

    return "".join(topics[name] for name in sorted(topics))


def _next_line(text: str) -> EncodedTask:
    """Ask for the line that follows three others."""
    lines = [line for line in text.splitlines(keepends=True) if line.strip()]
    items = [
        Item(str(number), "".join(lines[start : start + 3]), lines[start + 3])
        for number, start in enumerate(range(100, 700, 30))
    ]
    return encode_task(TASK, items, open_tokenizer("bytes"))


def _write(path: Path, text: str) -> None:
    """Write a text as documents of equal length."""
    with TokenWriter(path, dtype="uint16", tokenizer="bytes") as writer:
        for start in range(0, len(text), DOCUMENT):
            document = text[start : start + DOCUMENT].encode()
            tokens = np.array([*document, END_OF_DOCUMENT], dtype=np.uint16)
            writer.write(tokens, documents=1, bytes=len(document))
