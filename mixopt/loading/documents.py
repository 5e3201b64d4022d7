"""Documents for packing: from token shards, samples of any map-style dataset, conversations.

Each source is scanned once for lengths, then pieces are read by random access. Labels are the
tokens with loss, -100 elsewhere, not shifted; TRL's masks express the same by zeros and ones.
Tokens outside the attention mask are padding, and dropped.

Shapes: P pieces, T tokens.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus import TokenShards
from mixopt.errors import CorpusError
from mixopt.loading.packing import NO_LOSS
from mixopt.loading.sources import (
    ATTENTION,
    FIELDS,
    LABELS,
    LOSS_MASKS,
    TOKENS,
    ArrowSamples,
    check_map_style,
    read_samples,
)
from mixopt.system import (
    AnyArray,
    BoolArray,
    IntArray,
    PlainDict,
    PlainMapping,
    int_array,
    one_line,
)

Tokenize = Callable[[Any], Any]

SCAN_TOKENS = 1 << 22
SCAN_SAMPLES = 1000
_MAX_ID = 2**31 - 1
_GENERATION_MARK = re.compile(r"\{%-?\s*generation\b")


class Piece(NamedTuple):
    """A piece of a document.

    Its row and its start in the concatenated documents; the number of its document, and the
    document's tokens before, in and after it; the number of its tokens with loss.
    """

    row: int
    start: int
    document: int
    before: int
    length: int
    after: int
    supervised: int


PIECE = np.dtype([(name, "<i8") for name in Piece._fields])
Pieces = NDArray[np.void]  # of dtype PIECE


class Scanned(NamedTuple):
    """Scanned documents."""

    lengths_D: IntArray
    carries_T: BoolArray | None = None  # whether a token carries loss; None: all


class TokenDocument(NamedTuple):
    """A tokenised document, in its own dtype."""

    tokens_T: AnyArray
    labels_T: IntArray | None  # not shifted; None: all tokens carry loss

    @property
    def explicit_labels_T(self) -> AnyArray:
        """Labels, which are the tokens if all carry loss."""
        return self.tokens_T if self.labels_T is None else self.labels_T


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
    arrays = _token_arrays(fields, tokens, name)
    labels = None
    if arrays.keys() - {ATTENTION}:
        labels = arrays.get(LABELS, tokens).astype(np.int64)
        for field in arrays.keys() & set(LOSS_MASKS):
            labels[arrays[field] == 0] = NO_LOSS
    if ATTENTION in arrays:
        is_attended = arrays[ATTENTION] != 0
        tokens = tokens[is_attended]
        if labels is not None:
            labels = labels[is_attended]
    return TokenDocument(tokens, labels)


def _token_arrays(fields: PlainMapping, tokens: AnyArray, name: str) -> dict[str, AnyArray]:
    """Return the fields beside the tokens; each has one value for each token."""
    arrays = {}
    for field in FIELDS[1:]:
        if fields.get(field) is None:
            continue
        values = _array(fields[field])
        if values.shape != tokens.shape:
            raise CorpusError(
                f"{name}: {field}: {len(np.atleast_1d(values))} values for {len(tokens)}"
                " input_ids; they must be equal in number"
            )
        arrays[field] = values
    return arrays


def labels_of(documents: Sequence[TokenDocument]) -> list[AnyArray] | None:
    """Return the labels of each document; None if all tokens carry loss."""
    if all(document.labels_T is None for document in documents):
        return None
    return [document.explicit_labels_T for document in documents]


def _tokens(values: Any, name: str) -> AnyArray:
    tokens = _array(values)
    if not tokens.size and tokens.ndim == 1:
        return tokens.astype(np.int64)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        kind = f"{tokens.ndim} dimensions of {tokens.dtype}"
        raise CorpusError(f"{name}: input_ids: has {kind}; a document is one list of whole numbers")
    for wrong in (int(tokens.min()), int(tokens.max())):
        if not 0 <= wrong <= _MAX_ID:
            raise CorpusError(
                f"{name}: input_ids: {wrong} is not a token id; ids are 0 to {_MAX_ID}"
            )
    return tokens


def _array(values: Any) -> AnyArray:
    try:
        return np.asarray(values)
    except ValueError:  # rows of different lengths
        return np.empty((0, 0))


class ShardDocuments:
    """Documents of token shards, terminated by the end-of-document id."""

    def __init__(self, shards: TokenShards, document_end: int) -> None:
        self.shards = shards
        self.document_end = document_end

    def scan(self) -> Iterator[Scanned]:
        """Yield lengths of documents, for a few megabytes of tokens at a time."""
        shards = self.shards
        begin = 0  # of the current document
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

    def read(self, pieces_P: Pieces) -> tuple[AnyArray, None]:
        """Return the concatenated tokens of pieces; all of them carry loss."""
        shards = self.shards
        start_P = pieces_P["start"]
        stop_P = start_P + pieces_P["length"]
        shard_P = shards.shards_of(start_P)
        first_P = shards.offsets[shard_P]
        is_inside_P = stop_P <= shards.offsets[shard_P + 1]
        mapped = {k: shards.mapped(k) for k in np.unique(shard_P[is_inside_P]).tolist()}
        columns = map(np.ndarray.tolist, (start_P, stop_P, shard_P, first_P, is_inside_P))
        parts = []
        for start, stop, k, first, is_inside in zip(*columns, strict=True):
            if is_inside:
                parts.append(mapped[k][start - first : stop - first])
            else:
                parts.append(shards.read(start, stop))
        return np.concatenate(parts), None


class SampleDocuments:
    """Samples of a map-style dataset, each a document."""

    def __init__(self, source: Any, tokenize: Tokenize | None) -> None:
        self._source = source
        self._tokenize = tokenize
        self._arrow = ArrowSamples.of(source) if tokenize is None else None

    def scan(self) -> Iterator[Scanned]:
        """Yield lengths of documents, from offsets or by reading all."""
        arrow = self._arrow
        if arrow is not None and arrow.columns == {TOKENS}:
            arrow_lengths = arrow.counts("tokens")
            if arrow_lengths is not None:
                yield Scanned(arrow_lengths)
                return
        samples = len(self._source)
        for start in range(0, samples, SCAN_SAMPLES):
            documents = self._documents(range(start, min(start + SCAN_SAMPLES, samples)))
            lengths = int_array([len(document.tokens_T) for document in documents])
            labels = _joined_labels(documents)
            carries = None if labels is None else labels != NO_LOSS
            yield Scanned(lengths, carries)

    def read(self, pieces_P: Pieces) -> tuple[AnyArray, IntArray | None]:
        """Return the concatenated tokens and labels of pieces."""
        numbers, place_P = np.unique(pieces_P["document"], return_inverse=True)
        documents = self._documents(numbers.tolist())
        parts = [
            _cut(documents[place], Piece._make(piece))
            for place, piece in zip(place_P.tolist(), pieces_P.tolist(), strict=True)
        ]
        return np.concatenate([part.tokens_T for part in parts]), _joined_labels(parts)

    def _documents(self, numbers: Sequence[int]) -> list[TokenDocument]:
        if self._arrow is None:
            samples = read_samples(self._source, numbers)
        else:
            samples = self._arrow.read(numbers)
        return [
            document_of(sample, f"document {number}", self._tokenize)
            for number, sample in zip(numbers, samples, strict=True)
        ]


def documents_in(
    source: Any, document_end: int | None, tokenize: Tokenize | None
) -> ShardDocuments | SampleDocuments:
    """Return the documents of a source."""
    if isinstance(source, TokenShards):
        if document_end is None:
            raise CorpusError(
                f"{source.path}: give the id that ends a document, document_end=; rows of tokens "
                "whose documents are not known are cut, MixtureDataset(length=)"
            )
        if tokenize is not None:
            raise CorpusError(f"{source.path}: are tokens; tokenize= is for samples")
        return ShardDocuments(source, document_end)
    if document_end is not None:
        raise CorpusError("document_end= is for token shards; each sample is a document")
    check_map_style("a source", source)
    return SampleDocuments(source, tokenize)


def _joined_labels(documents: Sequence[TokenDocument]) -> IntArray | None:
    labels = labels_of(documents)
    return None if labels is None else np.concatenate(labels).astype(np.int64)


def _cut(document: TokenDocument, piece: Piece) -> TokenDocument:
    tokens, labels = document
    planned = piece.before + piece.length + piece.after
    if len(tokens) != planned:
        raise CorpusError(
            f"document {piece.document} has {len(tokens)} tokens, but {planned} when rows "
            "were planned: tokenize= does not always give the same"
        )
    span = slice(piece.before, piece.before + piece.length)
    return TokenDocument(tokens[span], None if labels is None else labels[span])


class ChatTokens:
    """Turns a sample with messages into `input_ids` and `labels`, for `tokenize=`."""

    def __init__(
        self, tokenizer: Any, *, template: str | None = None, messages: str = "messages"
    ) -> None:
        """Check and store the tokenizer.

        Args:
            tokenizer: A transformers tokenizer.
            template: A chat template that replaces the tokenizer's.
            messages: The column with the conversation.

        Raises:
            CorpusError: The tokenizer has no chat template, or several and none is chosen.
        """
        chosen = template or getattr(tokenizer, "chat_template", None)
        if not isinstance(chosen, str):
            name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
            fault = "has several chat templates" if chosen else "has no chat template"
            raise CorpusError(f"tokenizer {name}: {fault}; give ChatTokens(template=)")
        self._tokenizer = tokenizer
        self._template = chosen
        self._field = messages
        self._is_marked = bool(_GENERATION_MARK.search(chosen))

    def __call__(self, sample: Any) -> PlainDict:
        """Return the tokens of a conversation, and labels that are -100 outside answers."""
        messages = sample.get(self._field) if isinstance(sample, Mapping) else None
        if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
            raise CorpusError(f"a conversation: column {self._field!r} has no messages")
        tools = sample.get("tools") or None
        if self._is_marked:
            marked = self._apply(messages, tools, return_assistant_tokens_mask=True)
            tokens = np.asarray(marked["input_ids"])
            mask = np.asarray(marked["assistant_masks"])
            return {"input_ids": tokens, "labels": np.where(mask != 0, tokens, NO_LOSS)}
        tokens = self._tokens(messages, tools)
        labels = np.full(len(tokens), NO_LOSS)
        for turn, message in enumerate(messages):
            if message.get("role") == "assistant":
                start = self._beginning(tokens, messages, turn, tools, has_prompt=True)
                stop = self._beginning(tokens, messages, turn + 1, tools, has_prompt=False)
                labels[start:stop] = tokens[start:stop]
        return {"input_ids": tokens, "labels": labels}

    def _beginning(
        self, tokens: Any, messages: Sequence[Any], turns: int, tools: Any, *, has_prompt: bool
    ) -> int:
        """Count the tokens of the first turns, with or without the generation prompt."""
        if turns == len(messages) and not has_prompt:
            return len(tokens)
        beginning = self._tokens(messages[:turns], tools, add_generation_prompt=has_prompt)
        if not np.array_equal(beginning, tokens[: len(beginning)]):
            raise CorpusError(
                f"the chat template writes the first {turns} of {len(messages)} messages "
                "otherwise than at the beginning of all of them, so answers cannot be located: "
                "mark them by {% generation %} in the template"
            )
        return len(beginning)

    def _tokens(self, messages: Sequence[Any], tools: Any, **options: Any) -> Any:
        return int_array(self._apply(messages, tools, **options)["input_ids"])

    def _apply(self, messages: Sequence[Any], tools: Any, **options: Any) -> Any:
        try:
            return self._tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                chat_template=self._template,
                tokenize=True,
                return_dict=True,
                **options,
            )
        except Exception as error:  # a template may raise anything on unsupported messages
            reason = one_line(f"{type(error).__name__}: {error}")
            raise CorpusError(f"the chat template cannot write a conversation: {reason}") from error
