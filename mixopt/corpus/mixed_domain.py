"""Make one domain of several in fixed shares, from their shards: replay.

Documents are taken from the parts in the order in which they have them, each time from the part
that is furthest behind its share, so that the shares of any long stretch, and of the whole, are
exact to a document. Each part ends its documents with its own id: the one that it states, or the
tokenizer's. Where it is not known where documents end, blocks of tokens are taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.config import MixedConfig
from mixopt.corpus.token_import import token_pieces
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
    train, held_out = (
        [TokenShards.open(corpus / part / split, verify=False) for part in mixed.domains]
        for split in ("train", "validation")
    )
    shares = _shares(mixed, train)
    whole = _whole(name, mixed, shares, train)
    own_end = None if tokenizer is None else tokenizer.end_of_document
    stated = [source.document_end for source in mixed.domains.values()]
    ends = [own_end if end is None else end for end in stated]
    texts = [None if tokenizer is None else TokenText(tokenizer, end) for end in stated]
    taken: list[int] = []
    for split, parts, tokens in (
        ("validation", held_out, _most(shares, held_out)),
        ("train", train, whole),
    ):
        taken = [0] * len(parts)
        left = [_pieces(part, end) for part, end in zip(parts, ends, strict=True)]
        kind = np.result_type(*(one.dtype for one in parts))
        with TokenWriter(corpus / name / split, dtype=kind, tokenizer=tokenizer_name) as writer:
            while (total := sum(taken)) < tokens:
                behind = [s * (total + 1) - have for s, have in zip(shares, taken, strict=True)]
                place = behind.index(max(behind))
                piece, documents = next(left[place])
                if total and total + len(piece) / 2 > tokens:
                    break
                text = texts[place]
                length = 0 if text is None else text.bytes(piece)
                writer.write(piece, documents=documents, bytes=length)
                taken[place] += len(piece)
    made = dict(zip(mixed.domains, zip(taken, train, strict=True), strict=True))
    return {
        "tokens": {part: count for part, (count, _) in made.items()},
        "epochs": {part: count / shards.tokens for part, (count, shards) in made.items()},
        "shares": {part: count / sum(taken) for part, (count, _) in made.items()},
        "whole": {
            part: {"tokens": shards.tokens, "documents": shards.documents}
            for part, (_, shards) in made.items()
        },
    }


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


def _pieces(part: TokenShards, end: int | None) -> Iterator[tuple[NDArray[Any], int]]:
    """Give a part's documents or blocks, over again when used up, and the documents in each."""
    if not part.documents or end not in part.read(0, min(_READ, part.tokens)):
        end = None  # pieces would be too long
    while True:
        starts = range(0, part.tokens, _READ)
        blocks = (part.read(start, min(start + _READ, part.tokens)) for start in starts)
        for piece in token_pieces(blocks, end, block=_BLOCK):
            yield piece, int(piece[-1] == end)
