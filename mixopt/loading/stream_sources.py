"""Divide the source of a domain among the lanes of a stream.

A `datasets.IterableDataset` of many shards is divided into parts of whole shards, as many as divide
the lanes; each part is dealt to its lanes document by document. Any other source is one part.
Neighbouring lanes share a part, so that as few processes as can be read one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mixopt.errors import CorpusError, SamplerError
from mixopt.loading.row_sources import check_is_one
from mixopt.loading.stream_parts import PartSource
from mixopt.loading.stream_rows import opener


class DividedSource:
    """The parts of a domain's source.

    Attributes:
        parts: How many there are; they divide the lanes.
        lanes: Lanes of a part.
    """

    def __init__(self, domain: str, source: Any, lanes: int, buffer: int) -> None:
        """Divide a source.

        Args:
            domain: The domain, for messages.
            source: A streaming data set, an iterable of documents, or a function that returns one.
            lanes: Lanes of the stream.
            buffer: Documents of a lane's block.

        Raises:
            SamplerError: The source was given to ranks already.
            CorpusError: It is several data sets by name, or nothing that can be iterated over.
        """
        _check_source(domain, source)
        self._domain, self._source = domain, source
        shards = source.num_shards if _has_shards(source) else 1
        self.parts = next(n for n in range(min(shards, lanes), 0, -1) if lanes % n == 0)
        self.lanes = lanes // self.parts
        self._every = buffer * self.lanes

    def part(self, number: int) -> PartSource:
        """Return what a part is read from."""
        return PartSource(self._domain, self._opener(number), self.lanes, self._every)

    def _opener(self, number: int) -> Callable[[], Iterable[Any]]:
        source, parts = self._source, self.parts
        if not _has_shards(source):
            return opener(source)
        return lambda: source.shard(num_shards=parts, index=number, contiguous=False)


def _has_shards(source: Any) -> bool:
    return hasattr(source, "num_shards") and hasattr(source, "shard")


def _check_source(domain: str, source: Any) -> None:
    check_is_one(domain, source)
    if getattr(source, "_distributed", None) is not None:
        raise SamplerError(
            f"domain {domain!r}: its source was given to ranks by split_dataset_by_node; give all "
            "of it, the stream divides it among ranks"
        )
    if not (callable(source) or isinstance(source, Iterable)):
        raise CorpusError(
            f"domain {domain!r}: {type(source).__name__} cannot be iterated over; a source is a"
            " streaming data set, an iterable of documents, or a function that returns one"
        )
