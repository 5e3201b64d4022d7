"""A small corpus of real text that every Python has: its own sources and its own manual."""

from __future__ import annotations

import argparse
import inspect
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mixopt.corpus import Corpus, Domain
from mixopt.tokens import TokenShards, TokenWriter

END_OF_DOCUMENT = 256
DOCUMENT = 2_000  # characters
TRAIN, VALIDATION = 64_000, 8_000


def tiny_corpus(path: Path) -> Corpus:
    """Write a corpus of bytes with two domains and one target, and open it.

    Args:
        path: An empty or absent folder.

    Returns:
        Domains `code` and `manual` with 64,000 bytes each to train on and 8,000 held out, and
        the target `other_code`, which has held-out text alone.
    """
    code = inspect.getsource(argparse) + inspect.getsource(inspect)
    other = inspect.getsource(tarfile)[:VALIDATION]
    domains = tuple(_domain(path / n, n, t) for n, t in (("code", code), ("manual", _manual())))
    target = Domain("other_code", None, _shards(path / "other_code" / "validation", other))
    return Corpus(
        path=path,
        domains=domains,
        targets=(target,),
        tokenizer="bytes",
        vocab_size=END_OF_DOCUMENT + 1,
        fingerprint="tiny",
        provenance={},
    )


def _manual() -> str:
    from pydoc_data.topics import topics

    return "".join(topics[name] for name in sorted(topics))


def _domain(path: Path, name: str, text: str) -> Domain:
    train = _shards(path / "train", text[:TRAIN])
    return Domain(name, train, _shards(path / "validation", text[TRAIN : TRAIN + VALIDATION]))


def _shards(path: Path, text: str) -> TokenShards:
    documents = [text[start : start + DOCUMENT] for start in range(0, len(text), DOCUMENT)]
    with TokenWriter(path, dtype="uint16", tokenizer="bytes") as writer:
        _write(writer, [document.encode() for document in documents])
    return TokenShards.open(path)


def _write(writer: TokenWriter, documents: Sequence[bytes]) -> None:
    for document in documents:
        tokens = [*document, END_OF_DOCUMENT]
        writer.write(np.array(tokens, dtype=np.uint16), documents=1, bytes=len(document))
