"""Batches of rows that are read from streams while the run trains.

Which domain a global sample is from is the sampler's to say; the k-th of a domain is the k-th row
of its stream. Rank 0 reads the rows of a batch and sends them to all ranks, each of which keeps its
part: a source is read once however many ranks there are, and their number does not matter to the
order. Where each stream is, is part of the state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mixopt.errors import CorpusError
from mixopt.pretraining.ranks import Ranks
from mixopt.pretraining.text.rows_ahead import RowsAhead
from mixopt.sampling import MixtureSampler
from mixopt.system import IntArray, StateFields


class StreamBatches:
    """Yield this rank's part of each global batch; all ranks go through them together."""

    def __init__(
        self,
        sampler: MixtureSampler,
        rows: Mapping[str, RowsAhead],
        ranks: Ranks,
        *,
        max_epochs: float | None,
    ) -> None:
        """Join the order of domains and their rows.

        Args:
            sampler: Which domain each sample is from; weights are changed by it.
            rows: Those of each domain; rank 0 reads them.
            ranks: This rank and the others.
            max_epochs: How often a stream may be read; None for any.
        """
        self.sampler = sampler
        self._rows, self._ranks = rows, ranks
        self._most = math.inf if max_epochs is None else max_epochs

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the batches from the next one to the last of the run.

        Each has `input_ids`, `domain`, `batch` and `position`, as MixtureLoader's have.

        Raises:
            CorpusError: A source cannot be read, or was read `max_epochs` times.
        """
        sampler, last = self.sampler, self.sampler.pass_end
        try:
            while last is None or sampler.batch < last:
                yield self._part(sampler.batch)
        finally:
            for rows in self._rows.values():
                rows.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the sampler's state, and on rank 0 where each stream is."""
        streams = self._rows.items() if self._ranks.is_first else ()
        places = {name: rows.state_dict() for name, rows in streams}
        return {**self.sampler.state_dict(), "streams": places}

    def load_state_dict(
        self, state: Mapping[str, Any], *, map_domains: Mapping[str, str | None] | None = None
    ) -> None:
        """Resume from rank 0's state; the blocks that it was in are read again.

        Raises:
            SamplerError: The state is of other domains or batches.
            CorpusError: A source is not what it was.
        """
        streams = StateFields(state, "the stream's state", CorpusError).part("streams")
        if self._ranks.is_first:
            for name in self._rows:
                streams.part(name)
        self.sampler.load_state_dict(state, map_domains=map_domains)
        if self._ranks.is_first:
            for name, rows in self._rows.items():
                rows.load_state_dict(streams.part(name).content)

    def _part(self, batch: int) -> dict[str, Any]:
        """Return this rank's part of a batch; every rank calls it."""
        tokens_GW, domain_G = self._ranks.first(lambda: self._read(batch))
        sampler = self.sampler
        start = sampler.rank * sampler.rank_batch
        mine = slice(start, start + sampler.rank_batch)
        sampler.received(batch + 1)
        return {
            "input_ids": torch.from_numpy(tokens_GW[mine].astype(np.int64)),
            "domain": torch.from_numpy(domain_G[mine]),
            "batch": batch,
            "position": batch * sampler.batch_size + start,
        }

    def _read(self, batch: int) -> tuple[NDArray[Any], IntArray]:
        """Return the rows of a global batch and their domains, in the order of the samples."""
        sampler = self.sampler
        first = batch * sampler.batch_size
        domain_G = sampler.order.domains(first, first + sampler.batch_size)
        names = [sampler.domains[d] for d in domain_G.tolist()]
        return np.stack([self._next(name, batch) for name in names]), domain_G

    def _next(self, name: str, batch: int) -> Any:
        rows = self._rows[name]
        row = next(rows)
        if rows.epoch >= self._most:
            raise CorpusError(
                f"domain {name!r}: its text was exhausted in batch {batch}, by max_epochs: "
                f"{self._most:g}; resume with max_epochs: {self._most + 1:g}, or give it a "
                "smaller share in another --out"
            )
        return row
