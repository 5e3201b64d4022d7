"""Streamed domains: their held-out text, prepared before training, and their documents in order.

    held_out/
      index.json              tokenizer, and the digests of all documents that are held out
      <domain>/validation/    token shards (mixopt.corpus.token_shards)

Held out are the files that `validation` names, or else the first documents of a domain.

A place is the number of a file and of a document in it, so that resuming reads one file again up
to there; a data set that `datasets` streams has a state of its own. Documents that are empty or
held out anywhere are left out, by their content, wherever they stand.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.documents import BadDocuments, Reading, content_digest
from mixopt.corpus.domain_text import read_target
from mixopt.corpus.environment import environment_documents
from mixopt.corpus.index_files import INDEX, STREAM_FORMAT, corpus_records
from mixopt.corpus.preparation import emptied
from mixopt.corpus.sources import is_local, load_rows, text_files
from mixopt.corpus.text_jobs import write_tokens
from mixopt.corpus.tokenizer import Tokenizer, open_tokenizer, plain_name
from mixopt.errors import CorpusError
from mixopt.system import Say, StateFields, write_sealed

_WHERE = "its place in the documents"
_Part = tuple[str, Callable[[], Iterator[str]]]  # what tells a file from another, and its texts


class DocumentStream:
    """One pass over the documents of a domain."""

    def __init__(
        self, domain: str, source: SourceConfig, bad: BadDocuments, held_out: frozenset[bytes]
    ) -> None:
        """Begin at the start; nothing is read yet."""
        self._texts = _texts(domain, source, Reading(domain, source.column, bad))
        self._held_out, self._most, self._bytes = held_out, source.max_bytes, 0

    def __iter__(self) -> Iterator[str]:
        """Give the documents from the present place on."""
        for text in self._texts:
            if self._most is not None and self._bytes >= self._most:
                return
            if text.strip() and content_digest(text) not in self._held_out:
                self._bytes += len(text.encode())
                yield text

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last document that was given, ready for JSON."""
        return {"bytes": self._bytes, "place": self._texts.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a place."""
        fields = StateFields(state, _WHERE, CorpusError)
        read, place = fields.whole("bytes"), fields.part("place")
        self._texts.load_state_dict(place.content)
        self._bytes = read


class _FileTexts:
    """Texts of one file after the other."""

    def __init__(self, domain: str, parts: Sequence[_Part]) -> None:
        self._domain, self._parts = domain, parts
        self._part = self._text = 0

    def __iter__(self) -> Iterator[str]:
        while self._part < len(self._parts):
            for text in islice(self._parts[self._part][1](), self._text, None):
                self._text += 1
                yield text
            self._part, self._text = self._part + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"part": self._part, "label": self._label(self._part), "text": self._text}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        fields = StateFields(state, f"domain {self._domain!r}: {_WHERE}", CorpusError)
        part, text = fields.whole("part", 0, len(self._parts)), fields.whole("text")
        before, here = fields.text("label"), self._label(part)
        if here != before:
            was = " ".join(before.split())[:200]
            raise CorpusError(
                f"domain {self._domain!r}: the run had reached {was}, and now this is {here}; "
                "bring its files back as they were, or use another --out"
            )
        self._part, self._text = part, text

    def _label(self, part: int) -> str:
        return self._parts[part][0] if part < len(self._parts) else "the end"


class _DatasetTexts:
    """Texts of a data set that has a state."""

    def __init__(self, name: str | None, rows: Any, reading: Reading) -> None:
        self._name, self._rows, self._reading = name, rows, reading
        self._row = 0

    def __iter__(self) -> Iterator[str]:
        try:
            for row in self._rows:
                self._row += 1
                self._reading.check_column(self._name, row)
                where = f"{self._name} (row {self._row})"
                text = self._reading.text(row[self._reading.column], where)
                if text is not None:
                    yield text
        except (OSError, ValueError) as error:
            raise self._reading.unreadable(self._name, error) from error

    def state_dict(self) -> dict[str, Any]:
        return {"row": self._row, "rows": self._rows.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        fields = StateFields(state, f"{self._name}: {_WHERE}", CorpusError)
        row = fields.whole("row")
        self._rows.load_state_dict(dict(fields.part("rows").content))
        self._row = row


def _texts(domain: str, source: SourceConfig, reading: Reading) -> _FileTexts | _DatasetTexts:
    name = source.environment
    if name is not None:
        return _FileTexts(domain, [(f"environment {name}", partial(_installed, name))])
    if is_local(source):
        files = text_files(domain, source)
        return _FileTexts(domain, [(one.label, partial(one.documents, reading)) for one in files])
    rows = load_rows(source, reading)
    if not hasattr(rows, "state_dict"):  # it has an index, as what was saved to disk does
        rows = rows.to_iterable_dataset()
    return _DatasetTexts(source.one_path, rows, reading)


def _installed(name: str) -> Iterator[str]:
    return (piece.text for piece in environment_documents(name))


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
    """Write the held-out text of streamed domains and targets."""
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
