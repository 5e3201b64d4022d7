"""Sources of a domain's rows: token shards, or anything with a length and an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from mixopt.corpus import TokenShards
from mixopt.errors import CorpusError
from mixopt.system import IntArray

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
    """Refuse a DatasetDict, which has a length and an index: those of its splits.

    Raises:
        CorpusError: The source is several datasets by name.
    """
    if isinstance(source, Mapping):
        names = ", ".join(map(repr, source))
        where = "a source" if name is None else f"domain {name!r}"
        raise CorpusError(
            f"{where}: a {type(source).__name__} of {names} is several datasets; give one"
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
