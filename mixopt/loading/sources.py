"""Sources of a domain's rows: token shards, or anything with a length and an index.

Token columns of a `datasets.Dataset` are read out of its Arrow table without a Python list of
tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus import TokenShards
from mixopt.errors import CorpusError
from mixopt.loading.packing import NO_LOSS
from mixopt.system import IntArray

TOKENS, LABELS, ATTENTION = "input_ids", "labels", "attention_mask"
LOSS_MASKS = ("assistant_masks", "completion_mask")
FIELDS = (TOKENS, LABELS, ATTENTION, *LOSS_MASKS)
_ROWS = 10_000  # whose labels are read at once
CountedUnit = Literal["tokens", "supervised"]


@runtime_checkable
class Indexable(Protocol):
    """A map-style dataset: `datasets.Dataset`, a torch dataset, a list."""

    def __len__(self) -> int:
        """Count the samples."""
        ...

    def __getitem__(self, index: Any) -> Any:
        """Return one sample."""
        ...


@runtime_checkable
class HasLengths(Protocol):
    """A source that knows how many tokens its rows have."""

    def lengths(self, unit: CountedUnit = "tokens", /) -> IntArray | None:
        """Return the tokens of each row, shape (rows,), or those that carry loss; None: unknown."""
        ...


class TokenRows(NamedTuple):
    """The tokens of a domain as rows of one length; what does not fill the last is left out."""

    shards: TokenShards
    length: int

    @property
    def rows(self) -> int:
        """How many rows there are."""
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


def token_rows(name: str, source: Any, length: int | None) -> TokenRows | Indexable:
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
    if not isinstance(source, Indexable):
        raise CorpusError(
            f"domain {name!r}: {type(source).__name__} has no length and index; for a stream use"
            " MixtureStream"
        )
    return source


class ArrowSamples:
    """Samples with the token fields alone."""

    def __init__(self, view: Any) -> None:
        """Keep a dataset that hands out Arrow tables."""
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
        chunks = self._view[start:stop][TOKENS].chunks
        return np.concatenate([np.empty(0, np.int64), *map(_lengths, chunks)])

    def counts(self, unit: CountedUnit) -> IntArray | None:
        """Return the tokens of all samples, or those that carry loss, shape (samples,)."""
        columns = list(self._view.column_names)
        if set(columns) - {TOKENS, LABELS}:
            return None
        if unit == "tokens" or LABELS not in columns:
            return self.lengths(0, len(self._view))
        starts = range(0, len(self._view), _ROWS)
        chunks = [
            one for start in starts for one in self._view[start : start + _ROWS][LABELS].chunks
        ]
        return np.concatenate([np.empty(0, np.int64), *map(_with_loss, chunks)])

    def read(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return samples as arrays; a field that a sample does not have is None."""
        table = self._view[numbers]
        columns = {name: _rows(table[name]) for name in table.column_names}
        return [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]


def _rows(column: Any) -> list[NDArray[Any] | None]:
    rows: list[NDArray[Any] | None] = []
    for chunk in column.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False)
        stops = np.cumsum(_lengths(chunk)).tolist()
        found = [values[a:b] for a, b in zip([0, *stops], stops, strict=False)]
        rows += [row if there else None for row, there in zip(found, _valid(chunk), strict=True)]
    return rows


def _lengths(chunk: Any) -> IntArray:
    lengths = chunk.value_lengths().fill_null(0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)


def _with_loss(chunk: Any) -> IntArray:
    carries = chunk.flatten().to_numpy(zero_copy_only=False) != NO_LOSS
    before = np.concatenate([[0], np.cumsum(carries)])
    stops = np.cumsum(_lengths(chunk))
    return np.diff(before[stops], prepend=0)


def _valid(chunk: Any) -> list[bool]:
    return [True] * len(chunk) if not chunk.null_count else chunk.is_valid().to_pylist()


def known_lengths(source: Any, unit: CountedUnit) -> int | IntArray | None:
    """Return how long the rows of a source are, one number where all are alike; None: unknown."""
    if isinstance(source, TokenRows):
        return source.length
    if isinstance(source, HasLengths):
        return source.lengths(unit)
    arrow = ArrowSamples.of(source)
    return None if arrow is None else arrow.counts(unit)
