"""Make one domain of several in fixed shares, from their shards: replay.

Documents are taken from the parts in the order in which they have them, each time from the part
that is furthest behind its share, so that the shares of any long stretch, and of the whole, are
exact to a document. Each part ends its documents with its own id: the one that it states, or the
tokenizer's. Where it is not known where documents end, blocks of tokens are taken.

Shapes: P parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.config import MixedConfig, SourceConfig
from mixopt.corpus.token_shards import TokenShards
from mixopt.corpus.token_writer import TokenWriter
from mixopt.corpus.tokenizer import Tokenizer
from mixopt.corpus.vocabulary import TokenText
from mixopt.errors import CorpusError

_READ = 1 << 20  # tokens at once
_BLOCK = 1024  # tokens of a piece, where there are no documents


def write_mixed(
    name: str, mixed: MixedConfig, corpus: Path, tokenizer: Tokenizer | None, tokenizer_name: str
) -> dict[str, Any]:
    """Write the shards of a mixed domain from those of its parts.

    Returns:
        Training tokens of each part, how often it is repeated, its share of all, and the size of
        the whole part, for the index of the corpus.
    """
    parts = {split: _opened(mixed, corpus, split) for split in ("train", "validation")}
    shares = _shares(mixed, parts["train"])
    whole = _whole(name, mixed, shares, parts["train"])
    ends = [_end(source, tokenizer) for source in mixed.domains.values()]
    texts = [
        None if tokenizer is None else TokenText(tokenizer, source.document_end)
        for source in mixed.domains.values()
    ]
    taken: dict[str, list[int]] = {}
    for split, shards in parts.items():
        tokens = whole if split == "train" else _most(shares, shards)
        kind = np.result_type(*(one.dtype for one in shards))
        with TokenWriter(corpus / name / split, dtype=kind, tokenizer=tokenizer_name) as writer:
            taken[split] = _write(writer, shards, shares, tokens, ends, texts)
    made, here = dict(zip(mixed.domains, taken["train"], strict=True)), parts["train"]
    pairs = zip(made.items(), here, strict=True)
    return {
        "tokens": made,
        "epochs": {part: count / shards.tokens for (part, count), shards in pairs},
        "shares": {part: count / sum(made.values()) for part, count in made.items()},
        "whole": {
            part: {"tokens": shards.tokens, "documents": shards.documents}
            for part, shards in zip(made, here, strict=True)
        },
    }


def _end(source: SourceConfig, tokenizer: Tokenizer | None) -> int | None:
    """Return the id that ends the documents of a part."""
    own = None if tokenizer is None else tokenizer.end_of_document
    return own if source.document_end is None else source.document_end


def _opened(mixed: MixedConfig, corpus: Path, split: str) -> list[TokenShards]:
    return [TokenShards.open(corpus / part / split, verify=False) for part in mixed.domains]


def _shares(mixed: MixedConfig, parts: Sequence[TokenShards]) -> list[float]:
    """Return the share of each part: as given, or by what each has."""
    if mixed.shares is not None:
        return list(mixed.shares.values())
    stated = [source.tokens for source in mixed.domains.values()]
    sizes = [part.tokens for part in parts] if None in stated else [s or 0 for s in stated]
    return [size / sum(sizes) for size in sizes]


def _most(shares: Sequence[float], parts: Sequence[TokenShards]) -> int:
    """Return how many tokens there are with these shares, none of the parts repeated."""
    pairs = zip(shares, parts, strict=True)
    return math.floor(min(part.tokens / share for share, part in pairs if share > 0))


def _whole(
    name: str, mixed: MixedConfig, shares: Sequence[float], parts: Sequence[TokenShards]
) -> int:
    """Return how many training tokens to write."""
    if mixed.tokens is None:
        return _most(shares, parts)
    for part, share, shards in zip(mixed.domains, shares, parts, strict=True):
        epochs = share * mixed.tokens / shards.tokens
        if epochs > mixed.max_epochs * (1 + 1e-9):
            most = math.floor(mixed.max_epochs * shards.tokens / share)
            raise CorpusError(
                f"domain {name!r}: a share of {share:.4g} of {part!r} in {mixed.tokens:,} tokens"
                f" takes {epochs:.3g} epochs of its {shards.tokens:,} tokens, and mixed.max_epochs"
                f" is {mixed.max_epochs:g}: lower mixed.tokens to {most:,}, or allow max_epochs:"
                f" {math.ceil(epochs)}"
            )
    return mixed.tokens


def _write(
    writer: TokenWriter,
    parts: Sequence[TokenShards],
    shares: Sequence[float],
    tokens: int,
    ends: Sequence[int | None],
    texts: Sequence[TokenText | None],
) -> list[int]:
    """Write pieces until there are so many tokens; return how many are of each part."""
    taken = [0] * len(parts)
    left = [_repeated(part, end) for part, end in zip(parts, ends, strict=True)]
    while (total := sum(taken)) < tokens:
        behind = [share * (total + 1) - have for share, have in zip(shares, taken, strict=True)]
        place = behind.index(max(behind))
        piece, documents = next(left[place])
        if total and total + len(piece) / 2 > tokens:
            break
        text = texts[place]
        length = 0 if text is None else text.bytes(piece)
        writer.write(piece, documents=documents, bytes=length)
        taken[place] += len(piece)
    return taken


def _repeated(part: TokenShards, end: int | None) -> Iterator[tuple[NDArray[Any], int]]:
    """Give the pieces of a part, over again when they are used up, and the documents in each."""
    while True:
        yield from _pieces(part, end)


def _pieces(part: TokenShards, end: int | None) -> Iterator[tuple[NDArray[Any], int]]:
    if end is None or not _has_end(part, end):
        for start in range(0, part.tokens, _BLOCK):
            yield part.read(start, min(start + _BLOCK, part.tokens)), 0
        return
    rest: list[NDArray[Any]] = []
    for start in range(0, part.tokens, _READ):
        block = part.read(start, min(start + _READ, part.tokens))
        stops = np.flatnonzero(block == end) + 1
        *whole, last = np.split(block, stops)
        for document in whole:
            yield np.concatenate([*rest, document]), 1
            rest = []
        rest.append(last)
    last = np.concatenate(rest) if rest else np.empty(0, part.dtype)
    if len(last):
        yield last, 0


def _has_end(part: TokenShards, end: int) -> bool:
    """Return whether a document ends in what is read at first; else pieces would be too long."""
    return bool(part.documents) and bool(np.any(part.read(0, min(_READ, part.tokens)) == end))
