"""What a domain's rows are read from: token shards, or anything with a length and an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from mixopt.corpus import ShardStore, TokenShards
from mixopt.errors import CorpusError
from mixopt.loading.read_ahead import NeededShard
from mixopt.system import IntArray


@runtime_checkable
class Indexable(Protocol):
    """A map-style dataset: `datasets.Dataset`, a torch dataset, a list."""

    def __len__(self) -> int:
        """Count the samples."""
        ...

    def __getitem__(self, index: Any) -> Any:
        """Return one sample."""
        ...


class TokenRows(NamedTuple):
    """The tokens of a domain as rows of one length; what does not fill the last is left out."""

    shards: TokenShards
    length: int

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.shards.tokens // self.length

    def needed(self, row_B: IntArray, store: ShardStore) -> list[NeededShard]:
        """Return the shards of a store that rows are in."""
        first_B = self.shards.shards_of(row_B * self.length)
        last_B = self.shards.shards_of(row_B * self.length + self.length - 1)
        item = self.shards.dtype.itemsize
        found = (self.shards.shards[k] for k in np.union1d(first_B, last_B).tolist())
        return [NeededShard(store, shard, shard.tokens * item) for shard in found]


def read_samples(source: Any, rows: Sequence[int]) -> list[Any]:
    """Read samples at once where the source can, else one by one."""
    many = getattr(source, "__getitems__", None)
    return list(many(list(rows))) if many else [source[row] for row in rows]


def check_is_one(name: str, source: Any) -> None:
    """Refuse a DatasetDict, which has a length and an index: those of its splits.

    Raises:
        CorpusError: The source is several datasets by name.
    """
    if isinstance(source, Mapping):
        names = ", ".join(map(repr, source))
        raise CorpusError(
            f"domain {name!r}: a {type(source).__name__} of {names} is several datasets; give one"
            f" of them, such as source[{next(iter(source), 'train')!r}]"
        )


def token_rows(name: str, source: Any, length: int | None) -> TokenRows | Indexable:
    """Return what rows are read from.

    Raises:
        CorpusError: Token shards without a length of row, several datasets by name, or something
            that has no length.
    """
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
