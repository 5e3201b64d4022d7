"""The text of a streaming run: held-out text, and training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus import (
    BadDocuments,
    DocumentStream,
    Domain,
    NamedDomains,
    Tokenizer,
    TokenShards,
    prepare_stream,
    read_stream_index,
    saved_tokenizer,
)
from mixopt.errors import CorpusError
from mixopt.loading import DomainRows, FormedRows, cut
from mixopt.mixture import Mixture
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.stream_config import StreamConfig
from mixopt.pretraining.text.rows_ahead import RowsAhead
from mixopt.system import Say

HELD_OUT = "held_out"
BATCHES_AHEAD = 2  # as many rows of each domain are kept ready


@dataclass(frozen=True)
class StreamedText(NamedDomains):
    """Domains that are read while the run trains, and their held-out text on disk.

    Attributes:
        domains: Those to train on; `train` is None.
        targets: Those that are only evaluated.
        tokenizer: Makes the tokens.
        held_out: Digests of documents that are not trained on.
        inventory: Available tokens of each domain, where they are known.
    """

    domains: tuple[Domain, ...]
    targets: tuple[Domain, ...]
    tokenizer: Tokenizer
    held_out: frozenset[bytes]
    inventory: dict[str, int] | None

    @classmethod
    def open(cls, stream: StreamConfig, out: Path) -> StreamedText:
        """Open what `prepare_streams` wrote.

        Raises:
            RunError: There is nothing, or it is damaged.
            ShardError: A shard of it is absent or damaged.
        """
        path = out / HELD_OUT
        index = read_stream_index(path)
        return cls(
            domains=tuple(_domain(path, name) for name in index.domains),
            targets=tuple(_domain(path, name) for name in index.targets),
            tokenizer=saved_tokenizer(path, index.tokenizer),
            held_out=index.held_out,
            inventory=stream.tokens(),
        )

    @property
    def natural(self) -> Mixture | None:
        """Each domain's share of the tokens, where they are known."""
        return None if self.inventory is None else Mixture.natural(self.inventory)

    @property
    def vocab_size(self) -> int:
        """Ids of the tokenizer."""
        return self.tokenizer.vocab_size


@dataclass(frozen=True)
class CutText:
    """Tokenises a block of documents at once and cuts rows off their concatenation.

    Attributes:
        tokenizer: Ends each document with an end-of-document id.
        length: Tokens of a row.
    """

    tokenizer: Tokenizer
    length: int

    def rows(self, documents: Sequence[str], left: NDArray[Any]) -> FormedRows:
        """Make rows of the tokens left over before and of documents."""
        packed, rest = cut([self.tokens(documents)], self.length, left)
        ended = np.count_nonzero(rest == self.tokenizer.end_of_document)
        return FormedRows(list(packed.tokens_RL), rest, int(ended))

    def tokens(self, documents: Sequence[str]) -> NDArray[Any]:
        """Return the tokens of documents, one after the other."""
        return self.tokenizer.encode(documents)


def prepare_streams(config: PretrainConfig, stream: StreamConfig, out: Path, say: Say) -> None:
    """Read what is held out, unless it is there.

    Raises:
        CorpusError: A source or the tokenizer cannot be used, or has too little text.
    """
    path = out / HELD_OUT
    fingerprint = config.corpus_fingerprint
    if _is_there(path, fingerprint):
        return
    prepare_stream(
        stream.as_corpus(),
        stream.sources(),
        {name: source.under(stream.root) for name, source in config.evaluation.items()},
        path,
        fingerprint=fingerprint,
        min_tokens=config.row_length,
        progress=lambda line: say(f"prepare: {line}"),
    )


def _is_there(path: Path, fingerprint: str) -> bool:
    try:
        return read_stream_index(path).fingerprint == fingerprint
    except CorpusError:  # there is none, or it is damaged: it is made
        return False


def rows_of(
    text: StreamedText, stream: StreamConfig, config: PretrainConfig
) -> dict[str, RowsAhead]:
    """Return the rows of each domain in one order for all ranks; nothing is read yet."""
    form = CutText(text.tokenizer, config.row_length)
    bad = BadDocuments(stream.on_bad_document)
    rows = {
        name: DomainRows(
            name,
            partial(DocumentStream, name, source, bad, text.held_out),
            form,
            seed=config.seed,
            buffer=stream.buffer,
        )
        for name, source in stream.sources().items()
    }
    ahead = BATCHES_AHEAD * config.training.batch
    return {name: RowsAhead(one, ahead) for name, one in rows.items()}


def _domain(path: Path, name: str) -> Domain:
    return Domain(name, None, TokenShards.open(path / name / "validation", verify=False))
