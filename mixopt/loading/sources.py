"""Sources of a domain's rows: token shards, or anything with a length and an index.

Token columns of a `datasets.Dataset` are read out of its Arrow table without a Python list of
tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus import MAX_MAPPINGS, TokenShards
from mixopt.errors import CorpusError
from mixopt.loading.packing import NO_LOSS
from mixopt.system import IntArray

TOKENS, LABELS, ATTENTION = "input_ids", "labels", "attention_mask"
LOSS_MASKS = ("assistant_masks", "completion_mask")
FIELDS = (TOKENS, LABELS, ATTENTION, *LOSS_MASKS)
_ROWS = 10_000  # whose labels are read at once
CountedUnit = Literal["tokens", "supervised"]


@dataclass(frozen=True)
class TokenRows:
    """The tokens of a domain as rows of one length; what does not fill the last is left out."""

    shards: TokenShards
    length: int

    def __len__(self) -> int:
        return self.shards.tokens // self.length


def read_samples(source: Any, rows: Sequence[int]) -> list[Any]:
    """Read samples at once where the source can, else one by one."""
    many = getattr(source, "__getitems__", None)
    return list(many(list(rows))) if many else [source[row] for row in rows]


def check_is_one(name: str | None, source: Any) -> None:
    """Refuse a DatasetDict, which has a length and an index: those of its splits."""
    if isinstance(source, Mapping):
        names = ", ".join(map(repr, source))
        where = "a source" if name is None else f"domain {name!r}"
        raise CorpusError(
            f"{where}: a {type(source).__name__} of {names} is several datasets; give one"
            f" of them, such as source[{next(iter(source), 'train')!r}]"
        )


def token_rows(name: str, source: Any, length: int | None) -> Any:
    """Return what rows are read from."""
    if isinstance(source, TokenShards):
        if length is None:
            raise CorpusError(
                f"domain {name!r} is token shards: say how long a row is, length=2048"
            )
        if length < 1:
            raise CorpusError(f"length {length} of a row; the least is 1")
        return TokenRows(source, length)
    check_is_one(name, source)
    if not is_indexable(source):
        raise CorpusError(
            f"domain {name!r}: {type(source).__name__} has no length and index; for a stream use"
            " MixtureStream"
        )
    return source


def is_indexable(source: Any) -> bool:
    """Whether a source is map-style: `datasets.Dataset`, a torch dataset, a list."""
    return hasattr(source, "__len__") and hasattr(source, "__getitem__")


class ArrowSamples:
    """Samples with the token fields alone."""

    def __init__(self, view: Any) -> None:
        self._view = view

    @classmethod
    def of(cls, source: Any) -> ArrowSamples | None:
        """Look at a dataset; None for other sources, and where a transform makes the samples."""
        if not type(source).__module__.startswith("datasets.") or not hasattr(source, "data"):
            return None
        import pyarrow

        columns = [name for name in FIELDS if name in source.column_names]
        types = [source.data.schema.field(name).type for name in columns]
        is_list = pyarrow.types.is_list, pyarrow.types.is_large_list
        if TOKENS not in columns or source.format["type"] == "custom":
            return None
        if not all(any(one(kind) for one in is_list) for kind in types):
            return None
        if not all(pyarrow.types.is_integer(kind.value_type) for kind in types):
            return None
        return cls(source.select_columns(columns).with_format("arrow"))

    @property
    def has_tokens_alone(self) -> bool:
        """Whether there are no labels or masks."""
        return list(self._view.column_names) == [TOKENS]

    def lengths(self, start: int, stop: int) -> IntArray:
        """Return how many tokens samples from `start` to before `stop` have."""
        return _lengths(self._view[start:stop][TOKENS])

    def counts(self, unit: CountedUnit) -> IntArray | None:
        """Return the tokens of all samples, or those that carry loss, shape (samples,)."""
        columns = list(self._view.column_names)
        if set(columns) - {TOKENS, LABELS}:
            return None
        if unit == "tokens" or LABELS not in columns:
            return self.lengths(0, len(self._view))
        parts = [np.empty(0, np.int64)]
        for start in range(0, len(self._view), _ROWS):
            labels = self._view[start : start + _ROWS][LABELS].combine_chunks()
            carries = labels.flatten().to_numpy(zero_copy_only=False) != NO_LOSS
            before = np.concatenate([[0], np.cumsum(carries)])
            parts.append(np.diff(before[np.cumsum(_lengths(labels))], prepend=0))
        return np.concatenate(parts)

    def read(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return samples as arrays; a field that a sample does not have is None."""
        table = self._view[numbers]
        columns = {
            name: [
                one.values.to_numpy(zero_copy_only=False) if one.is_valid else None
                for one in table[name]
            ]
            for name in table.column_names
        }
        rows = zip(*columns.values(), strict=True)
        return [dict(zip(columns, values, strict=True)) for values in rows]


def _lengths(column: Any) -> IntArray:
    import pyarrow.compute

    lengths = pyarrow.compute.fill_null(pyarrow.compute.list_value_length(column), 0)
    return np.asarray(lengths.to_numpy(), np.int64)


def known_lengths(source: Any, unit: CountedUnit) -> int | IntArray | None:
    """Return how long the rows of a source are, one number where all are alike; None: unknown."""
    if isinstance(source, TokenRows):
        return source.length
    if callable(getattr(source, "lengths", None)):
        lengths: IntArray | None = source.lengths(unit)
        return lengths
    arrow = ArrowSamples.of(source)
    return None if arrow is None else arrow.counts(unit)


Some = TypeVar("Some")
_LOOK = 0.01  # seconds for which a file is taken to be what it was: looking takes microseconds


def token_reader(domains: Sequence[TokenRows]) -> ApartReader | SpanReader:
    """Return what reads rows of token shards; the wider of several dtypes holds a batch of both."""
    shards = [rows.shards for rows in domains]
    files = sum(len(one.shards) for one in shards)
    is_one_span = files <= MAX_MAPPINGS and len({one.dtype for one in shards}) == 1
    return (SpanReader if is_one_span else ApartReader)(shards, domains[0].length)


class ApartReader:
    """The files of token shards, each domain's read on their own."""

    def __init__(self, domains: Sequence[TokenShards], length: int) -> None:
        self._domains, self._length = domains, length
        self.dtype = np.result_type(*(shards.dtype for shards in domains))

    def read_many(self, domain_NB: IntArray, row_NB: IntArray) -> Iterator[NDArray[Any]]:
        """Copy the rows, which must be inside of their domains, of one batch after the other."""
        for domain, start in zip(domain_NB, row_NB * self._length, strict=True):
            rows = np.empty((len(domain), self._length), self.dtype)
            for d in np.unique(domain).tolist():
                here = np.flatnonzero(domain == d)
                rows[here] = self._domains[d].rows(start[here], self._length)
            yield rows


class SpanReader:
    """All files of token shards of one dtype, mapped.

    A place is a position in the concatenation of the files.
    """

    def __init__(self, domains: Sequence[TokenShards], length: int) -> None:
        self._length = length
        self._domains = domains
        self._places = [
            (d, k) for d, shards in enumerate(domains) for k in range(len(shards.shards))
        ]
        self._files = [domains[d].mapped(k) for d, k in self._places]
        self._until = [0.0] * len(self._files)  # files need not be looked at again before
        self._begins = np.cumsum([0, *map(len, self._files)], dtype=np.int64)
        self._firsts = np.cumsum([0, *(shards.tokens for shards in domains)], dtype=np.int64)
        dtype = domains[0].dtype
        addresses = [_address(file) for file in self._files]
        base = min(addresses, default=0)
        self._starts = np.array([(one - base) // dtype.itemsize for one in addresses], np.int64)
        self.dtype = dtype
        self._rows = _overlaid(base, self._starts + np.diff(self._begins), dtype, length)
        self._is_simple = all(len(shards.shards) == 1 for shards in domains)

    def read_many(self, domain_NB: IntArray, row_NB: IntArray) -> Iterator[NDArray[Any]]:
        """Copy the rows, which must be inside of their domains, of one batch after the other."""
        inside_NB = row_NB * self._length
        if self._is_simple:
            starts_NB = inside_NB + self._starts[domain_NB]
            yield from map(self._gather, self._looking(domain_NB, starts_NB))
            return
        place_NB = inside_NB + self._firsts[domain_NB]
        file_NB = np.searchsorted(self._begins, place_NB, side="right") - 1
        batches = zip(place_NB, file_NB, strict=True)
        for place, file in self._looking(file_NB, batches):
            yield self._read_places(place, file)

    def _gather(self, start_B: IntArray) -> NDArray[Any]:
        rows_B = self._rows[start_B]
        return rows_B.view(self.dtype).reshape(len(start_B), self._length)

    def _looking(self, file_NB: IntArray, batches: Iterable[Some]) -> Iterator[Some]:
        """Give batches while the files that they are in have their sizes."""
        touched = np.flatnonzero(np.bincount(file_NB.ravel())).tolist()
        until = 0.0
        for batch in batches:
            now = time.monotonic()
            if now > until:
                for file in touched:
                    if now > self._until[file]:
                        self._look(file, now)
                until = now + _LOOK
            yield batch

    def _look(self, file: int, now: float) -> None:
        domain, k = self._places[file]
        self._domains[domain].look(k)
        self._until[file] = now + _LOOK

    def _read_places(self, place_B: IntArray, file_B: IntArray) -> NDArray[Any]:
        is_inside = place_B + self._length <= self._begins[file_B + 1]
        starts = self._starts[file_B] + place_B - self._begins[file_B]
        rows = np.empty((len(place_B), self._length), self.dtype)
        rows[is_inside] = self._gather(starts[is_inside])
        for k in np.flatnonzero(~is_inside).tolist():
            rows[k] = self._across(int(place_B[k]))
        return rows

    def _across(self, place: int) -> NDArray[Any]:
        domain = int(np.searchsorted(self._firsts, place, side="right")) - 1
        start = place - int(self._firsts[domain])
        return self._domains[domain].read(start, start + self._length)


class _Overlay:
    """Memory as numpy's array interface describes it."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


def _overlaid(base: int, ends_S: IntArray, dtype: np.dtype[Any], length: int) -> NDArray[Any]:
    """Lay rows of one length, one beginning at each token, over an address range."""
    tokens = int(ends_S.max(initial=0))
    item = dtype.itemsize
    kind = np.dtype((np.void, length * item))
    if not tokens:
        return np.empty(0, kind)
    interface = {
        "data": (base, True),
        "shape": (tokens,),
        "strides": (item,),
        "typestr": kind.str,
        "version": 3,
    }
    return np.asarray(_Overlay(interface))


def _address(file: NDArray[Any]) -> int:
    return int(file.__array_interface__["data"][0])
