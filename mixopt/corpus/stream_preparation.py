"""Prepare streamed domains before training: read their held-out text.

    held_out/
      index.json              tokenizer, and the digests of all documents that are held out
      <domain>/validation/    token shards (mixopt.corpus.token_shards)

Held out are the files that `validation` names, or else the first documents of a domain. They are
left out of training by content, in whatever domain they are met.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.document_stream import DocumentStream
from mixopt.corpus.documents import BadDocuments
from mixopt.corpus.domain_text import read_target
from mixopt.corpus.index_files import INDEX, STREAM_FORMAT, corpus_records
from mixopt.corpus.preparation import emptied
from mixopt.corpus.text_jobs import write_tokens
from mixopt.corpus.tokenizer import Tokenizer, open_tokenizer, plain_name
from mixopt.errors import CorpusError
from mixopt.system import Say, write_sealed


def prepare_stream(
    config: CorpusConfig,
    sources: Mapping[str, SourceConfig],
    evaluation: Mapping[str, SourceConfig],
    path: Path,
    *,
    fingerprint: str,
    min_tokens: int,
    progress: Say,
) -> None:
    """Write the held-out text of streamed domains and targets.

    Args:
        config: Tokenizer, how much is held out, and what to do with bad documents.
        sources: The domains.
        evaluation: Targets, which are not trained on.
        path: The folder; `index.json` is written last.
        fingerprint: Of the configuration, kept in the index.
        min_tokens: Least tokens to train on and held out, the length of one sequence.
        progress: Receives lines that say what was read.

    Raises:
        CorpusError: A source or tokenizer that cannot be used, or too little text.
        RunError: The folder cannot be written.
    """
    config = config.model_copy(update={"tokenizer": plain_name(config.tokenizer)})
    tokenizer = open_tokenizer(config.tokenizer)
    spools = emptied(path)
    digests = set[bytes]()
    try:
        for name, source in {**sources, **evaluation}.items():
            text = read_target(name, source, config, spools / name)
            folder = path / name / "validation"
            tokens = write_tokens(text.validation, tokenizer, folder, config.tokenizer)
            _check_held_out(name, tokens, min_tokens)
            digests.update(text.validation.digests())
            progress(f"{name}: {text.validation.documents:,} documents are held out")
        for name, source in sources.items():
            bad = BadDocuments(config.on_bad_document)
            documents = DocumentStream(name, source, bad, frozenset(digests))
            _check_training(name, documents, tokenizer, min_tokens)
        tokenizer.save(path)
    finally:
        shutil.rmtree(spools, ignore_errors=True)
    index = {
        "format": STREAM_FORMAT,
        "fingerprint": fingerprint,
        "tokenizer": config.tokenizer,
        "domains": list(sources),
        "targets": list(evaluation),
        "held_out": sorted(digest.hex() for digest in digests),
        "files": corpus_records(path, [*sources, *evaluation]),
    }
    write_sealed(path / INDEX, index)


def _check_held_out(name: str, tokens: int, least: int) -> None:
    if tokens < least:
        raise CorpusError(
            f"domain {name!r}: {tokens:,} held-out tokens, fewer than one sequence of {least:,};"
            " raise stream.max_validation_bytes, or give it more text"
        )


def _check_training(name: str, documents: Iterable[str], tokenizer: Tokenizer, least: int) -> None:
    """Read as much as one sequence takes."""
    tokens = 0
    for document in documents:
        tokens += len(tokenizer.encode([document]))
        if tokens >= least:
            return
    raise CorpusError(
        f"domain {name!r}: {tokens:,} tokens are left to train on, fewer than one sequence of"
        f" {least:,}; lower stream.max_validation_bytes, or name files of held-out documents as"
        " 'validation'"
    )
