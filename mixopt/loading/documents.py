"""Documents that are packed: those of token shards, and samples of any map-style dataset.

Each source can be looked at once from the first to the last, for lengths, and then pieces be read
from anywhere. Token shards are read a few megabytes at a time; lengths of a `datasets.Dataset`
without labels and masks come from the offsets of its Arrow columns, without its tokens.

Labels are the tokens that carry loss, -100 elsewhere, not shifted, as in transformers. A mask of
TRL's says the same by zeros and ones; a token that an attention mask leaves out is padding of the
source's own and is dropped.

Shapes: P pieces, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixopt.corpus import TokenShards
from mixopt.errors import CorpusError
from mixopt.loading.packing import NO_LOSS, best_fit, cut, row_samples
from mixopt.loading.sources import (
    ATTENTION,
    LABELS,
    LOSS_MASKS,
    TOKENS,
    ArrowSamples,
    Indexable,
    check_is_one,
    read_samples,
)
from mixopt.system import BoolArray, IntArray

Tokenize = Callable[[Any], Any]
Packing = Literal["cut", "best_fit"]

SCAN_TOKENS = 1 << 22
SCAN_SAMPLES = 1000
_MAX_ID = 2**31 - 1

# Of a piece: its row and its place in the concatenated documents; its document, and the tokens of
# the document before it, in it and after it; how many of its tokens carry loss.
PIECE = np.dtype(
    [
        (name, "<i8")
        for name in ("row", "start", "document", "before", "length", "after", "supervised")
    ]
)
UNKNOWN = -1
Pieces = NDArray[np.void]


class Scanned(NamedTuple):
    """Documents that were looked at.

    Attributes:
        lengths_D: Tokens of each document.
        carries_T: Whether a token carries loss, for the tokens of all of them; None where all do.
        is_counted: Whether that is known.
    """

    lengths_D: IntArray
    carries_T: BoolArray | None = None
    is_counted: bool = True


class TokenDocument(NamedTuple):
    """A document that is tokens.

    Attributes:
        tokens_T: The tokens, in the type that they are given in.
        labels_T: The label of each, not shifted; None where all of them carry loss.
    """

    tokens_T: NDArray[Any]
    labels_T: IntArray | None


def document_of(sample: Any, name: str, tokenize: Tokenize | None = None) -> TokenDocument:
    """Read a sample: a list of tokens, or fields."""
    if tokenize is not None:
        sample = tokenize(sample)
    fields = sample if isinstance(sample, Mapping) else {TOKENS: sample}
    if fields.get(TOKENS) is None:
        raise CorpusError(
            f"{name}: has no input_ids, but {', '.join(map(str, fields)) or 'nothing'}; tokenise"
            " it, or give tokenize="
        )
    tokens = _tokens(fields[TOKENS], name)
    labels = _labels(fields, tokens, name)
    if fields.get(ATTENTION) is not None:
        is_there = _as_long(fields, ATTENTION, tokens, name) != 0
        tokens, labels = tokens[is_there], None if labels is None else labels[is_there]
    return TokenDocument(tokens, labels)


def labels_of(documents: Sequence[TokenDocument]) -> list[NDArray[Any]] | None:
    """Return the labels of each document; None where all tokens of all of them carry loss."""
    if all(one.labels_T is None for one in documents):
        return None
    return [one.tokens_T if one.labels_T is None else one.labels_T for one in documents]


def _tokens(values: Any, name: str) -> NDArray[Any]:
    tokens = _array(values)
    if not tokens.size and tokens.ndim == 1:
        return tokens.astype(np.int64)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        kind = f"{tokens.ndim} dimensions of {tokens.dtype}"
        raise CorpusError(f"{name}: input_ids: has {kind}; a document is one list of whole numbers")
    least, most = int(tokens.min()), int(tokens.max())
    if least < 0 or most > _MAX_ID:
        wrong = least if least < 0 else most
        raise CorpusError(f"{name}: input_ids: {wrong} is not a token id; ids are 0 to {_MAX_ID}")
    return tokens


def _labels(fields: Mapping[str, Any], tokens: NDArray[Any], name: str) -> IntArray | None:
    masks = [field for field in LOSS_MASKS if fields.get(field) is not None]
    has_labels = fields.get(LABELS) is not None
    if not masks and not has_labels:
        return None
    given = _as_long(fields, LABELS, tokens, name) if has_labels else tokens
    labels = given.astype(np.int64)
    for field in masks:
        labels[_as_long(fields, field, tokens, name) == 0] = NO_LOSS
    return labels


def _as_long(
    fields: Mapping[str, Any], field: str, tokens: NDArray[Any], name: str
) -> NDArray[Any]:
    values = _array(fields[field])
    if values.shape != tokens.shape:
        raise CorpusError(
            f"{name}: {field}: {len(values)} values for {len(tokens)} input_ids; they must be "
            "equal in number"
        )
    return values


def _array(values: Any) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError:  # rows of different lengths
        return np.empty((0, 0))


@dataclass(frozen=True)
class RowFormat:
    """How documents become rows.

    Attributes:
        length: Tokens of a row; None where a document is a row.
        packing: `cut` or `best_fit`.
        tokenize: Turns a document into tokens that end with the end-of-document id; None where
            it has `input_ids`.
        padding: Token id where a row of `best_fit` is not full.
    """

    length: int | None
    packing: Packing
    tokenize: Tokenize | None
    padding: int

    def rows(
        self, documents: Sequence[Any], left: NDArray[Any]
    ) -> tuple[list[Any], NDArray[Any], list[int]]:
        """Make rows of the tokens left over before and of documents."""
        if self.length is None:
            return list(documents), left, []
        read = self.read(documents)
        tokens, labels = [one.tokens_T for one in read], labels_of(read)
        if self.packing == "best_fit":
            packed = best_fit(tokens, self.length, padding=self.padding, labels=labels)
            return row_samples(packed), left, []
        if labels is not None:
            raise CorpusError(
                "a document of a stream: has labels or a mask of loss, which rows cut off tokens do"
                " not keep; give packing='best_fit'"
            )
        packed, rest = cut(tokens, self.length, left)
        return row_samples(packed), rest, [len(one) for one in tokens]

    def read(self, documents: Sequence[Any]) -> list[TokenDocument]:
        """Return the tokens of documents."""
        return [document_of(one, "a document of a stream", self.tokenize) for one in documents]


class ShardDocuments:
    """Documents of token shards, each ended by the end-of-document id."""

    def __init__(self, shards: TokenShards, document_end: int) -> None:
        """Keep the shards."""
        self.shards = shards
        self.document_end = document_end

    def scan(self) -> Iterator[Scanned]:
        """Yield lengths of documents, a few megabytes of tokens at a time."""
        shards, begin = self.shards, 0
        for start in range(0, shards.tokens, SCAN_TOKENS):
            tokens = shards.read(start, min(start + SCAN_TOKENS, shards.tokens))
            stops = np.flatnonzero(tokens == self.document_end) + (start + 1)
            if len(stops):
                yield Scanned(np.diff(stops, prepend=begin))
                begin = int(stops[-1])
        if begin == 0 and shards.tokens:
            raise CorpusError(
                f"{shards.path}: none of its {shards.tokens} tokens is document_end="
                f"{self.document_end}: give the id that ends its documents"
            )
        if begin < shards.tokens:
            yield Scanned(np.array([shards.tokens - begin]))

    def read(self, pieces_P: Pieces) -> tuple[NDArray[Any], None]:
        """Return the tokens of pieces one after the other; all of them carry loss."""
        shards = self.shards
        starts, lengths = pieces_P["start"], pieces_P["length"]
        tokens = np.empty(int(lengths.sum()), shards.dtype)
        stops = np.cumsum(lengths)
        parts = [
            tokens[a:b] for a, b in zip((stops - lengths).tolist(), stops.tolist(), strict=True)
        ]
        shard_P = shards.shards_of(starts)
        is_inside = starts + lengths <= shards.offsets[shard_P + 1]
        for k in np.unique(shard_P[is_inside]).tolist():
            here = np.flatnonzero(is_inside & (shard_P == k))
            places = (starts[here] - shards.offsets[k]).tolist()
            self._copy(k, places, [parts[place] for place in here.tolist()])
        for place in np.flatnonzero(~is_inside).tolist():
            start = int(starts[place])
            parts[place][:] = shards.read(start, start + len(parts[place]))
        return tokens, None

    def _copy(self, k: int, places: Sequence[int], parts: Sequence[NDArray[Any]]) -> None:
        """Copy tokens of one shard from their places in it."""
        if not self.shards.can_be_mapped:
            self.shards.files.read(k, places, parts)
            return
        mapped = self.shards.files.mapped(k)
        for start, part in zip(places, parts, strict=True):
            part[:] = mapped[start : start + len(part)]


class SampleDocuments:
    """Samples of a map-style dataset; a sample is a document."""

    def __init__(
        self, source: Indexable, tokenize: Tokenize | None, lengths: ArrayLike | None
    ) -> None:
        """Keep the source."""
        self._source, self._tokenize = source, tokenize
        self._arrow = ArrowSamples.of(source) if tokenize is None else None
        self._lengths = None if lengths is None else _checked_lengths(lengths, len(source))

    def scan(self) -> Iterator[Scanned]:
        """Yield lengths of documents: those that were given, or of offsets, or by reading all."""
        if self._lengths is not None:
            yield Scanned(self._lengths, is_counted=False)
            return
        arrow, samples = self._arrow, len(self._source)
        for start in range(0, samples, SCAN_SAMPLES):
            stop = min(start + SCAN_SAMPLES, samples)
            if arrow is not None and arrow.has_tokens_alone:
                yield Scanned(arrow.lengths(start, stop))
            else:
                yield _scanned(self._documents(range(start, stop)))

    def read(self, pieces_P: Pieces) -> tuple[NDArray[Any], IntArray | None]:
        """Return the tokens and labels of pieces one after the other."""
        numbers, place_P = np.unique(pieces_P["document"], return_inverse=True)
        documents = self._documents(numbers.tolist())
        read = [
            _piece(documents[place], piece)
            for place, piece in zip(place_P.tolist(), pieces_P.tolist(), strict=True)
        ]
        return np.concatenate([d.tokens_T for d in read]), _joined_labels(read)

    def _documents(self, numbers: Sequence[int]) -> list[TokenDocument]:
        source, arrow = self._source, self._arrow
        samples = read_samples(source, numbers) if arrow is None else arrow.read(numbers)
        return [
            document_of(sample, f"document {number}", self._tokenize)
            for number, sample in zip(numbers, samples, strict=True)
        ]


def documents_in(
    source: Any, document_end: int | None, tokenize: Tokenize | None, lengths: ArrayLike | None
) -> ShardDocuments | SampleDocuments:
    """Return the documents of a source."""
    if isinstance(source, TokenShards):
        if document_end is None:
            raise CorpusError(
                f"{source.path}: give the id that ends a document, document_end=; rows of tokens "
                "whose documents are not known are cut, MixtureDataset(length=)"
            )
        if tokenize is not None or lengths is not None:
            raise CorpusError(f"{source.path}: are tokens; tokenize= and lengths= are for samples")
        return ShardDocuments(source, document_end)
    if document_end is not None:
        raise CorpusError("document_end= is for token shards; each sample is a document")
    check_is_one(None, source)
    if not isinstance(source, Indexable):
        raise CorpusError(
            f"{type(source).__name__} has no length and index; a stream is packed by"
            " MixtureStream(packing='best_fit')"
        )
    return SampleDocuments(source, tokenize, lengths)


def _scanned(documents: Sequence[TokenDocument]) -> Scanned:
    lengths = np.array([len(d.tokens_T) for d in documents], np.int64)
    labels = _joined_labels(documents)
    return Scanned(lengths, None if labels is None else labels != NO_LOSS)


def _joined_labels(documents: Sequence[TokenDocument]) -> IntArray | None:
    labels = labels_of(documents)
    return None if labels is None else np.concatenate(labels).astype(np.int64)


def _piece(document: TokenDocument, piece: tuple[int, ...]) -> TokenDocument:
    _, _, number, before, length, after, _ = piece
    tokens, labels = document
    if len(tokens) != before + length + after:
        raise CorpusError(
            f"document {number} has {len(tokens)} tokens, but {before + length + after} when rows "
            "were planned: lengths= is wrong, or tokenize= does not always give the same"
        )
    here = slice(before, before + length)
    return TokenDocument(tokens[here], None if labels is None else labels[here])


def _checked_lengths(lengths: ArrayLike, samples: int) -> IntArray:
    found = np.asarray(lengths)
    if found.shape != (samples,) or found.dtype.kind not in "iu":
        raise CorpusError(
            f"lengths: {found.dtype} of shape {found.shape} for {samples} samples; give a whole"
            " number of tokens for each"
        )
    if samples and found.min() < 0:
        raise CorpusError(f"lengths: {found.min()} tokens of sample {int(found.argmin())}")
    return found.astype(np.int64)
