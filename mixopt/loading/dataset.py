"""MixtureDataset: the concatenated domains as a map-style dataset, and collation of samples.

MixtureSampler yields its row indices. For token shards it reads whole batches from mapped files;
for other map-style datasets it returns their samples. torch is not imported.

Tokens are `input_ids` without padding by `attention_mask` or `document` (-1); tokens with loss are
`labels` other than -100. Without labels all tokens carry loss.

Shapes: B rows or samples, D domains, L tokens of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.corpus import Corpus, TokenShards, read_corpus_index
from mixopt.errors import CorpusError, SamplerError
from mixopt.loading.packing import (
    NO_LOSS,
    Packed,
    batch_bounds,
    cumulative_lengths,
    documents_of,
    packed_fields,
)
from mixopt.loading.sources import (
    CountedUnit,
    RowReader,
    TokenRows,
    known_lengths,
    read_samples,
    token_rows,
)
from mixopt.sampling import MixtureSampler, Unit
from mixopt.system import IntArray, PlainDict, PlainMapping, int_array, is_url

Batch = PlainDict
Collate = Callable[[Sequence[Any]], Batch]

# Fields that mixopt adds to samples and batches.
ADDED = frozenset(
    ("domain", "row", "lengths", "batch", "position", "mixture", "tokens", "supervised")
)

OF_BATCHES = ("cu_seqlens", "max_seqlen")  # fields of batches, not of samples
_OF_PACKED = ("document", "position_ids")
_COUNTED_ROWS = 1024  # read at once for their lengths


class TokenSamples(Sequence[Batch]):
    """The samples of a batch that was read at once, created lazily."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch["input_ids"])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        parts = self.batch.items()
        return {name: part[index] for name, part in parts if name not in OF_BATCHES}


def stack_samples(samples: Sequence[Any]) -> Batch:
    """Stack fields whose shapes agree; other fields become lists.

    As `collate_fn` of a DataLoader with workers it is much faster than the default, because arrays
    go through a pipe, while each tensor needs a file descriptor and a mapping. Batches of packed
    rows also have `cu_seqlens` and `max_seqlen`.

    Raises:
        SamplerError: Samples have different fields, or arrays different shapes.
    """
    if isinstance(samples, TokenSamples):
        return samples.batch
    check_alike(samples)
    batch: Batch = {}
    for name in samples[0]:
        batch[name] = _stacked(name, [sample[name] for sample in samples])
    if all(getattr(batch.get(name), "ndim", 0) == 2 for name in _OF_PACKED):
        batch |= batch_bounds(batch["document"])
    return batch


def check_alike(samples: Sequence[Any], names: Callable[[int], str] = "sample {}".format) -> None:
    """Check that samples of all domains in a batch have the same fields."""
    first = samples[0].keys()
    for k, sample in enumerate(samples):
        if sample.keys() == first:
            continue
        if first - sample.keys():
            lacks = k
            has = 0
        else:
            lacks = 0
            has = k
        field = min(map(str, samples[has].keys() - samples[lacks].keys()))
        raise SamplerError(
            f"{names(lacks)}: no column {field!r}, which {names(has)} has, and they are in one"
            " batch; give all domains the same columns, or pass MixtureLoader(collate=)"
        )


def _stacked(name: str, values: Sequence[Any]) -> Any:
    if isinstance(values[0], str | bytes | Mapping) or values[0] is None:
        return list(values)
    try:
        return np.stack([np.asarray(value) for value in values])
    except ValueError as error:
        shapes = sorted({str(np.shape(value)) for value in values})
        raise SamplerError(
            f"field {name!r}: samples of shapes {', '.join(shapes)} cannot be stacked; pass"
            " MixtureLoader(collate=)"
        ) from error


class TokenCounts(NamedTuple):
    """Tokens of each sample, and those with loss, shape (B,)."""

    tokens_B: IntArray
    supervised_B: IntArray

    def of(self, unit: Unit) -> IntArray:
        """Return the counts in a unit."""
        return self.supervised_B if unit == "supervised" else self.tokens_B

    def by_domain(self, domain_B: IntArray, domains: int) -> TokenCounts:
        """Sum by domain, shape (D,)."""

        def summed(counts_B: IntArray) -> IntArray:
            return np.bincount(domain_B, counts_B, domains).astype(np.int64)

        return TokenCounts(summed(self.tokens_B), summed(self.supervised_B))


def count_samples(samples: Sequence[Any]) -> TokenCounts | None:
    """Count the tokens of samples; None if they have no known token fields."""
    counts = [_counted(sample) for sample in samples]
    if None in counts:
        return None
    tokens_B, supervised_B = int_array(counts).reshape(-1, 2).T
    return TokenCounts(tokens_B, supervised_B)


def _counted(sample: Any) -> tuple[int, int] | None:
    """Return the tokens of a sample, and those with loss."""
    ids = sample.get("input_ids") if isinstance(sample, Mapping) else None
    if ids is None:
        return None
    tokens = len(ids)
    labels = sample.get("labels")
    document = sample.get("document")
    mask = sample.get("attention_mask")
    if document is not None and np.shape(document) == (len(ids),):
        tokens = int(np.count_nonzero(np.asarray(document) >= 0))
    elif mask is not None and np.shape(mask) == (len(ids),):
        tokens = int(np.count_nonzero(mask))
    if labels is None or np.ndim(labels) != 1:
        return tokens, tokens
    return tokens, int(np.count_nonzero(np.asarray(labels) != NO_LOSS))


def sample_fields(where: str, sample: Any) -> PlainMapping:
    """Return the fields of a sample; raise for a column named like a field that mixopt adds."""
    fields = sample if isinstance(sample, Mapping) else {"sample": sample}
    if not ADDED.isdisjoint(fields):
        name = min(ADDED.intersection(fields))
        raise CorpusError(
            f"{where}: has a column {name!r}, the name of a field that mixopt adds to batches;"
            f" rename it, as in source.rename_column({name!r}, 'my_{name}')"
        )
    return fields


def label(batch: Batch, sampler: MixtureSampler, number: int) -> Batch:
    """Add number, first position and mixture to a rank's batch."""
    batch["batch"] = number
    batch["position"] = number * sampler.batch_size + sampler.rank * sampler.rank_batch
    batch["mixture"] = sampler.mixture_at(number).fingerprint
    return batch


def columns_of(source: Any) -> tuple[str, ...]:
    """Return the columns of a dataset's rows after its transform."""
    if isinstance(source, TokenRows):
        return ("input_ids",)
    columns: Iterable[str] | None = getattr(source, "column_names", None)
    view: Any = getattr(source, "format", None)
    is_transformed = isinstance(view, Mapping) and view.get("type") == "custom"
    if columns is not None and not is_transformed:
        return tuple(columns)
    first = source[0] if len(source) else None
    return tuple(map(str, first)) if isinstance(first, Mapping) else ("sample",)


class MixtureDataset:
    """Samples of all domains, with domain and row."""

    def __init__(
        self,
        sources: PlainMapping,
        *,
        length: int | None = None,
        document_end: int | None = None,
        packed: bool = False,
    ) -> None:
        """Concatenate the domains.

        Args:
            sources: For each domain, token shards or a dataset with length and index.
            length: Tokens in a row of token shards.
            document_end: The tokenizer's end-of-document id; adds to batches of token shards the
                document of each token (`document`) and document boundaries (`cu_seqlens`).
            packed: Also add the fields of packed rows to token shards: `labels`, `position_ids`
                and `max_seqlen`, so that a model separates documents.

        Raises:
            CorpusError: A domain without length and index, token shards without `length`, or
                `packed` without `document_end`.
        """
        if not sources:
            raise CorpusError("a dataset needs at least one domain")
        self.length = length
        self.document_end = document_end
        self.is_packed = packed
        if packed and document_end is None:
            raise CorpusError("packed=True: give the id that ends a document, document_end=")
        self._sources = {name: token_rows(name, s, length) for name, s in sources.items()}
        self._offsets = int_array([0, *accumulate(self.sizes.values())])
        self.is_tokens = all(isinstance(source, TokenRows) for source in self._sources.values())

    @classmethod
    def from_corpus(
        cls,
        path: str | Path,
        *,
        length: int,
        split: str = "train",
        verify: bool = True,
        document_end: int | None = None,
        packed: bool = False,
    ) -> Self:
        """Open the domains of a prepared corpus.

        Args:
            path: The folder written by `mixopt run`, or the URL written by `mixopt export --to
                corpus`, which is fetched completely to this node.
            length: Tokens in a row.
            split: `train` or `validation`.
            verify: Verify the hash of every shard, once on each node.
            document_end: As in the constructor.
            packed: As in the constructor.

        Raises:
            CorpusError: There is no corpus.
            ShardError: A shard is missing, truncated or altered.
        """
        folder = Corpus.open(path).path if is_url(path) else Path(path)
        names = read_corpus_index(folder, verify=False).texts("domains")
        shards = {n: TokenShards.open(folder / n / split, verify=verify) for n in names}
        return cls(shards, length=length, document_end=document_end, packed=packed)

    def __getstate__(self) -> PlainDict:
        return {name: value for name, value in vars(self).items() if name != "_tokens"}

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in order."""
        return tuple(self._sources)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of rows of each domain."""
        return {name: len(source) for name, source in self._sources.items()}

    @cached_property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """Columns of each domain: its own, or those of its first row."""
        return {name: columns_of(source) for name, source in self._sources.items()}

    def lengths(self, unit: CountedUnit = "tokens") -> dict[str, int | IntArray]:
        """Return the lengths of rows, for MixtureSampler(unit=, lengths=).

        Returns:
            Tokens (or those with loss) of each row of a domain; a single number if all rows are
            equal. If they are unknown, all rows of the domain are read once.

        Raises:
            CorpusError: Rows have no known token fields.
        """
        return {name: self._lengths(name, unit) for name in self._sources}

    def _lengths(self, name: str, unit: CountedUnit) -> int | IntArray:
        source = self._sources[name]
        is_packed = self.is_packed and isinstance(source, TokenRows)
        if not (is_packed and unit == "supervised"):
            lengths = known_lengths(source, unit)
            if lengths is not None:
                return lengths
        domain = self.domains.index(name)
        start, stop = self._offsets[domain : domain + 2].tolist()
        parts = [np.empty(0, np.int64)]
        for first in range(start, stop, _COUNTED_ROWS):
            rows = range(first, min(first + _COUNTED_ROWS, stop))
            counts = count_samples(self.__getitems__(rows))
            if counts is None:
                raise CorpusError(f"domain {name!r}: rows have no input_ids, whose tokens count")
            parts.append(counts.of(unit))
        return np.concatenate(parts)

    @property
    def is_uniform(self) -> bool:
        """Whether all rows have the same number of tokens, all with loss."""
        return self.is_tokens and not self.is_packed

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def __getitem__(self, row: int) -> Batch:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> Sequence[Batch]:
        if self.is_tokens:
            return TokenSamples(self.read(rows))
        domain, row = self._split(int_array(rows))
        samples: list[Batch] = [{} for _ in rows]
        sources = list(self._sources.items())
        for d in np.unique(domain).tolist():
            name, source = sources[d]
            places = np.flatnonzero(domain == d)
            for k, sample in zip(places.tolist(), self._read(source, row[places]), strict=True):
                fields = sample_fields(f"domain {name!r}", sample)
                samples[k] = {**fields, "domain": d, "row": int(row[k])}
        return samples

    def _read(self, source: Any, rows: IntArray) -> Sequence[Any]:
        """Read rows of one domain, also token shards beside other sources."""
        if not isinstance(source, TokenRows):
            return read_samples(source, rows.tolist())
        batch = {"input_ids": source.shards.rows(rows * source.length, source.length)}
        if self.document_end is not None:
            batch = self._with_documents(batch)
        return TokenSamples(batch)

    def collated(self, rows: IntArray, collate: Collate) -> Batch:
        """Read and collate rows; mixopt's fields are added whatever `collate` returns.

        Args:
            rows: Row indices in the concatenated domains, shape (B,).
            collate: Collates samples.

        Returns:
            The output of `collate` with `domain`, `row`, `tokens` and `supervised`, shape (B,); the
            last two only for samples with `input_ids`. If `collate` concatenates rows, as for
            attention without padding, also their `lengths`, shape (B,).

        Raises:
            CorpusError: `collate` returned no fields.
            SamplerError: Samples to be stacked have different fields.
        """
        samples = self.__getitems__(rows.tolist())
        domain, row = self._split(rows)
        if collate is stack_samples:
            check_alike(samples, lambda k: f"domain {self.domains[domain[k]]!r}, row {row[k]}")
        counts = count_samples(samples)
        batch = collate(samples)
        if not isinstance(batch, Mapping):
            raise CorpusError(f"collate returned a {type(batch).__name__}; it must return fields")
        added = {"domain": domain, "row": row}
        if counts is not None:
            added |= {"tokens": counts.tokens_B, "supervised": counts.supervised_B}
        if len(batch.get("input_ids", rows)) != len(rows):
            added["lengths"] = int_array([len(sample["input_ids"]) for sample in samples])
        return {**batch, **added}

    def read(self, rows: ArrayLike) -> Batch:
        """Read rows of token shards as one batch.

        Args:
            rows: Row indices in the concatenated domains, shape (B,).

        Returns:
            `input_ids` of shape (B, L), in their stored dtype; `domain` and `row` of
            shape (B,); with `document_end` also `document`, shape (B, L), and `cu_seqlens`; with
            `packed` also `labels` and `position_ids`, shape (B, L), `max_seqlen`, and `tokens` and
            `supervised`, shape (B,).

        Raises:
            CorpusError: The domains are not token shards.
        """
        return next(self.read_many(int_array(rows)[None]))

    def read_many(self, rows_NB: IntArray) -> Iterator[Batch]:
        """Read N batches, one for each row of indices, faster than one by one."""
        if not self.is_tokens:
            raise CorpusError("only domains of token shards can be read as one batch")
        domain_NB, row_NB = self._split(rows_NB)
        read = self._tokens.read_many(domain_NB, row_NB)
        for tokens, domain, row in zip(read, domain_NB, row_NB, strict=True):
            batch = {"input_ids": tokens, "domain": domain, "row": row}
            if self.document_end is not None:
                batch = self._with_documents(batch)
            if self.is_packed:
                supervised = np.count_nonzero(batch["labels"] != NO_LOSS, axis=1)
                batch["tokens"] = np.full(len(row), self.length)
                batch["supervised"] = supervised
            yield batch

    @property
    def itemsize(self) -> int:
        """Bytes per token."""
        return self._tokens.dtype.itemsize

    def _with_documents(self, batch: Batch) -> Batch:
        tokens = batch["input_ids"]
        document = documents_of(tokens, self.document_end)
        if self.is_packed:
            return batch | packed_fields(Packed(tokens, document)) | batch_bounds(document)
        return batch | {"document": document, "cu_seqlens": cumulative_lengths(document)}

    def _split(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        domain = np.searchsorted(self._offsets, rows, side="right") - 1
        return domain, rows - self._offsets[domain]

    @cached_property
    def _tokens(self) -> RowReader:
        return RowReader(list(self._sources.values()))
