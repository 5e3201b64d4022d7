"""Sources of a domain's rows: token shards, or anything with length and index.

Token columns of a `datasets.Dataset` are read from its Arrow table, without Python lists of tokens.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from mixopt.corpus import MAX_MAPPINGS, TokenShards
from mixopt.errors import CorpusError
from mixopt.loading.packing import NO_LOSS, row_samples
from mixopt.system import AnyArray, DType, IntArray, PlainDict, int_array

TOKENS = "input_ids"
LABELS = "labels"
ATTENTION = "attention_mask"
LOSS_MASKS = ("assistant_masks", "completion_mask")
FIELDS = (TOKENS, LABELS, ATTENTION, *LOSS_MASKS)
_LABEL_ROWS = 10_000  # whose labels are read at once
_CHECK_SECONDS = 0.01  # between checks of a file's size, which take microseconds
CountedUnit = Literal["tokens", "supervised"]


@dataclass(frozen=True)
class TokenRows:
    """The tokens of a domain as rows of one length, without an incomplete last row."""

    shards: TokenShards
    length: int

    def __len__(self) -> int:
        return self.shards.tokens // self.length


def read_samples(source: Any, rows: Sequence[int]) -> list[Any]:
    """Read samples at once if the source can, else one by one."""
    get_many = getattr(source, "__getitems__", None)
    if get_many is not None:
        return list(get_many(list(rows)))
    return [source[row] for row in rows]


def check_single_dataset(where: str, source: Any) -> None:
    """Raise CorpusError for a DatasetDict, whose length and index are those of its splits."""
    if isinstance(source, Mapping):
        names = list(source)
        example = names[0] if names else "train"
        raise CorpusError(
            f"{where}: a {type(source).__name__} of {', '.join(map(repr, names))} is several"
            f" datasets; give one of them, such as source[{example!r}]"
        )


def check_map_style(where: str, source: Any) -> None:
    """Raise CorpusError unless it is a `datasets.Dataset`, torch dataset or list."""
    check_single_dataset(where, source)
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise CorpusError(
            f"{where}: {type(source).__name__} has no length and index; for a stream use"
            " MixtureStream"
        )


def token_rows(name: str, source: Any, length: int | None) -> Any:
    """Return the source of rows."""
    if isinstance(source, TokenShards):
        if length is None or length < 1:
            raise CorpusError(
                f"domain {name!r}: length {length} of a row of token shards; say how long a row"
                " is, length=2048"
            )
        return TokenRows(source, length)
    check_map_style(f"domain {name!r}", source)
    return source


class ArrowSamples:
    """Samples reduced to their token fields."""

    def __init__(self, view: Any) -> None:
        self._view = view
        self.columns = set(view.column_names)

    @classmethod
    def of(cls, source: Any) -> Self | None:
        """Wrap a dataset; None for other sources, and for datasets with a transform."""
        if not type(source).__module__.startswith("datasets.") or not hasattr(source, "data"):
            return None
        from pyarrow import types

        columns = [name for name in FIELDS if name in source.column_names]
        for name in columns:
            kind = source.data.schema.field(name).type
            is_list = types.is_list(kind) or types.is_large_list(kind)
            if not is_list or not types.is_integer(kind.value_type):
                return None
        if TOKENS not in columns or source.format["type"] == "custom":
            return None
        return cls(source.select_columns(columns).with_format("arrow"))

    def counts(self, unit: CountedUnit) -> IntArray | None:
        """Return the number of tokens of all samples, or of those with loss, shape (samples,)."""
        if self.columns - {TOKENS, LABELS}:
            return None
        from pyarrow import compute

        is_labelled = unit == "supervised" and LABELS in self.columns
        counted = LABELS if is_labelled else TOKENS
        parts = [np.empty(0, np.int64)]
        for start in range(0, len(self._view), _LABEL_ROWS):
            column = self._view[start : start + _LABEL_ROWS][counted]
            lengths = compute.fill_null(compute.list_value_length(column), 0).to_numpy()
            if is_labelled:
                labels = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
                before = np.append(0, np.cumsum(labels != NO_LOSS))
                lengths = np.diff(before[np.cumsum(lengths)], prepend=0)
            parts.append(lengths.astype(np.int64))
        return np.concatenate(parts)

    def read(self, numbers: Sequence[int]) -> list[PlainDict]:
        """Return samples as arrays; a missing field is None."""
        table = self._view[numbers]
        columns = {name: list(map(_array, table[name])) for name in table.column_names}
        return row_samples(columns)


def _array(value: Any) -> AnyArray | None:
    """Return the numbers of a list of Arrow."""
    return value.values.to_numpy(zero_copy_only=False) if value.is_valid else None


def known_lengths(source: Any, unit: CountedUnit) -> int | IntArray | None:
    """Return the lengths of a source's rows, one number if all are equal; None: unknown."""
    if isinstance(source, TokenRows):
        return source.length
    if callable(getattr(source, "lengths", None)):
        lengths: IntArray | None = source.lengths(unit)
        return lengths
    arrow = ArrowSamples.of(source)
    return None if arrow is None else arrow.counts(unit)


class RowReader:
    """Reads rows of token shards; batches have the widest dtype.

    Files of one dtype are mapped, and rows are gathered from all of them at once, by positions in
    their concatenation. Other files are read domain by domain.
    """

    def __init__(self, domains: Sequence[TokenRows]) -> None:
        self._domains = [rows.shards for rows in domains]
        self._length = domains[0].length
        self.dtype = np.result_type(*(shards.dtype for shards in self._domains))
        self._files: list[tuple[TokenShards, int]] = []
        for shards in self._domains:
            self._files.extend((shards, k) for k in range(len(shards.shards)))
        is_one_dtype = all(shards.dtype == self.dtype for shards in self._domains)
        self._is_mapped = is_one_dtype and len(self._files) <= MAX_MAPPINGS
        if self._is_mapped:
            self._map()

    def read_many(self, domain_NB: IntArray, row_NB: IntArray) -> Iterator[AnyArray]:
        """Copy the rows of several batches; rows must be inside their domains."""
        read = self._read_mapped if self._is_mapped else self._read_apart
        return read(domain_NB, row_NB * self._length)

    def _read_apart(self, domain_NB: IntArray, start_NB: IntArray) -> Iterator[AnyArray]:
        for domain, start in zip(domain_NB, start_NB, strict=True):
            rows = np.empty((len(domain), self._length), self.dtype)
            for d in np.unique(domain).tolist():
                places = np.flatnonzero(domain == d)
                rows[places] = self._domains[d].rows(start[places], self._length)
            yield rows

    def _map(self) -> None:
        mapped = [shards.mapped(k) for shards, k in self._files]
        self._begins = np.cumsum([0, *map(len, mapped)], dtype=np.int64)
        self._firsts = np.cumsum([0, *(shards.tokens for shards in self._domains)], dtype=np.int64)
        addresses = [int(file.__array_interface__["data"][0]) for file in mapped]
        base = min(addresses, default=0)
        tokens = [(address - base) // self.dtype.itemsize for address in addresses]
        self._shifts = int_array(tokens) - self._begins[:-1]
        self._rows = _overlaid(base, self._begins[1:] + self._shifts, self.dtype, self._length)
        self._mapped = mapped  # kept alive with the rows
        self._checked = set[int]()  # files
        self._checked_until = 0.0  # by the monotonic clock

    def _read_mapped(self, domain_NB: IntArray, start_NB: IntArray) -> Iterator[AnyArray]:
        place_NB = start_NB + self._firsts[domain_NB]
        file_NB = np.searchsorted(self._begins, place_NB, side="right") - 1
        start_NB = place_NB + self._shifts[file_NB]
        is_across_NB = place_NB + self._length > self._begins[file_NB + 1]
        crossing = set(np.flatnonzero(is_across_NB.any(axis=1)).tolist())
        touched = set(np.flatnonzero(np.bincount(file_NB.ravel())).tolist())
        for n in range(len(start_NB)):
            self._check_sizes(touched)
            if n not in crossing:
                yield self._gather(start_NB[n])
                continue
            is_across = is_across_NB[n]
            rows = np.empty((len(is_across), self._length), self.dtype)
            rows[~is_across] = self._gather(start_NB[n, ~is_across])
            for k in np.flatnonzero(is_across).tolist():
                domain = domain_NB[n, k]
                start = int(place_NB[n, k] - self._firsts[domain])
                rows[k] = self._domains[domain].read(start, start + self._length)
            yield rows

    def _check_sizes(self, touched: set[int]) -> None:
        """Check that the sizes of files are unchanged."""
        now = time.monotonic()
        if now > self._checked_until:
            self._checked = set()
            self._checked_until = now + _CHECK_SECONDS
        for file in touched - self._checked:
            shards, k = self._files[file]
            shards.check_size(k)
        self._checked |= touched

    def _gather(self, start_B: IntArray) -> AnyArray:
        rows_B = self._rows[start_B]
        return rows_B.view(self.dtype).reshape(len(start_B), self._length)


class _Overlay:
    """Memory described by numpy's array interface."""

    def __init__(self, interface: PlainDict) -> None:
        self.__array_interface__ = interface


def _overlaid(base: int, ends_S: IntArray, dtype: DType, length: int) -> AnyArray:
    """Return overlapping rows of one length over an address range, one starting at each token."""
    tokens = int(ends_S.max(initial=0))
    kind = np.dtype((np.void, length * dtype.itemsize))
    if not tokens:
        return np.empty(0, kind)
    interface = {
        "data": (base, True),
        "shape": (tokens,),
        "strides": (dtype.itemsize,),
        "typestr": kind.str,
        "version": 3,
    }
    return np.asarray(_Overlay(interface))
